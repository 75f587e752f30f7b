"""Killed anywhere on its way into a cluster, a delivery ends as if nobody had been killed.

A seeded sample of the cluster's cells each time; all of them are done by `test_matrix` (`make fault`).
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.prometheus import INSTALL as PROMETHEUS
from tests.fakes.registry import INSTALL as REGISTRY
from tests.fault.clustered import FOLLOWS, LASTING, MADE, TWICE, cluster_wrong
from tests.fault.matrix import CLUSTER, Whole
from tests.fault.report import is_good
from tests.fault.test_matrix import FULL, HOURS, SEED, needs_sandbox

SAMPLE = 5


def needs_a_cluster() -> None:
    """Skipped on a user's machine that lacks something, never in CI."""
    needs_sandbox()
    for program, move in (("docker-registry", REGISTRY), ("prometheus", PROMETHEUS)):
        if shutil.which(program) is None:
            assert os.environ.get("CI") != "true", move
            pytest.skip(f"no {program} here; next: {move}")


@pytest.mark.skipif(FULL, reason="all of it is done by test_matrix")
@pytest.mark.timeout(HOURS)
def test_killed_on_the_way_into_a_cluster(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    needs_a_cluster()
    with capfd.disabled():
        print(f"\nPENSTOCK_FAULT_SEED={SEED}", flush=True)  # noqa: T201
        (file,) = Whole(tmp_path, 1, SAMPLE, SEED).run([CLUSTER])
    found = json.loads(file.read_text())
    bad = [result for result in found["results"] if not is_good(result)]
    assert not bad, (f"PENSTOCK_FAULT_SEED={SEED}", bad)
    assert len(found["results"]) == SAMPLE
    named = {name.partition(" ")[2].partition(" #")[0] for name in found["boundaries"]}
    assert {"platform.place", "platform.scale", "platform.remove", "images.publish", "router.apply"} <= named


def test_what_an_api_says_of_a_write_is_said_before_writes_alone() -> None:
    at_a_write = CLUSTER.victims_at("deploy/deploy/0 api.patch services #1 before")
    assert {"busy", "quota", "meddler", "history"} < set(at_a_write)
    for name in ("deploy/deploy/0 api.patch services #1 after", "deploy/deploy/0 platform.place #1 before"):
        assert CLUSTER.victims_at(name) == CLUSTER.victims


# --- the checks that follow can say no --------------------------------------------------------------------


def there(releases: tuple[str, ...]) -> list[tuple[str, dict[str, Any]]]:
    """What should be there with these releases."""
    found: list[tuple[str, dict[str, Any]]] = []
    for release in releases:
        labels = {"penstock.org/release": release}
        found += [(kind, {"metadata": {"name": release, "labels": labels}}) for kind in MADE]
        found += [(kind, {"metadata": {"name": f"{release}-x1", "labels": labels}}) for kind in FOLLOWS]
        found += [(kind, {"metadata": {"name": f"{release}-preview"}}) for kind in TWICE]
    return found + [(kind, {"metadata": {"name": name}}) for kind, names in LASTING.items() for name in names]


def test_nothing_is_wrong_with_what_should_be_there() -> None:
    assert cluster_wrong(there(("shop-2", "shop-1")), {"shop-1", "shop-2"}) == []


@pytest.mark.parametrize("kind", [*MADE, *FOLLOWS, "secrets", "jobs.batch"])
def test_what_nobody_owns_any_more_is_seen(kind: str) -> None:
    orphan = (kind, {"metadata": {"name": "shop-0", "labels": {"penstock.org/release": "shop-0"}}})
    (wrong,) = cluster_wrong([*there(("shop-2", "shop-1")), orphan], {"shop-1", "shop-2"})
    assert wrong.startswith(f"{kind}: ")
    assert "shop-0" in wrong


@pytest.mark.parametrize("kind", [*MADE, *FOLLOWS, *LASTING])
def test_what_is_missing_is_seen(kind: str) -> None:
    objects = there(("shop-2", "shop-1"))
    objects.remove(next(one for one in objects if one[0] == kind))
    (wrong,) = cluster_wrong(objects, {"shop-1", "shop-2"})
    assert wrong.startswith(f"{kind}: ")


@pytest.mark.parametrize("kind", TWICE)
def test_previews_that_have_no_service_are_seen(kind: str) -> None:
    objects = [one for one in there(("shop-1",)) if one != (kind, {"metadata": {"name": "shop-1-preview"}})]
    (wrong,) = cluster_wrong(objects, {"shop-1"})
    assert wrong.startswith(f"{kind}: ")
