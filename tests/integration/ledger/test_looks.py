"""What a canary's judge said is judged again: by who reads the whole ledger, and by who has a bundle."""

from __future__ import annotations

from dataclasses import replace

import pytest

from integration.ledger.world import (
    DATA,
    Delivery,
    World,
    accepted,
    artifact,
    built,
    judged_by,
    look,
    scanned,
    suite_ran,
)
from penstock.core.canary import Row
from penstock.core.predicates import Deployed, Look
from penstock.ledger import bundle

FIRST = Delivery("d-1", artifact("one"))
SECOND = Delivery("d-2", artifact("two"), FIRST.release)

FORGED: list[tuple[Row, str]] = [
    ((5000, 500, 500, 0, 0, 40, 0, 0), "stable release do not add up"),
    ((5000, 500, 500, 60, 0, 500, 0, 0), "evidence gives FAIL"),
    ((5000, 500, 500, 501, 0, 500, 0, 0), "more bad requests than requests"),
    ((5000, 500), "8 whole numbers"),
]


async def test_a_good_look_is_verified(world: World) -> None:
    await world.ship(FIRST)
    await world.ship(SECOND)
    report = await world.verify()
    assert report.verified, report.problems


@pytest.mark.parametrize(("row", "problem"), FORGED)
async def test_a_look_that_its_evidence_does_not_give_is_found(world: World, row: Row, problem: str) -> None:
    await world.propose(FIRST)
    await world.report(FIRST, judged_by(look("PASS"), row))
    report = await world.verify()
    assert not report.verified
    assert any(problem in told for told in report.problems), report.problems


async def test_a_look_of_before_is_believed(world: World) -> None:
    old: Look = replace(look("PASS"), rule=None, spans=None)
    await world.propose(FIRST)
    await world.report(FIRST, old)
    assert (await world.verify()).verified


async def test_a_bundle_says_that_the_canary_was_judged_again(world: World) -> None:
    await world.ship(FIRST)
    await world.ship(SECOND)
    async with world.store.transaction(write=False) as tx:
        data = await bundle.export(world.ledger, tx, "d-2")
    steps = bundle.check(data, world.trust, world.languages)
    assert all(step.ok for step in steps)
    assert any("is judged again: PASS" in step.what for step in steps)


async def test_a_bundle_with_a_forged_look_is_refused(world: World) -> None:
    """The policy believed the verdict; whoever has the counts need not."""
    await world.ship(FIRST)
    await world.propose(SECOND)
    await world.report(SECOND, built(), suite_ran(), scanned())
    await world.gate(SECOND, "deploy")
    placed = Deployed(SECOND.id, SECOND.release, DATA, "none", 1)
    forged = judged_by(look("PASS"), (5000, 500, 500, 60, 0, 500, 0, 0))
    await world.report(SECOND, placed, accepted(), forged)
    await world.gate(SECOND, "promote")
    async with world.store.transaction(write=False) as tx:
        data = await bundle.export(world.ledger, tx, "d-2")
    bad = [step for step in bundle.check(data, world.trust, world.languages) if not step.ok]
    assert any("evidence gives FAIL" in step.reason for step in bad)
