"""Killed anywhere, a delivery ends as if nobody had been killed.

A seeded sample of the matrix each time; all of it, and its page, with ``PENSTOCK_FAULT=full`` (`make fault`),
or what is left of it after an interruption with ``PENSTOCK_FAULT_AGAIN=1`` too.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from tests.fault.listening import Run
from tests.fault.matrix import CONFIGURATIONS, FOUND, PAGE, Whole
from tests.fault.report import is_good, merged, page
from tests.fault.rig import Machine

FULL = os.environ.get("PENSTOCK_FAULT") == "full"
SAMPLE = 0 if FULL else 12
SEED = int(os.environ.get("PENSTOCK_FAULT_SEED") or random.randrange(10**6))
#: A cell is mostly waiting: two processors are enough for four configurations side by side.
JOBS = int(os.environ.get("PENSTOCK_FAULT_JOBS") or (4 if FULL else 2))
AGAIN = bool(os.environ.get("PENSTOCK_FAULT_AGAIN"))
#: Each store, one of them with one worker and the other with three; `test_clustered` has the cluster.
SAMPLED = CONFIGURATIONS[::3] if SEED % 2 else CONFIGURATIONS[1:3]
HOURS = 3600


def needs_sandbox() -> None:
    """Instances are told apart by their sandboxes. Skipped on a user's machine that has none, never in CI."""
    if not Machine.sandboxed():
        if os.environ.get("CI") == "true":
            raise AssertionError("no sandbox")
        pytest.skip("needs a sandbox; next: penstock doctor")


@pytest.mark.timeout(6 * HOURS)
def test_killed_anywhere(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    needs_sandbox()
    configurations = CONFIGURATIONS if FULL else SAMPLED
    whole = Whole(FOUND if FULL else tmp_path, JOBS, SAMPLE, SEED, again=FULL and AGAIN)
    with capfd.disabled():
        print(f"\nPENSTOCK_FAULT_SEED={SEED}", flush=True)  # noqa: T201
        files = whole.run(configurations)
    found = [json.loads(file.read_text()) for file in files]
    if FULL:
        PAGE.write_text(page(found))
    bad = [result for document in found for result in document["results"] if not is_good(result)]
    assert not bad, (f"PENSTOCK_FAULT_SEED={SEED}", bad)
    for configuration, document in zip(configurations, found, strict=True):
        killed = {(result["boundary"], result["victim"]) for result in document["results"]}
        cells = {
            (name, victim) for name in document["boundaries"] for victim in configuration.victims_at(name)
        }
        assert killed == cells if FULL else len(killed) == SAMPLE


def part(victim: str, *results: tuple[str, str], commit: str = "c1", **boundaries: int) -> dict[str, Any]:
    """What one process found: what was wrong ("" for nothing, "?" if it was not reached) by boundary."""
    return {
        "configuration": {"store": "sqlite", "workers": 1, "target": "cluster"},
        "boundaries": {
            name: [{"boundary": "a", "victim": "api"}] * kills for name, kills in boundaries.items()
        },
        "undisturbed": 2.0,
        "seconds": 60.0,
        "commit": commit,
        "results": [
            {
                "boundary": boundary,
                "victim": victim,
                "after": [],
                "reached": wrong != "?",
                "seconds": 1.0,
                "wrong": [wrong] if wrong not in ("", "?") else [],
            }
            for boundary, wrong in results
        ],
    }


def test_the_parts_of_a_configuration_become_one() -> None:
    api = part("api", ("a", "?"), ("b", "two Envoys"), a=2, b=0)
    again = part("api", ("a", ""), ("b", ""), a=1, commit="c1, c2")
    other = {**part("node", ("a", ""), a=0), "configuration": {"store": "postgres", "workers": 3}}
    whole, alone = merged([api, part("worker", ("a", "")), other, again])
    assert alone == other
    assert [(r["boundary"], r["victim"], is_good(r)) for r in whole["results"]] == [
        ("a", "api", True),
        ("b", "api", False),
        ("a", "worker", True),
    ]
    assert {name: len(after) for name, after in whole["boundaries"].items()} == {"a": 1, "b": 0}
    assert (whole["commit"], whole["seconds"]) == ("c1, c2", 180.0)
    assert "* api at b: two Envoys" in page([whole])


def test_a_boundary_that_is_tried_again_is_the_same_boundary() -> None:
    run = Run((), {"promote/promote/0 router.apply before": 2})
    names = [run.name(7, "serve", "promote/promote/0 router.apply before") for _ in range(3)]
    assert names == [f"promote/promote/0 router.apply #{number} before" for number in (1, 2, 2)]
    assert run.name(8, "serve", "promote/promote/0 router.apply before").endswith("#1 before")
    assert run.name(9, "node", "- x.y after") == "node: - x.y #1 after"
