"""`decide` over every state it can meet: a model of the world performs what it says, in every way it can
go, and the run must end, undone if it touched anything."""

from __future__ import annotations

import itertools

import pytest

from penstock.core.decide import UNDO, Finish, Perform, Wait, decide
from penstock.core.pipeline import (
    GOOD,
    Begun,
    Canary,
    Detail,
    Facts,
    Gated,
    Intent,
    Looked,
    Made,
    Measured,
    Pipeline,
    Record,
    State,
    configuration,
    rollback,
    standard,
)
from penstock.core.release import Artifact, EnvironmentData, Release
from penstock.core.traffic import Counters

CANARY = Canary((100, 500), seconds_per_step=4.0, look_every=2.0, patience=4.0)
ARTIFACT = Artifact("shop", "sha256:" + "a" * 64)
DATA = EnvironmentData("shop", "production")
OLD = Release("shop", "production", "sha256:" + "0" * 64, DATA.digest)
COUNTERS = Counters("shop-1", 0.0, "e", 0, 0)


class World:
    """Performs intents; *fails* maps a verb to the state in which it ends instead of success."""

    def __init__(self, pipeline: Pipeline, *, baseline: Release | None = OLD) -> None:
        self.pipeline = pipeline
        self.baseline = baseline
        self.records: tuple[Record, ...] = ()
        self.request = ""
        self.now = 0.0
        self.fails: dict[str, State] = {}
        self.verdict = "PASS"
        self.quiet = False
        self.turns = 0

    @property
    def facts(self) -> Facts:
        return Facts("shop", "production", self.records, self.request)  # type: ignore[arg-type]

    def perform(self, intent: Intent) -> None:
        state = self.fails.get(intent.verb, State.SUCCESS)
        if intent.verb == "look" and self.verdict == "FAIL":
            state = State.FAILURE
        words, detail = f"{intent.verb} ended", self.detail(intent)
        self.records = (*self.records, Record(intent, state, self.now, self.now + 0.1, words, (), detail))
        self.now += 0.1

    def detail(self, intent: Intent) -> Detail | None:
        given = ARTIFACT if self.pipeline.name != "standard" else None
        return {
            "begin": Begun("begun", DATA, self.baseline, given),
            "build": Made("made", ARTIFACT),
            "gate": Gated("gated", ("some-lead",) if "gate" in self.fails else ()),
            "measure": Measured("measured", COUNTERS, COUNTERS),
            "look": Looked("looked", self.verdict, self.quiet),  # type: ignore[arg-type]
        }.get(intent.verb)

    def run(self, *, request_at: int = -1, request: str = "") -> Finish:
        for self.turns in range(200):
            if self.turns == request_at:
                self.request = request
            following = decide(self.pipeline, self.facts, self.now)
            if isinstance(following, Finish):
                return following
            if isinstance(following, Wait):
                assert following.until > self.now
                self.now = following.until
            else:
                assert isinstance(following, Perform)
                assert not self.facts.done(following.intent), "the same intent twice"
                self.perform(following.intent)
        raise AssertionError("the delivery does not end")

    @property
    def verbs(self) -> list[str]:
        return [record.intent.verb for record in self.records]

    @property
    def shares(self) -> list[int]:
        return [record.intent.share for record in self.records if record.intent.verb == "shift"]


def test_a_good_change_goes_all_the_way() -> None:
    world = World(standard(CANARY))
    assert world.run() == Finish(State.SUCCESS, "promoted")
    assert world.shares == [100, 500]
    assert world.verbs[-1] == "promote"
    assert world.verbs.count("gate") == 3


def test_a_first_release_has_no_canary() -> None:
    world = World(standard(CANARY), baseline=None)
    assert world.run().outcome == "promoted"
    assert not {"measure", "shift", "look"} & set(world.verbs)


def test_a_configuration_change_builds_nothing() -> None:
    world = World(configuration(CANARY))
    assert world.run().outcome == "promoted"
    assert not {"build", "suite", "scan"} & set(world.verbs)


def test_a_pair_that_is_live_already_is_left_alone() -> None:
    live = Release("shop", "production", ARTIFACT.digest, DATA.digest)
    world = World(standard(CANARY), baseline=live)
    assert world.run() == Finish(State.SKIP, "unchanged", "this pair is what is live already")
    assert "deploy" not in world.verbs


def test_a_rollback_asks_no_policy() -> None:
    world = World(rollback(CANARY))
    assert world.run() == Finish(State.SUCCESS, "restored")
    assert world.verbs == ["begin", "deploy", "restore"]


def test_a_regression_is_undone_at_once() -> None:
    world = World(standard(CANARY))
    world.verdict = "FAIL"
    assert world.run().outcome == "rolled-back"
    assert world.shares == [100]
    assert world.verbs[-2:] == ["look", "rollback"]


def test_doubt_waits_for_its_patience_and_then_asks_the_gate() -> None:
    world = World(standard(CANARY))
    world.verdict = "UNKNOWN"
    world.run()
    looks = [record for record in world.records if record.intent.verb == "look"]
    assert looks[-1].ended - looks[0].ended >= CANARY.patience
    assert len(looks) <= CANARY.looks
    assert world.verbs[-2:] == ["gate", "promote"]


def test_a_quiet_service_is_not_waited_for() -> None:
    world, patient = World(standard(CANARY)), World(standard(CANARY))
    world.verdict = patient.verdict = "UNKNOWN"
    world.quiet = True
    world.run()
    patient.run()
    assert world.shares == [100, 500], "every step is still taken"
    assert world.now <= patient.now - CANARY.patience
    assert world.verbs[-2:] == ["gate", "promote"]


def test_a_refusal_before_deploying_touches_nothing() -> None:
    world = World(standard(CANARY))
    world.fails = {"gate": State.FAILURE}
    end = world.run()
    assert (end.state, end.outcome) == (State.FAILURE, "refused")
    assert not {"deploy", "rollback"} & set(world.verbs)


VERBS = ("begin", "build", "suite", "scan", "gate", "deploy", "acceptance", "measure", "shift", "promote")
BAD = (State.FAILURE, State.ERROR, State.TIMEOUT)


@pytest.mark.parametrize(("verb", "state"), list(itertools.product(VERBS, BAD)))
def test_whatever_goes_wrong_ends_undone(verb: str, state: State) -> None:
    world = World(standard(CANARY))
    world.fails = {verb: state}
    end = world.run()
    assert end.state is state
    touched = "deploy" in world.verbs
    assert ("rollback" in world.verbs) == touched
    assert end.outcome == ("rolled-back" if touched else "refused" if verb == "gate" else "failed")


@pytest.mark.parametrize("turn", range(40))
@pytest.mark.parametrize("verdict", ["PASS", "FAIL", "UNKNOWN"])
def test_an_abort_at_any_moment_ends_and_undoes(turn: int, verdict: str) -> None:
    world = World(standard(CANARY))
    world.verdict = verdict
    end = world.run(request_at=turn, request="abort")
    if "promote" in world.verbs:
        assert end.outcome == "promoted", "an abort after the promotion comes too late"
    elif "deploy" in world.verbs:
        assert world.verbs[-1] == "rollback"
        assert end.outcome in ("aborted", "rolled-back")
    else:
        assert end.outcome == "aborted"


@pytest.mark.parametrize("turn", range(40))
def test_promote_by_hand_never_goes_around_a_gate(turn: int) -> None:
    world = World(standard(CANARY))
    world.verdict = "UNKNOWN"
    world.run(request_at=turn, request="promote")
    promoted = world.verbs.index("promote")
    assert world.verbs[promoted - 1] == "gate"
    assert world.verbs.count("look") >= 1


def test_a_failed_undo_is_told_as_it_is() -> None:
    world = World(standard(CANARY))
    world.fails = {"acceptance": State.FAILURE, "rollback": State.ERROR}
    end = world.run()
    assert (end.state, end.outcome) == (State.ERROR, "failed")
    assert "could not be undone" in end.reason


def test_a_gate_that_passed_may_have_been_followed_by_a_placement() -> None:
    """The worker died between placing and recording: an abort then must undo."""
    world = World(standard(CANARY))
    while "deploy/gate/0" not in [record.intent.key for record in world.records]:
        following = decide(world.pipeline, world.facts, world.now)
        assert isinstance(following, Perform)
        world.perform(following.intent)
    world.request = "abort"
    assert decide(world.pipeline, world.facts, world.now) == Perform(UNDO)


def test_every_state_is_good_bad_or_on_its_way() -> None:
    on_its_way = {State.PENDING, State.EXECUTING, State.FINALIZING}
    assert set(State) == set(GOOD) | set(BAD) | on_its_way | {State.CANCELLATION}


# --- gates that wait, and answers that lapse ----------------------------------------------------------------

DEPLOY = Intent("deploy", "gate", guards="deploy")


def at_the_gate(*gates: tuple[State, Gated], lapsed: bool = False, begun: bool = False) -> Facts:
    """A delivery that was asked about at its first gate as often as there are *gates*."""
    world = World(standard(CANARY))
    for verb in ("begin", "build", "suite", "scan"):
        stage = "tests" if verb == "suite" else verb
        world.perform(Intent(stage, verb))
    for number, (state, detail) in enumerate(gates):
        intent = Intent("deploy", "gate", number, guards="deploy")
        world.records = (*world.records, Record(intent, state, 1.0, 1.1, "", (), detail))
    if begun:
        world.perform(Intent("deploy", "deploy"))
    return Facts("shop", "production", world.records, "", lapsed)


PASSED = (State.SUCCESS, Gated("gated", (), 10, expires=100.0))
WAITS = (State.PENDING, Gated("gated", ("lead",), 10, expires=100.0, waits_until=50.0))
AGAIN = Perform(Intent("deploy", "gate", 1, guards="deploy"))


@pytest.mark.parametrize(
    ("facts", "now", "following"),
    [
        (at_the_gate(), 2.0, Perform(DEPLOY)),
        # It passed: what it guards begins, unless the answer might be another one by now.
        (at_the_gate(PASSED), 2.0, Perform(Intent("deploy", "deploy"))),
        (at_the_gate(PASSED, lapsed=True), 2.0, AGAIN),
        (at_the_gate(PASSED), 99.9, Perform(Intent("deploy", "deploy"))),
        (at_the_gate(PASSED), 100.0, AGAIN),
        # What has begun goes on, whatever changes.
        (at_the_gate(PASSED, begun=True, lapsed=True), 1000.0, Perform(Intent("acceptance", "acceptance"))),
        # It waits: until there is news, until it is time to look again, and never past its deadline.
        (at_the_gate(WAITS), 2.0, Wait(17.0)),
        (at_the_gate(WAITS), 45.0, Wait(50.0)),
        (at_the_gate(WAITS, lapsed=True), 2.0, AGAIN),
        (at_the_gate(WAITS), 50.0, AGAIN),
        (at_the_gate(WAITS, PASSED), 60.0, Perform(Intent("deploy", "deploy"))),
    ],
)
def test_what_follows_a_gate(facts: Facts, now: float, following: object) -> None:
    assert decide(standard(CANARY), facts, now) == following


def test_a_wait_that_ends_in_a_refusal_touches_nothing() -> None:
    refused = (State.ERROR, Gated("gated", ("lead",), 12))
    end = decide(standard(CANARY), at_the_gate(WAITS, refused), 51.0)
    assert (isinstance(end, Finish), end.outcome) == (True, "refused")  # type: ignore[union-attr]


def test_an_abort_ends_a_wait() -> None:
    facts = at_the_gate(WAITS)
    end = decide(standard(CANARY), Facts("shop", "production", facts.records, "abort"), 2.0)
    assert end == Finish(State.CANCELLATION, "aborted", "aborted by request")


def test_an_abort_after_a_second_asking_is_undone() -> None:
    """The placement that followed the gate may never have been recorded."""
    facts = at_the_gate(WAITS, PASSED)
    assert decide(standard(CANARY), Facts("shop", "production", facts.records, "abort"), 2.0) == Perform(UNDO)
