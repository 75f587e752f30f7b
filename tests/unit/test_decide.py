"""`decide` over every state it can meet: a model of the world performs what it says, in every way it can
go, and the run must end, undone if it touched anything."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from fakes.world import (
    AGAIN,
    ARTIFACT,
    BAD,
    CANARY,
    DATA,
    DEPLOY,
    PASSED,
    VERBS,
    WAITS,
    World,
    at_the_gate,
)
from penstock.core.decide import UNDO, Finish, Perform, Wait, decide
from penstock.core.pipeline import GOOD, Facts, Gated, Intent, State
from penstock.core.release import Release
from penstock.core.stages import configuration, rollback, standard


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


@pytest.mark.parametrize(("verb", "state"), list(itertools.product(VERBS, BAD)))
def test_whatever_goes_wrong_ends_undone(verb: str, state: State) -> None:
    world = World(standard(CANARY))
    world.fails = {verb: state}
    end = world.run()
    assert end.state is state
    touched = "deploy" in world.verbs
    assert ("rollback" in world.verbs) == touched
    assert end.outcome == ("rolled-back" if touched else "refused" if verb == "gate" else "failed")


FRESH = replace(CANARY, baseline="fresh")


def test_a_fresh_baseline_is_put_up_once_the_canary_is_signed_off_and_before_anything_is_measured() -> None:
    world = World(standard(FRESH))
    assert world.run() == Finish(State.SUCCESS, "promoted")
    began = world.verbs.index("acceptance")
    assert world.verbs[began : began + 5] == ["acceptance", "gate", "baseline", "measure", "shift"]
    assert world.verbs.count("baseline") == 1


def test_a_first_release_has_no_fresh_baseline_either() -> None:
    world = World(standard(FRESH), baseline=None)
    assert world.run().outcome == "promoted"
    assert "baseline" not in world.verbs


@pytest.mark.parametrize("state", BAD)
def test_a_fresh_baseline_that_does_not_come_undoes_the_delivery(state: State) -> None:
    world = World(standard(FRESH))
    world.fails = {"baseline": state}
    assert world.run() == Finish(state, "rolled-back", "baseline ended")
    assert world.verbs[-2:] == ["baseline", "rollback"]


@pytest.mark.parametrize("turn", range(12, 30))
def test_an_abort_while_there_is_a_fresh_baseline_undoes_it(turn: int) -> None:
    world = World(standard(FRESH))
    end = world.run(request_at=turn, request="abort")
    assert "baseline" not in world.verbs or world.verbs[-1] in ("rollback", "promote")
    assert end.outcome in ("aborted", "rolled-back", "promoted")


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


@pytest.mark.parametrize("turn", range(8))
def test_an_abort_of_a_rollback_at_any_moment_ends_and_undoes(turn: int) -> None:
    world = World(rollback(CANARY))
    end = world.run(request_at=turn, request="abort")
    if "restore" in world.verbs:
        assert end.outcome == "restored", "an abort after it came back comes too late"
    else:
        assert end.outcome == "aborted"
        # What it placed may not be recorded yet, and the proxy may not know it: nobody else would remove it.
        assert ("rollback" in world.verbs) == ("begin" in world.verbs)


@pytest.mark.parametrize("turn", range(40))
@pytest.mark.parametrize("verb", VERBS)
def test_an_abort_of_what_is_being_undone_undoes_it_no_second_time(verb: str, turn: int) -> None:
    world = World(standard(CANARY))
    world.fails = {verb: State.FAILURE}
    end = world.run(request_at=turn, request="abort")
    assert end.outcome in ("aborted", "refused", "rolled-back", "failed")
    assert world.verbs.count("rollback") <= 1
    assert "rollback" in world.verbs or "deploy" not in world.verbs


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

#: Time alone may bring another answer.
DUE = (WAITS[0], replace(WAITS[1], due=9.0))


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
        (at_the_gate(DUE), 2.0, Wait(9.0)),
        (at_the_gate(DUE), 9.0, AGAIN),
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
