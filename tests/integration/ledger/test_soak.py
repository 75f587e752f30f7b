"""Waves: a policy that wants an artifact live elsewhere for a while, on a real ledger. What it passes, waits
for and refuses; all of it is computed again by whoever verifies."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from integration.ledger.world import DATA, Delivery, World, artifact
from penstock.bootstrap.identity import publication
from penstock.clusterfile import load_cluster
from penstock.core.people import By
from penstock.core.pipeline import Gated
from penstock.core.predicates import Deployed, Promoted, RolledBack, SignOff
from penstock.engine import gate
from penstock.ledger import bundle
from penstock.ledger.log import attest
from penstock.policyfile import parse_policy
from penstock.policytests import load_tests, run_case
from penstock.ports import Outcome, Store

EXAMPLE = Path(__file__).parents[3] / "examples" / "05-waves"
WAVES = (EXAMPLE / "policies" / "waves.yaml").read_text()
#: For the environments before.
ANY = """\
policy: any
owner: operations-lead
guards: [deploy, promote]
environments: [eu, asia]
rules:
  - {id: any, when: "true", say: "'yes'", else: "'no'"}
"""
THERE = Delivery("d-eu", artifact("new"), environment="eu")
HERE = Delivery("d-us", artifact("new"), environment="us")
BEFORE = Delivery("d-0", artifact("old"), environment="eu")
AFTER = Delivery("d-9", artifact("newer"), environment="eu")


@pytest.fixture
async def world(tmp_path: Path, store: Store) -> World:
    return await World.begin(tmp_path, store, [WAVES, ANY])


async def promoted(world: World, delivery: Delivery, ago: float) -> None:
    """A delivery there, whose users have had it since *ago* seconds."""
    at, whole = time.time() - ago, (delivery.id, delivery.release, DATA)
    await world.propose(delivery)
    assert (await world.gate(delivery, "deploy")).state == "success"
    await world.report(delivery, Deployed(*whole, "none", 1, at=at))
    assert (await world.gate(delivery, "promote")).state == "success"
    await world.report(delivery, Promoted(*whole, at=at))


async def undone(world: World, delivery: Delivery, restored: Delivery | None) -> None:
    back = restored.release if restored else None
    await world.report(delivery, RolledBack(delivery.id, delivery.release, back, "it failed"))


async def ask(world: World) -> Outcome:
    await world.propose(HERE)
    return await world.gate(HERE, "deploy")


async def is_proven(world: World) -> None:
    """By whoever has the ledger, and by whoever has the bundle alone."""
    assert (await world.verify()).problems == ()
    async with world.store.transaction(write=False) as tx:
        data = await bundle.export(world.ledger, tx, HERE.id)
    assert [step.reason for step in bundle.check(data, world.trust, world.languages) if not step.ok] == []


def test_the_example_is_what_it_says(world: World) -> None:
    policy = parse_policy(WAVES.encode(), "waves.yaml")
    rules = world.languages["cel"].compile(policy)
    cases = load_tests((EXAMPLE / "policies" / "waves.test.yaml").read_bytes(), "waves.test.yaml")
    assert [failure for case in cases for failure in run_case(policy, rules, case)] == []
    cluster = load_cluster(EXAMPLE / "cluster.yaml")
    assert (cluster.of("eu").context, cluster.of("us").context) == ("eu", "us")


async def test_what_has_soaked_passes_and_cites_where(world: World) -> None:
    await promoted(world, THERE, 601)
    outcome = await ask(world)
    assert (outcome.state, outcome.reason) == ("success", "signed off by waves")
    (said,) = (s.predicate for s in outcome.statements)
    assert isinstance(said, SignOff)
    assert said.penstock.explanation == "live for long enough in eu; nobody took it back"
    assert len(said.input_attestations) == 1
    await is_proven(world)


async def test_what_has_not_is_waited_for_until_the_very_moment(world: World) -> None:
    await promoted(world, THERE, 100)
    now = time.time()
    outcome = await ask(world)
    assert outcome.state == "pending"
    assert "eu: live for 100 of 600 s" in outcome.reason
    assert isinstance(outcome.detail, Gated)
    assert outcome.detail.due == pytest.approx(now + 500, abs=5)
    assert outcome.detail.waits_until > now + 80000
    await is_proven(world)


async def test_where_it_never_was_nothing_is_due(world: World) -> None:
    await promoted(world, BEFORE, 5000)
    await promoted(world, replace(THERE, environment="asia"), 5000)
    outcome = await ask(world)
    assert outcome.state == "pending"
    assert f"eu: {BEFORE.release.id} is live" in outcome.reason
    assert isinstance(outcome.detail, Gated)
    assert outcome.detail.due == 0.0


@pytest.mark.parametrize("restored", [BEFORE, None])
async def test_what_was_taken_back_is_refused_at_once(world: World, restored: Delivery | None) -> None:
    """After its promotion there, or in its canary."""
    await promoted(world, BEFORE, 5000)
    if restored:
        await promoted(world, THERE, 601)
    await undone(world, THERE, restored)
    outcome = await ask(world)
    assert outcome.state == "failure"
    assert "taken back in eu" in outcome.reason
    await is_proven(world)


async def test_what_follows_it_there_counts_once_users_have_it(world: World) -> None:
    await promoted(world, THERE, 601)
    await undone(world, AFTER, THERE)
    assert (await ask(world)).state == "success", "a newer one failed there, and took nobody along"
    await promoted(world, AFTER, 0)
    outcome = await world.gate(HERE, "deploy")
    assert outcome.state == "pending"
    assert f"eu: {AFTER.release.id} is live" in outcome.reason


async def test_an_answer_lapses_with_what_happens_there_and_nothing_else(world: World) -> None:
    await promoted(world, THERE, 601)
    asked = (await ask(world)).rests_on
    assert asked is not None

    async def lapsed() -> bool:
        async with world.store.transaction(write=False) as tx:
            return await gate.lapsed(world.ledger, tx, replace(asked, soaks=()))

    await promoted(world, replace(AFTER, environment="asia"), 0)
    assert not await lapsed()
    await undone(world, THERE, BEFORE)
    assert await lapsed()


async def test_a_sign_off_that_was_recorded_too_late_is_found(world: World) -> None:
    await promoted(world, THERE, 601)
    await world.propose(HERE)
    task = world.task(HERE, "deploy")
    outcome = await gate.perform(task, store=world.store, ledger=world.ledger, languages=world.languages)
    await undone(world, THERE, BEFORE)
    await world.keep(*(attest(world.worker, statement) for statement in outcome.statements))
    (problem,) = (await world.verify()).problems
    assert "newer evidence was there when it was recorded" in str(problem)


async def test_a_policy_that_does_not_ask_is_told_nothing_of_it(world: World) -> None:
    text = WAVES.replace("policy: waves", "policy: other").replace("soak: {eu: 600}\n", "")
    await world.say(publication(text, By("op")))
    await promoted(world, THERE, 601)
    await ask(world)
    async with world.store.transaction(write=False) as tx:
        signed = [e.statement.predicate for e in await world.ledger.tagged(tx, f"type:{SignOff.TYPE}")]
    told = {s.penstock.policy: s for s in signed if isinstance(s, SignOff)}
    assert (told["other"].penstock.cause, told["other"].input_attestations) == ("MISSING", ())
    assert told["waves"].verification_result == "PASSED"
    await is_proven(world)
