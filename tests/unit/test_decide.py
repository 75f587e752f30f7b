"""`decide` over every state it can meet: a model of the world performs what it says, in every way it can
go, and the run must end, undone if it touched anything."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.decide import UNDO, Expire, Finish, Perform, Wait, decide
from penstock.core.pipeline import (
    GOOD,
    Attempt,
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
    Stage,
    State,
    configuration,
    rollback,
    standard,
)
from penstock.core.release import Artifact, EnvironmentData, Release
from penstock.core.traffic import Counters
from penstock.errors import Invalid

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
                assert not any(self.facts.done(intent) for intent in following.intents), (
                    "the same intent twice"
                )
                # Whichever of those that run side by side ends first.
                self.perform(following.intents[self.turns % len(following.intents)])
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
        world.perform(following.intents[0])
    world.request = "abort"
    assert decide(world.pipeline, world.facts, world.now) == Perform((UNDO,))


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
    return Facts("shop", "production", world.records, lapsed=frozenset(["deploy"] if lapsed else []))


PASSED = (State.SUCCESS, Gated("gated", (), 10, expires=100.0))
WAITS = (State.PENDING, Gated("gated", ("lead",), 10, expires=100.0, waits_until=50.0))
AGAIN = Intent("deploy", "gate", 1, guards="deploy")


@pytest.mark.parametrize(
    ("facts", "now", "following"),
    [
        (at_the_gate(), 2.0, DEPLOY),
        # It passed: what it guards begins, unless the answer might be another one by now.
        (at_the_gate(PASSED), 2.0, Intent("deploy", "deploy")),
        (at_the_gate(PASSED, lapsed=True), 2.0, AGAIN),
        (at_the_gate(PASSED), 99.9, Intent("deploy", "deploy")),
        (at_the_gate(PASSED), 100.0, AGAIN),
        # What has begun goes on, whatever changes.
        (at_the_gate(PASSED, begun=True, lapsed=True), 1000.0, Intent("acceptance", "acceptance")),
        # It waits: until there is news, until it is time to look again, and never past its deadline.
        (at_the_gate(WAITS), 2.0, Wait(17.0)),
        (at_the_gate(WAITS), 45.0, Wait(50.0)),
        (at_the_gate(WAITS, lapsed=True), 2.0, AGAIN),
        (at_the_gate(WAITS), 50.0, AGAIN),
        (at_the_gate(WAITS, PASSED), 60.0, Intent("deploy", "deploy")),
    ],
)
def test_what_follows_a_gate(facts: Facts, now: float, following: object) -> None:
    found = decide(standard(CANARY), facts, now)
    assert (found.intents[0] if isinstance(found, Perform) else found) == following


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
    assert decide(standard(CANARY), Facts("shop", "production", facts.records, "abort"), 2.0) == Perform(
        (UNDO,)
    )


# --- the graph ----------------------------------------------------------------------------------------------

LINT = Stage("lint", "suite", after=("build",), part="lint")
UNIT = Stage("unit", "suite", after=("build",), part="unit", seconds=10.0)
SLOW = Stage("slow", "suite", after=("lint", "unit"), part="slow", target="arm")


def graph(*checks: Stage) -> Pipeline:
    return standard(CANARY, checks)


def built(*more: Record) -> Facts:
    world = World(graph(LINT, UNIT, SLOW))
    for verb in ("begin", "build"):
        world.perform(Intent(verb, verb))
    return replace(world.facts, records=(*world.records, *more))


def done(stage: Stage, state: State = State.SUCCESS, at: float = 1.0) -> Record:
    return Record(
        Intent(stage.name, stage.verb, part=stage.part, target=stage.target), state, at, at, "words"
    )


def stages(following: object) -> list[str]:
    return [intent.stage for intent in following.intents] if isinstance(following, Perform) else []


def test_what_depends_on_nothing_runs_side_by_side() -> None:
    pipeline = graph(LINT, UNIT, SLOW)
    assert stages(decide(pipeline, built(), 1.0)) == ["lint", "unit", "scan"]
    assert stages(decide(pipeline, built(done(LINT)), 1.0)) == ["unit", "scan"]
    following = decide(pipeline, built(done(LINT), done(UNIT)), 1.0)
    assert stages(following) == ["slow", "scan"]
    assert isinstance(following, Perform)
    assert (following.intents[0].part, following.intents[0].target) == ("slow", "arm")


def test_what_fails_ends_the_others_and_an_optional_stage_does_not() -> None:
    facts = built(done(LINT, State.FAILURE))
    assert decide(graph(LINT, UNIT, SLOW), facts, 1.0) == Finish(State.FAILURE, "failed", "words")
    optional = graph(replace(LINT, optional=True), UNIT, SLOW)
    assert stages(decide(optional, facts, 1.0)) == ["unit", "scan"]


def test_an_optional_stage_is_passed_over_on_the_way() -> None:
    for state in BAD:
        world = World(graph(replace(LINT, optional=True, verb="look-at-style"), UNIT, SLOW))
        world.fails = {"look-at-style": state}
        assert world.run() == Finish(State.SUCCESS, "promoted")


def test_a_deadline_counts_from_when_the_stage_could_begin() -> None:
    pipeline, facts = graph(LINT, UNIT, SLOW), built()
    since = facts.records[-1].ended
    following = decide(pipeline, facts, since + 9.9)
    assert (stages(following), following.until) == (["lint", "unit", "scan"], since + 10.0)  # type: ignore[union-attr]
    late = decide(pipeline, facts, since + 10.0)
    assert late == Expire(Intent("unit", "suite", part="unit"), "not done within 10 s")


def test_a_stage_that_is_over_its_time_ends_the_delivery_or_is_passed_over() -> None:
    timed_out = built(done(UNIT, State.TIMEOUT))
    assert decide(graph(LINT, UNIT, SLOW), timed_out, 1.0).state is State.TIMEOUT  # type: ignore[union-attr]
    optional = graph(LINT, replace(UNIT, optional=True), SLOW)
    assert stages(decide(optional, timed_out, 1.0)) == ["lint", "scan"]


def test_what_could_not_be_reached_is_tried_again_later_and_the_rest_goes_on() -> None:
    pipeline = graph(LINT, UNIT, SLOW)
    facts = replace(built(), attempts=(Attempt("unit/suite/0", 1, 5.0),))
    following = decide(pipeline, facts, 4.0)
    assert (stages(following), following.until) == (["lint", "scan"], 5.0)  # type: ignore[union-attr]
    assert stages(decide(pipeline, facts, 5.0)) == ["lint", "unit", "scan"]
    alone = replace(facts, records=(*facts.records, done(LINT), done(Stage("scan", "scan"))))
    assert decide(pipeline, alone, 4.0) == Wait(5.0)


def test_an_undo_that_could_not_be_done_is_tried_again_later() -> None:
    facts = at_the_gate(PASSED, begun=True)
    facts = replace(facts, request="abort", attempts=(Attempt(UNDO.key, 3, 9.0),))
    assert decide(standard(CANARY), facts, 8.0) == Wait(9.0)
    assert decide(standard(CANARY), facts, 9.0) == Perform((UNDO,))


def test_a_stage_at_work_is_not_asked_about_again() -> None:
    """Its sign-offs held when it began; that one has lapsed or expired since does not end it."""
    facts = replace(at_the_gate(PASSED, lapsed=True), running=frozenset(["deploy"]))
    assert stages(decide(standard(CANARY), facts, 1000.0)) == ["deploy"]


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        ((Stage("a", "suite", after=("b",)), Stage("b", "suite")), "comes after"),
        ((Stage("a", "suite", after=("nothing",)),), "comes after"),
        ((Stage("a", "suite"), Stage("a", "suite")), "twice"),
    ],
)
def test_a_plan_that_could_not_end_cannot_be_made(listed: tuple[Stage, ...], words: str) -> None:
    with pytest.raises(Invalid, match=words):
        Pipeline("p", listed, CANARY)


@given(data=st.data())
def test_every_run_of_every_graph_ends(data: st.DataObject) -> None:
    """Any graph, any outcome of any stage, any order of ends, any abort: it ends, and undone if it must."""
    size = data.draw(st.integers(0, 6))
    checks: list[Stage] = []
    for number in range(size):
        earlier = ["build", *(check.name for check in checks)]
        after = tuple(data.draw(st.sets(st.sampled_from(earlier), min_size=1)))
        checks.append(Stage(f"c{number}", f"verb{number}", after=after, optional=data.draw(st.booleans())))
    world = World(graph(*checks))
    verbs = [*(check.verb for check in checks), *VERBS]
    world.fails = data.draw(st.dictionaries(st.sampled_from(verbs), st.sampled_from(BAD), max_size=3))
    end = world.run(request_at=data.draw(st.integers(-1, 30)), request="abort")
    went_wrong = end.outcome not in ("promoted",)
    assert ("rollback" in world.verbs) == (went_wrong and "deploy" in world.verbs)
    minded = [check for check in checks if check.verb in world.fails and not check.optional]
    if end.outcome == "promoted":
        assert minded == []
