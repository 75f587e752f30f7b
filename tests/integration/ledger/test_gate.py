"""The shipped policies at the gate: what passes, what does not, and what they say about it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from integration.ledger.world import (
    Delivery,
    World,
    accepted,
    artifact,
    built,
    look,
    scanned,
    suite_ran,
)
from penstock.adapters.cel import Cel
from penstock.bootstrap.identity import publication, shipped_policies
from penstock.core.facts import Fact
from penstock.core.people import Binding, By, RoleGrant
from penstock.core.policy import ACTIONS, PolicyDocument, Rules, RuleVerdict, guarding
from penstock.core.predicates import Predicate, SignOff
from penstock.engine import gate
from penstock.ledger import bundle
from penstock.ledger.log import Batch, attest
from penstock.policyfile import parse_policy
from penstock.ports import Outcome, Transaction

FIRST = Delivery("d-1", artifact("a"))
LATER = Delivery("d-2", artifact("b"), FIRST.release)


async def ask(world: World, delivery: Delivery, action: str, *evidence: Predicate) -> Outcome:
    await world.propose(delivery)
    await world.report(delivery, *evidence)
    return await world.gate(delivery, action)


def test_every_action_is_guarded_by_default() -> None:
    policies = [parse_policy(text.encode(), "p") for text in shipped_policies()]
    held = {action: guarding(policies, action, "any", None, "production") for action in ACTIONS}
    names = {action: [policy.policy for policy in found] for action, found in held.items()}
    assert names == {
        "deploy": ["development-lead", "security-lead"],
        "shift": ["test-lead"],
        "experiment": ["test-lead"],
        "promote": ["operations-lead", "test-lead"],
    }
    assert all(policy.owner == policy.policy for policy in policies)


@pytest.mark.parametrize(
    ("action", "evidence", "state", "words"),
    [
        # deploy: the development lead and the security lead
        ("deploy", [built(), suite_ran(), scanned()], "success", "development-lead, security-lead"),
        ("deploy", [built(), suite_ran(), suite_ran(suite="e2e"), scanned()], "success", "signed off"),
        ("deploy", [built(), suite_ran(failed=2), scanned()], "failure", "2 failed: unit-0, unit-1"),
        ("deploy", [built(), suite_ran(), suite_ran(0, 1, "e2e"), scanned()], "failure", "1 failed: e2e-0"),
        ("deploy", [built(), suite_ran(0), scanned()], "failure", "add tests, or publish"),
        ("deploy", [built(), scanned()], "error", "add tests, or publish"),
        ("deploy", [built(), suite_ran(), scanned(critical=1)], "failure", "1 critical"),
        ("deploy", [built(), suite_ran()], "error", "no scanner from outside"),
        (
            "deploy",
            [built(), suite_ran(), scanned(origin="self-reported")],
            "failure",
            "no scanner from outside",
        ),
        ("deploy", [suite_ran(), scanned()], "error", "not known who built"),
        ("deploy", [], "error", "not known who built"),
        # shift: the test lead
        ("shift", [accepted()], "success", "test-lead"),
        ("shift", [accepted(failed=1)], "failure", "1 failed: live-0"),
        ("shift", [accepted(errors=3)], "failure", "3 of 100 generated requests failed"),
        ("shift", [accepted(requests=0)], "failure", "0 of 0"),
        ("shift", [accepted(p95_ms=100.0)], "success", "test-lead"),
        ("shift", [accepted(p95_ms=100.5)], "failure", "100.5 ms above 100"),
        ("shift", [], "error", "evidence.acceptance.blocking"),
        # promote: the operations lead, and the test lead again
        ("promote", [accepted(), look("PASS")], "success", "operations-lead, test-lead"),
        ("promote", [accepted(), look("FAIL")], "failure", "the canary is FAIL: judged FAIL"),
        ("promote", [accepted(), look("UNKNOWN")], "failure", "the canary is UNKNOWN"),
        ("promote", [accepted(), look("UNKNOWN", quiet=True)], "success", "operations-lead"),
        ("promote", [accepted(requests=40), look("UNKNOWN", quiet=True)], "failure", "canary is UNKNOWN"),
        ("promote", [accepted(errors=1), look("UNKNOWN", quiet=True)], "failure", "canary is UNKNOWN"),
        ("promote", [accepted(), look("FAIL", quiet=True)], "failure", "the canary is FAIL"),
        ("promote", [accepted()], "error", "evidence.canary.verdict"),
        ("promote", [look("PASS")], "error", "evidence.acceptance.blocking"),
    ],
)
async def test_the_shipped_policies(
    world: World, action: str, evidence: list[Predicate], state: str, words: str
) -> None:
    outcome = await ask(world, LATER, action, *evidence)
    assert (outcome.state.value, words in outcome.reason) == (state, True), outcome.reason
    assert (await world.verify()).problems == ()


class Slow:
    """CEL for somebody who decides only once the loop has gone on."""

    at_once = False

    def __init__(self) -> None:
        self.asked, self.went_on = threading.Event(), threading.Event()

    def compile(self, policy: PolicyDocument) -> SlowRules:
        return SlowRules(Cel().compile(policy), self)


@dataclass(frozen=True)
class SlowRules:
    rules: Rules
    language: Slow

    def decide(self, facts: Mapping[str, Fact]) -> tuple[RuleVerdict, ...]:
        self.language.asked.set()
        assert self.language.went_on.wait(10), "the loop stood still"
        return self.rules.decide(facts)


async def test_a_language_that_takes_its_time_holds_nobody_else_up(world: World) -> None:
    slow = Slow()
    world.languages["cel"] = slow
    asking = asyncio.ensure_future(ask(world, FIRST, "deploy", built(), suite_ran(), scanned()))
    assert await asyncio.to_thread(slow.asked.wait, 10)
    slow.went_on.set()
    assert (await asking).state == "success"


async def test_it_counts_evidence_that_is_appended_with_its_answer(world: World) -> None:
    await world.propose(FIRST)
    await world.report(FIRST, built(), scanned())
    async with world.store.transaction() as tx:
        batch = await world.ledger.batch(tx)
        batch.add(world.attested(FIRST, suite_ran()))
        outcome = await at_once(world, tx, batch)
        assert outcome is not None
        batch.add([attest(world.worker, statement) for statement in outcome.statements])
        await world.ledger.write(tx, batch)
        heads = await tx.execute("SELECT size FROM checkpoints WHERE size > ?", (batch.first,))
    assert outcome.state == "success", outcome.reason
    assert heads == [(batch.first + 3,)], "one tree head over the evidence and both sign-offs"
    assert (await world.verify()).problems == ()


async def test_no_transaction_waits_for_a_language_that_takes_its_time(world: World) -> None:
    world.languages["cel"] = Slow()
    await world.propose(FIRST)
    async with world.store.transaction() as tx:
        assert await at_once(world, tx, await world.ledger.batch(tx)) is None


async def at_once(world: World, tx: Transaction, batch: Batch) -> Outcome | None:
    task, languages = world.task(FIRST, "deploy"), world.languages
    return await gate.at_once(task, tx, batch, ledger=world.ledger, languages=languages)


async def test_a_first_release_has_no_canary(world: World) -> None:
    outcome = await ask(world, FIRST, "promote", accepted())
    assert outcome.state == "success"
    (signed,) = [p for p in sign_offs(outcome) if p.penstock.policy == "operations-lead"]
    assert signed.penstock.explanation.startswith("first release")
    assert signed.verification_result == "PASSED"
    assert signed.verified_levels == ("PENSTOCK_OPERATIONS_LEAD",)


async def test_a_first_release_still_needs_its_acceptance(world: World) -> None:
    assert (await ask(world, FIRST, "promote")).state == "error"


async def test_a_quiet_service_says_that_its_traffic_was_generated(world: World) -> None:
    outcome = await ask(world, LATER, "promote", accepted(), look("UNKNOWN", quiet=True, requests=7))
    said = " ".join(signed.penstock.explanation for signed in sign_offs(outcome))
    assert "too quiet to judge (7 of 300 user requests); traffic: generated" in said


async def test_the_canary_of_an_earlier_delivery_signs_for_no_later_one(world: World) -> None:
    await ask(world, LATER, "promote", accepted(), look("PASS"))
    again = Delivery("d-3", LATER.artifact, LATER.baseline)
    outcome = await ask(world, again, "promote")
    assert outcome.state == "error"
    assert "evidence.canary.verdict" in outcome.reason


async def test_the_newest_report_of_each_suite_counts(world: World) -> None:
    await ask(world, FIRST, "deploy", built(), suite_ran(failed=1), suite_ran(suite="e2e"), scanned())
    await world.report(FIRST, suite_ran(passed=4))
    assert (await world.gate(FIRST, "deploy")).state == "success"
    await world.report(FIRST, suite_ran(passed=0, failed=1, suite="e2e"))
    assert (await world.gate(FIRST, "deploy")).state == "failure"
    assert (await world.verify()).problems == ()


async def test_a_sign_off_cites_its_policy_and_its_inputs(world: World) -> None:
    outcome = await ask(world, FIRST, "deploy", built(), suite_ran(), scanned())
    for signed in sign_offs(outcome):
        assert signed.policy.uri.startswith("urn:penstock:entry:")
        assert [item.uri for item in signed.input_attestations] == [
            f"urn:penstock:entry:{index}" for index in (7, 8, 9)
        ]
        decision = signed.penstock
        assert (decision.size, decision.first, decision.action) == (10, True, "deploy")
        assert decision.expires == decision.now + 86400
    (tests,) = [s for s in sign_offs(outcome) if s.penstock.policy == "development-lead"]
    assert tests.penstock.rules[0].values["evidence.tests.passed"] == "3"


async def test_what_changed_between_asking_and_recording_is_asked_again(world: World) -> None:
    """The answer of a gate rests on its question: while it would be asked otherwise, nobody records it."""
    await world.propose(FIRST)
    await world.report(FIRST, built(), suite_ran(), scanned())
    task = world.task(FIRST, "deploy")
    outcome = await gate.perform(task, store=world.store, ledger=world.ledger, languages=world.languages)
    assert outcome.rests_on is not None
    async with world.store.transaction(write=False) as tx:
        assert not await gate.lapsed(world.ledger, tx, outcome.rests_on)
    await world.say(publication(shipped_policies()[0] + "# a newer version\n", By("op")))
    async with world.store.transaction(write=False) as tx:
        assert await gate.lapsed(world.ledger, tx, outcome.rests_on)
    # Whoever records it all the same is found out.
    await world.keep(*(attest(world.worker, statement) for statement in outcome.statements))
    assert "the rules or the roles were changed" in " ".join((await world.verify()).problems)


async def test_evidence_that_comes_while_the_policies_are_asked_is_not_passed_over(world: World) -> None:
    await world.propose(FIRST)
    await world.report(FIRST, built(), suite_ran(), scanned())
    task = world.task(FIRST, "deploy")
    outcome = await gate.perform(task, store=world.store, ledger=world.ledger, languages=world.languages)
    assert outcome.state == "success"
    assert outcome.rests_on is not None
    await world.report(FIRST, suite_ran(failed=1))
    async with world.store.transaction(write=False) as tx:
        assert await gate.lapsed(world.ledger, tx, outcome.rests_on)
    await world.keep(*(attest(world.worker, statement) for statement in outcome.statements))
    assert "newer evidence was there" in " ".join((await world.verify()).problems)


async def test_an_action_that_no_policy_guards_is_refused(world: World) -> None:
    nobody = parse_policy(shipped_policies()[1].encode(), "p")
    text = nobody.source.replace("guards: [shift, experiment, promote]", "guards: [promote]")
    await world.say(publication(text, By("op")))
    outcome = await ask(world, LATER, "shift", accepted())
    assert outcome.state == "error"
    assert "no policy guards shift" in outcome.reason


TEAM = """
policy: shop-extra
owner: shop-lead
scope: team/shop
guards: [deploy]
environments: [production]
rules: [{id: reviewed, when: "change.author == 'bob'", say: "'yes'", else: "'written by ' + change.author"}]
"""


async def test_a_teams_policy_adds_to_the_organisations_once_the_service_is_bound(world: World) -> None:
    await world.say(RoleGrant(By("op"), "op", "shop-lead"))
    await world.say(publication(TEAM, By("op")))
    evidence = (built(), suite_ran(), scanned())
    assert (await ask(world, FIRST, "deploy", *evidence)).state == "success"
    await world.say(Binding(By("op"), "catalog", "shop"))
    outcome = await world.gate(FIRST, "deploy")
    assert outcome.state == "failure"
    assert "shop-extra: written by ada" in outcome.reason
    assert len(outcome.statements) == 3
    assert (await world.verify()).problems == ()


async def test_what_was_done_before_a_binding_needs_nothing_of_the_team(world: World) -> None:
    await world.say(RoleGrant(By("op"), "op", "shop-lead"))
    await world.say(publication(TEAM, By("op")))
    await world.ship(FIRST)
    await world.say(Binding(By("op"), "catalog", "shop"))
    await world.say(publication(TEAM.replace("'yes'", "'yes, bob'"), By("op")))
    assert (await world.verify()).problems == ()
    async with world.store.transaction(write=False) as tx:
        data = await bundle.export(world.ledger, tx, FIRST.id)
    assert [step.reason for step in bundle.check(data, world.trust, world.languages) if not step.ok] == []


async def test_a_new_version_holds_from_the_next_gate_on(world: World) -> None:
    assert (await ask(world, FIRST, "deploy", built(), scanned())).state == "error"
    text = (
        shipped_policies()[0]
        .replace("evidence.tests.passed > 0", "1 > 0")
        .replace("evidence.tests.blocking == 0", "1 > 0")
    )
    await world.say(publication(text, By("op")))
    assert (await world.gate(FIRST, "deploy")).state == "success"
    assert (await world.verify()).problems == ()


def sign_offs(outcome: Outcome) -> list[SignOff]:
    return [s.predicate for s in outcome.statements if isinstance(s.predicate, SignOff)]
