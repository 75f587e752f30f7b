"""Killed anywhere, a delivery ends as if nobody had been killed.

A seeded sample of the matrix each time; all of it, and its page, with ``PENSTOCK_FAULT=full`` (`make fault`).
"""

from __future__ import annotations

import os
import random

import pytest

from tests.fault.listening import Run
from tests.fault.matrix import CONFIGURATIONS, PAGE, run_all
from tests.fault.report import is_good, page
from tests.fault.rig import Machine

FULL = os.environ.get("PENSTOCK_FAULT") == "full"
SAMPLE = 0 if FULL else 12
SEED = int(os.environ.get("PENSTOCK_FAULT_SEED") or random.randrange(10**6))
HOURS = 3600


def needs_sandbox() -> None:
    """Instances are told apart by their sandboxes. Skipped on a user's machine that has none, never in CI."""
    if not Machine.sandboxed():
        if os.environ.get("CI") == "true":
            raise AssertionError("no sandbox")
        pytest.skip("needs a sandbox; next: penstock doctor")


@pytest.mark.timeout(6 * HOURS)
def test_killed_anywhere(capfd: pytest.CaptureFixture[str]) -> None:
    needs_sandbox()
    configurations = CONFIGURATIONS if FULL else CONFIGURATIONS[:2]
    with capfd.disabled():
        print(f"\nPENSTOCK_FAULT_SEED={SEED}", flush=True)  # noqa: T201
        found = run_all(SAMPLE, SEED, configurations)
    if FULL:
        PAGE.write_text(page(found))
    bad = [result for document in found for result in document["results"] if not is_good(result)]
    assert not bad, (f"PENSTOCK_FAULT_SEED={SEED}", bad)
    for document in found:
        killed = {result["boundary"] for result in document["results"]}
        assert killed == set(document["boundaries"]) if FULL else len(document["results"]) == SAMPLE


def test_a_boundary_that_is_tried_again_is_the_same_boundary() -> None:
    run = Run((), {"promote/promote/0 router.apply before": 2})
    names = [run.name(7, "serve", "promote/promote/0 router.apply before") for _ in range(3)]
    assert names == [f"promote/promote/0 router.apply #{number} before" for number in (1, 2, 2)]
    assert run.name(8, "serve", "promote/promote/0 router.apply before").endswith("#1 before")
    assert run.name(9, "node", "- x.y after") == "node: - x.y #1 after"
