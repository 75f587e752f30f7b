"""A service with three requests a minute: its delivery ends in an honest UNKNOWN, with a plan."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from test_canary import DATA, NEW, STABLE, Town, entry, said

from fakes.world import World
from penstock.adapters.cel import Cel
from penstock.bootstrap.identity import shipped_policies
from penstock.core import factfinding
from penstock.core.authority import Authority
from penstock.core.canaryconfig import CanaryConfig
from penstock.core.evidence import Entry, Statement, Subject, seal
from penstock.core.pipeline import Intent, Looked, Record, State
from penstock.core.policy import judge
from penstock.core.predicates import Accepted, Look
from penstock.core.release import Artifact, Change
from penstock.core.selection import Question
from penstock.core.stages import standard
from penstock.core.verdict import Result
from penstock.engine.plans import canary_plan
from penstock.policyfile import parse_policy

#: The default plan: three steps of twenty seconds, a look each five.
CANARY = CanaryConfig()
#: Seconds from one request to the next.
EVERY = 20.0


class Village(World):
    """Time goes by as `decide` says; the canary's own check looks at what few users did meanwhile."""

    def __init__(self, config: CanaryConfig = CANARY) -> None:
        super().__init__(standard(canary_plan(config)), baseline=STABLE)
        # Whoever measures sleeps from look to look, in real time.
        self.town = Town(config=replace(config, look_every=0.01))
        self.town.counts = {NEW.id: [0, 0, 0], STABLE.id: [40, 0, 0]}
        self.served = 0
        self.looks: list[Look] = []
        self.reasons: list[str] = []

    def perform(self, intent: Intent) -> None:
        if intent.verb not in ("measure", "look"):
            super().perform(intent)
            return
        self.serve()
        self.town.at = self.now
        measures = intent.verb == "measure"
        outcome = asyncio.run(self.town.measure() if measures else self.town.look(intent.share, 0.0))
        self.reasons.append(outcome.reason)
        if not measures:
            self.looks.append(said(outcome))
        record = Record(intent, outcome.state, self.now, self.now + 0.1, outcome.reason, (), outcome.detail)
        self.records, self.now = (*self.records, record), self.now + 0.1

    def serve(self) -> None:
        """Whoever came until now; the router gives the new release its share."""
        share = self.shares[-1] if self.shares else 0
        while self.served < self.now // EVERY:
            self.served += 1
            to_new = self.served * share // 1000 > (self.served - 1) * share // 1000
            self.town.serve(NEW if to_new else STABLE, 1)


@pytest.fixture
def village() -> Village:
    found = Village()
    found.run()
    return found


def test_before_it_starts_it_is_said_that_it_cannot_tell(village: Village) -> None:
    assert "nobody asked while it was measured" in village.reasons[0]
    assert "expect UNKNOWN; for so quiet a service: give it longer" in village.reasons[0]
    assert "generated requests stand in where a policy says so" in village.reasons[0]
    assert village.reasons[0].endswith("or an override")


def test_it_takes_every_step_and_ends_unknown_with_what_is_missing(village: Village) -> None:
    assert village.shares == [50, 250, 500]
    assert {look.verdict for look in village.looks} == {"UNKNOWN"}
    last = village.looks[-1]
    assert last.quiet
    assert last.explanation == (
        "the new release has answered no user request yet; 404 are needed, about 5 hours at the present rate"
    )
    assert village.now < 60 + CANARY.patience / 2, "and it is not waited for"


def test_one_that_is_given_the_time_it_needs_passes_on_its_own_users() -> None:
    """The first of the three ways on; the plan says before how long it takes."""
    patient = Village(CanaryConfig((50.0,), seconds_per_step=200.0, look_every=200.0, patience=6 * 3600.0))
    assert patient.run().outcome == "promoted"
    assert {look.quiet for look in patient.looks} == {False}
    assert [look.verdict for look in patient.looks[:-1]] == ["UNKNOWN"] * (len(patient.looks) - 1)
    assert patient.looks[-1].verdict == "PASS"
    assert 4 * 3600 < patient.now < 6 * 3600


@pytest.mark.parametrize(("requests", "result"), [(60, Result.PASS), (30, Result.FAIL)])
def test_only_a_policy_that_names_generated_requests_lets_it_pass(
    village: Village, requests: int, result: Result
) -> None:
    accepted = Accepted(2, 0, (), requests, 0, 10.0, 100.0)
    statement = Statement((Subject(NEW.id, NEW.digest),), accepted)
    tested = Entry(1, seal(statement.payload(), "ab" * 32, b"signature"), statement)
    looked = replace(entry(village.looks[-1]), index=2)
    change = Change("code", "shop", "production", "/repo", "1" * 40, "Dana", "A change")
    question = Question(
        "shop-1", "promote", change, Artifact("shop", NEW.artifact), NEW, False, 3, 1_700_000_000.0
    )
    facts = factfinding.facts([tested, looked], question, Authority())
    text = next(text for text in shipped_policies() if "policy: operations-lead" in text)
    policy = parse_policy(text.encode(), "policy")
    rules = judge(policy, Cel().compile(policy), facts, {})
    rule = next(rule for rule in rules if rule.id == "canary")
    assert rule.verdict.result is result
    if result is Result.PASS:
        assert rule.verdict.reason == "too quiet to judge (0 of 404 user requests); traffic: generated"
    else:
        assert "the canary is UNKNOWN: the new release has answered no user" in rule.verdict.reason
        assert rule.verdict.reason.endswith(
            "a service so quiet needs 50 generated requests that are all answered (acceptance.requests; "
            "0 of 30 failed), a longer canary (canary.patience), or an override"
        )


def test_a_look_that_is_unknown_is_recorded_as_such(village: Village) -> None:
    details = [record.detail for record in village.records if record.intent.verb == "look"]
    assert all(isinstance(d, Looked) and d.verdict == "UNKNOWN" and d.new is not None for d in details)
    assert all(record.state is State.SUCCESS for record in village.records)
    assert DATA.service == "shop"
