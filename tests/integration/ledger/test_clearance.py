"""What may run in an environment, from a real ledger: what is released, and what is signed off."""

from __future__ import annotations

from dataclasses import replace

import pytest

from integration.ledger.world import (
    DATA,
    Delivery,
    World,
    artifact,
    built,
    scanned,
    suite_ran,
)
from penstock.bootstrap.identity import publication, shipped_policies
from penstock.core.evidence import Statement, Subject
from penstock.core.people import By, Override, Person, PolicyRetirement
from penstock.core.predicates import Deployed, Ended, RolledBack
from penstock.core.release import Change
from penstock.ledger.live import Promotions
from penstock.ledger.log import attest
from penstock.projections.clearance import Clearance, Known, cleared, known_of

FIRST = Delivery("d-1", artifact("a"))
SECOND = Delivery("d-2", artifact("b"), FIRST.release)
DAY = 86400.0


class Asking:
    """Asks as the server does, for the whole life of a ledger."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.promotions = Promotions(world.ledger)

    async def known(self, delivery: Delivery, environment: str = "production") -> Known:
        async with self.world.store.transaction(write=False) as tx:
            named = delivery.artifact.digest
            return await known_of(self.world.ledger, self.promotions, tx, named, environment)

    async def __call__(self, delivery: Delivery, *, later: float = 0.0) -> Clearance:
        known = await self.known(delivery)
        return cleared(replace(known, now=known.now + later))


@pytest.fixture
def ask(world: World) -> Asking:
    return Asking(world)


async def sign_off(world: World, delivery: Delivery, critical: int = 0) -> None:
    await world.propose(delivery)
    await world.report(delivery, built(), suite_ran(), scanned(critical))
    await world.gate(delivery, "deploy")


async def place(world: World, delivery: Delivery) -> None:
    """As the engine records it: about the release alone."""
    release = delivery.release
    placed = Deployed(delivery.id, release, DATA, "none", 1)
    await world.keep(attest(world.worker, Statement((Subject(release.id, release.digest),), placed)))


async def take_back(world: World, delivery: Delivery, reason: str = "slower") -> None:
    release = delivery.release
    back = RolledBack(delivery.id, release, delivery.baseline, reason)
    await world.keep(attest(world.worker, Statement((Subject(release.id, release.digest),), back)))


def refused(found: Clearance, *words: str) -> None:
    assert not found.cleared
    assert [word for word in words if word not in found.says + found.next_move] == [], found
    assert found.next_move


async def test_what_nobody_knows_is_not_cleared(ask: Asking) -> None:
    refused(await ask(FIRST), "is not known here", "penstock ship")


async def test_what_is_built_and_was_not_asked_about_is_not_cleared(world: World, ask: Asking) -> None:
    await world.propose(FIRST)
    await world.report(FIRST, built(), suite_ran(), scanned())
    refused(await ask(FIRST), "is not known here")


async def test_what_every_policy_signed_off_is_cleared_until_it_expires(world: World, ask: Asking) -> None:
    await sign_off(world, FIRST)
    found = await ask(FIRST)
    assert found.cleared
    assert found.says == f"{FIRST.release.id} is signed off for deploy"
    assert (await ask(FIRST, later=DAY - 60)).cleared
    refused(await ask(FIRST, later=DAY + 60), "security-lead: its sign-off expired at ", "penstock rerun d-1")


async def test_what_a_policy_refused_says_why_and_who_can_help(world: World, ask: Asking) -> None:
    await sign_off(world, FIRST, critical=2)
    who = "(security-lead can override it: op)"
    refused(await ask(FIRST), "security-lead: 2 critical", who, FIRST.release.id, "penstock rerun d-1")
    assert "development-lead" not in (await ask(FIRST)).says, "it passed"


async def test_a_later_asking_counts(world: World, ask: Asking) -> None:
    await sign_off(world, FIRST)
    await world.report(FIRST, scanned(3))
    await world.gate(FIRST, "deploy")
    refused(await ask(FIRST), "security-lead: 3 critical")


class Elsewhere(Delivery):
    """Somebody else's change, as can be told from the author's address."""

    @property
    def change(self) -> Change:
        return replace(super().change, author="Ada <ada@example.org>")


async def test_what_was_overridden_is_cleared_and_says_so(world: World, ask: Asking) -> None:
    theirs = Elsewhere("d-1", artifact("a"))
    await world.propose(theirs)
    await world.report(theirs, built(), suite_ran(), scanned(2))
    why = ("security-lead", "deploy", theirs.release.digest, "mend it first", 4e9)
    await world.say(Person(By("op"), "op", ("op@example.org",)), Override(By("op"), *why))
    await world.gate(theirs, "deploy")
    said = (f"{theirs.release.id}: security-lead was overridden by op: mend it first",)
    found = await ask(theirs)
    assert (found.cleared, found.overridden) == (True, said)
    await place(world, theirs)
    assert (await ask(theirs, later=9 * DAY)).overridden == said, "never silent"


async def test_a_policy_that_came_later_was_not_asked(world: World, ask: Asking) -> None:
    await sign_off(world, FIRST)
    text = next(t for t in shipped_policies() if "policy: security-lead" in t)
    await world.say(publication(text.replace("policy: security-lead", "policy: second-look"), By("op")))
    refused(await ask(FIRST), "second-look: it was not asked")
    assert (await ask(FIRST)).says.count(";") == 0


async def test_a_new_version_of_a_policy_was_not_asked(world: World, ask: Asking) -> None:
    await sign_off(world, FIRST)
    text = next(t for t in shipped_policies() if "policy: security-lead" in t)
    await world.say(publication(text + "# stricter\n", By("op")))
    refused(await ask(FIRST), "security-lead: another version of it is in force by now")


async def test_where_no_policy_guards_nothing_is_cleared(world: World, ask: Asking) -> None:
    await sign_off(world, FIRST)
    await world.say(*(PolicyRetirement(By("op"), name, "") for name in ("security-lead", "development-lead")))
    refused(await ask(FIRST), "no policy guards deploy in production, and nothing never passes")


async def test_another_environment_is_another_question(world: World, ask: Asking) -> None:
    await sign_off(world, FIRST)
    refused(cleared(await ask.known(FIRST, "staging")), "was asked about for production only")


async def test_what_is_being_delivered_is_cleared_however_long_it_takes(world: World, ask: Asking) -> None:
    await sign_off(world, FIRST)
    await place(world, FIRST)
    found = await ask(FIRST, later=9 * DAY)
    assert (found.cleared, found.says) == (True, f"{FIRST.release.id} is being delivered by d-1")
    await world.report(FIRST, Ended("d-1", "error", "failed", "could not be undone"))
    assert not (await ask(FIRST, later=9 * DAY)).cleared


async def test_what_was_taken_back_has_to_be_asked_about_again(world: World, ask: Asking) -> None:
    await world.ship(FIRST)
    await sign_off(world, SECOND)
    await place(world, SECOND)
    await take_back(world, SECOND)
    taken = f"not asked since {SECOND.release.id} was taken back (entry "
    refused(await ask(SECOND), "security-lead: " + taken, "slower")
    await world.report(SECOND, Ended("d-2", "failure", "rolled-back", "slower"))
    again = replace(SECOND, id="d-3")
    await sign_off(world, again)
    assert (await ask(SECOND)).cleared


async def test_what_is_live_is_cleared_for_ever_and_so_is_what_rollbacks_come_back_to(
    world: World, ask: Asking
) -> None:
    await world.ship(FIRST)
    found = await ask(FIRST, later=900 * DAY)
    assert (found.cleared, found.says) == (True, f"{FIRST.release.id} was promoted")
    await world.ship(SECOND)
    assert (await ask(FIRST, later=900 * DAY)).cleared
    await world.roll_back(Delivery("d-3", SECOND.artifact, SECOND.release, "rollback"), FIRST.release)
    assert (await ask(FIRST, later=900 * DAY)).cleared
    refused(await ask(SECOND, later=60.0), "was taken back")


async def test_an_earlier_pair_that_failed_a_second_time_can_still_be_come_back_to(
    world: World, ask: Asking
) -> None:
    """What a rollback by hand would place is cleared: it asks no policy."""
    await world.ship(FIRST)
    await world.ship(SECOND)
    again = Delivery("d-3", FIRST.artifact, SECOND.release)
    await sign_off(world, again)
    await place(world, again)
    await take_back(world, again)
    assert (await ask(FIRST, later=9 * DAY)).cleared


async def test_a_promotion_that_is_undone_ends_what_it_gave(world: World, ask: Asking) -> None:
    """A first release goes back to nothing, with the rest of its change set."""
    await world.ship(FIRST)
    assert (await ask(FIRST)).cleared
    await take_back(world, FIRST)
    refused(await ask(FIRST), "was taken back")


async def test_a_history_that_is_kept_is_the_one_that_is_there(world: World, ask: Asking) -> None:
    """Whoever asked all along is told what a newcomer is told."""
    for delivery in (FIRST, SECOND):
        await world.ship(delivery)
        for asked in (FIRST, SECOND):
            assert await ask(asked) == await Asking(world)(asked)
