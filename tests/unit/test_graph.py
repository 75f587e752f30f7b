"""Plans as graphs: what may run side by side, deadlines, retries, optional stages; and every run ends."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.world import (
    BAD,
    CANARY,
    PASSED,
    VERBS,
    World,
    at_the_gate,
)
from penstock.core.decide import UNDO, Expire, Finish, Perform, Wait, decide
from penstock.core.pipeline import GOOD, Attempt, Facts, Intent, Pipeline, Record, Stage, State
from penstock.core.stages import standard
from penstock.errors import Invalid

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
    # A gate that passed may have been followed by a placement that was never recorded.
    touched = any(r.intent.stage == "deploy" and r.state in GOOD for r in world.records)
    failed_there = any(r.intent.verb == "deploy" for r in world.records)
    assert ("rollback" in world.verbs) == (end.outcome != "promoted" and (touched or failed_there))
    minded = [check for check in checks if check.verb in world.fails and not check.optional]
    if end.outcome == "promoted":
        assert minded == []
