"""A worker that does one thing and files it under another: what was signed off is what counts."""

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
    scanned,
    suite_ran,
)
from penstock.core.evidence import Statement, Subject
from penstock.core.predicates import Deployed, Promoted
from penstock.ledger.log import attest

FIRST = Delivery("d-1", artifact("one"))
SECOND = Delivery("d-2", artifact("two"), FIRST.release)


async def complaints(world: World) -> str:
    report = await world.verify()
    assert not report.verified
    return "\n".join(report.problems)


@pytest.mark.parametrize("also", [False, True])
async def test_about_which_release_it_did_it_to(world: World, also: bool) -> None:
    """The sign-offs are of the first; what was deployed and promoted is another, never asked about."""
    await world.propose(FIRST)
    await world.report(FIRST, built(), suite_ran(), scanned())
    assert (await world.gate(FIRST, "deploy")).state == "success"
    await world.report(FIRST, accepted())
    assert (await world.gate(FIRST, "promote")).state == "success"
    other = SECOND.release
    subjects = (Subject("r", FIRST.release.digest), *((Subject("r", other.digest),) if also else ()))
    for done in (Deployed(FIRST.id, other, DATA, "none", 1), Promoted(FIRST.id, other, DATA)):
        await world.keep(attest(world.worker, Statement(subjects, done)))
    said = await complaints(world)
    assert ("without the sign-off" if also else "another release than it is about") in said


async def test_about_the_environment_data(world: World) -> None:
    """What is live next is this pair, and the next release takes its data over from it."""
    await world.ship(FIRST)
    again = replace(FIRST, id="d-9", kind="rollback")
    await world.propose(again)
    subjects = (Subject("r", FIRST.release.digest),)
    forged = Deployed(again.id, FIRST.release, replace(DATA, values={"PRICE": "0"}), "none", 1)
    await world.keep(attest(world.worker, Statement(subjects, forged)))
    assert "other environment data" in await complaints(world)


async def test_about_going_back_to_another_pair_beside_one_that_was_live(world: World) -> None:
    await world.ship(FIRST)
    back = Delivery("d-9", FIRST.artifact, FIRST.release, "rollback")
    await world.propose(back)
    subjects = (Subject("r", FIRST.release.digest), Subject("r", SECOND.release.digest))
    deployed = Deployed(back.id, SECOND.release, DATA, "none", 1)
    await world.keep(attest(world.worker, Statement(subjects, deployed)))
    assert "what was never promoted" in await complaints(world)
