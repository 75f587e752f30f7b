"""The pure function that says what comes next in a delivery.

Called by the engine, which performs what `decide` says and records it. Must not perform, read a clock or
look at the world: everything it knows is in `Facts` and *now*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from penstock.core.changeset import Fate
from penstock.core.experiment import Weighed
from penstock.core.pipeline import (
    GOOD,
    Canary,
    Facts,
    Gated,
    Intent,
    Looked,
    Pipeline,
    Record,
    Stage,
    State,
)

#: Seconds after which a waiting gate, or a change set, is looked at even if nobody was told of anything new.
LOOK_AGAIN = 15.0
#: Seconds for which undoing waits until those that call this service are undone.
CALLERS_FIRST = 30.0
#: An experiment is looked at again after this part of the time that it has taken: what is broken shows early.
PART = 0.05
#: And at least so often, evenly.
LOOKS = 250


@dataclass(frozen=True)
class Perform:
    """Do these, beside one another; what runs and is not among them is not wanted any more.

    Decide again when one of them has ended, and at *until* (seconds since 1970) at the latest.
    """

    intents: tuple[Intent, ...]
    until: float = math.inf


@dataclass(frozen=True)
class Expire:
    """The deadline of the intent's stage is over: record that, whatever became of it."""

    intent: Intent
    reason: str


@dataclass(frozen=True)
class Wait:
    """Nothing to do before *until* (seconds since 1970), unless somebody asks for something."""

    until: float


@dataclass(frozen=True)
class Finish:
    """The delivery ends. *outcome* is the word for people."""

    state: State
    outcome: Literal[
        "promoted",
        "refused",
        "rolled-back",
        "restored",
        "unchanged",
        "failed",
        "aborted",
        "superseded",
        "concluded",
    ]
    reason: str = ""


@dataclass(frozen=True)
class Settle:
    """Settle what becomes of the whole change set, unless that is settled already, and decide again."""

    fate: Fate
    reason: str = ""


Next = Perform | Expire | Wait | Finish | Settle

UNDO = Intent("rollback", "rollback")


def decide(pipeline: Pipeline, facts: Facts, now: float) -> Next:
    """What to do for a delivery. Total: every reachable `Facts` leads to an end.

    1. A delivery that went wrong, or that somebody aborts, is undone if it touched the world.
    2. Otherwise every stage goes on whose predecessors are complete, its gate first.
    3. One that waits, and has not touched the world, makes room for a newer change.
    4. When no stage is left, it has succeeded.
    5. What is true of one delivery of a change set is settled for all of them first.
    """
    trouble = facts.failed(pipeline)
    settled = _for_all(pipeline, facts, trouble)
    if settled is not None:
        return settled
    if trouble or _taken_back(facts):
        return _give_up(pipeline, facts, trouble, now)
    if facts.newer and facts.begun is None:
        return _superseded(facts)
    if _unchanged(facts):
        return Finish(State.SKIP, "unchanged", "this pair is what is live already")
    ahead = _frontier(pipeline, facts, now)
    expired = [following for following in ahead if isinstance(following, Expire)]
    if expired:
        return expired[0]
    intents = tuple(intent for step in ahead if isinstance(step, Perform) for intent in step.intents)
    until = min((step.until for step in ahead if isinstance(step, (Perform, Wait))), default=math.inf)
    if intents:
        return Perform(intents, until)
    if ahead:
        return _superseded(facts) if facts.newer and not _touched(pipeline, facts) else Wait(until)
    if pipeline.name == "experiment":
        return _concluded(facts, now)
    if facts.together is not None and not facts.together.fate:
        return Wait(now + LOOK_AGAIN)  # for the others; until then everybody may have to be undone
    late = "the abort came after the promotion: penstock rollback takes it back"
    word: Literal["restored", "promoted"] = "restored" if pipeline.name == "rollback" else "promoted"
    return Finish(State.SUCCESS, word, late if facts.request == "abort" else "")


def _for_all(pipeline: Pipeline, facts: Facts, trouble: Record | None) -> Settle | None:
    """What this delivery settles for its change set; None if it has none, or that is settled."""
    together = facts.together
    if together is None or together.fate:
        return None
    if trouble is not None:
        return Settle("undone", trouble.reason)
    if facts.request == "abort":
        return Settle("undone", "aborted by request")
    if facts.newer and not _touched(pipeline, facts):
        return Settle("undone", f"superseded by {facts.newer}")
    everybody = _promoted(facts) and all(peer.promoted for peer in together.peers)
    return Settle("kept") if everybody else None


def _taken_back(facts: Facts) -> bool:
    """Whether it is to be undone though nothing of it failed."""
    if facts.together is not None:
        return facts.together.fate == "undone"
    return facts.request == "abort" and not _promoted(facts)


def _frontier(pipeline: Pipeline, facts: Facts, now: float) -> list[Perform | Expire | Wait]:
    """The next thing of each stage that may go on; empty once all are complete."""
    complete: set[str] = set()
    ahead: list[Perform | Expire | Wait] = []
    for stage in pipeline.stages:
        if complete.issuperset(stage.after):
            following = _in_time(stage, facts, now, _continue(pipeline, stage, facts, now))
            if following is None:
                complete.add(stage.name)
            else:
                ahead.append(following)
    return ahead


def _in_time(
    stage: Stage, facts: Facts, now: float, following: Intent | Wait | None
) -> Perform | Expire | Wait | None:
    """The same, within the stage's deadline, and not before a failed attempt is to be repeated."""
    if not isinstance(following, Intent):
        return following
    following = replace(following, part=stage.part, target=stage.target)
    since = [
        record.ended
        for record in facts.records
        # What is tried again has records of long ago: nothing could begin before this delivery did.
        if record.intent.stage in stage.after
        or (record.intent.verb == "begin" and stage.after)
        or (record.intent.stage, record.intent.verb) == (stage.name, "gate")
    ]
    others = facts.together.ready(stage.verb) if facts.together is not None else None
    deadline = max(*since, others or 0.0) + stage.seconds if since else math.inf
    if now >= deadline and following.verb != "gate":
        return Expire(following, f"not done within {stage.seconds:g} s")
    again = facts.postponed(following)
    if now < again:
        return Wait(min(again, deadline))
    return Perform((following,), deadline)


def _give_up(pipeline: Pipeline, facts: Facts, trouble: Record | None, now: float) -> Next:
    undone = facts.of("rollback")
    if _touched(pipeline, facts) and not undone:
        again = max(facts.postponed(UNDO), _callers_first(facts, now))
        return Wait(again) if now < again else Perform((UNDO,))
    if undone and undone[0].state not in GOOD:
        return Finish(State.ERROR, "failed", f"could not be undone: {undone[0].reason}")
    if trouble is None and facts.newer and not undone:
        return _superseded(facts)
    if trouble is None:
        together = facts.together
        outcome: Literal["rolled-back", "aborted"] = "rolled-back" if together and undone else "aborted"
        return Finish(State.CANCELLATION, outcome, together.reason if together else "aborted by request")
    if isinstance(trouble.detail, Gated):
        return Finish(trouble.state, "refused", trouble.reason)
    return Finish(trouble.state, "rolled-back" if undone else "failed", trouble.reason)


def _concluded(facts: Facts, now: float) -> Next:
    """Whatever an experiment has shown, users go back to what is live: it is promoted by another delivery."""
    undone, looks = facts.of("rollback"), facts.weighed
    if not undone:
        again = facts.postponed(UNDO)
        return Wait(again) if now < again else Perform((UNDO,))
    if undone[0].state not in GOOD:
        return Finish(State.ERROR, "failed", f"could not be undone: {undone[0].reason}")
    shown = bool(looks) and "PASS" in looks[-1].verdicts
    return Finish(State.SUCCESS if shown else State.ERROR, "concluded", facts.of("weigh")[-1].reason)


def _callers_first(facts: Facts, now: float) -> float:
    """Until when undoing waits for services that call this one, and may need what it has; 0: not at all."""
    together = facts.together
    if together is None or not any(peer.later and peer.exposed for peer in together.peers):
        return 0.0
    return min(now + LOOK_AGAIN, together.decided + CALLERS_FIRST)


def _superseded(facts: Facts) -> Finish:
    return Finish(State.SKIP, "superseded", f"by {facts.newer}")


def _touched(pipeline: Pipeline, facts: Facts) -> bool:
    # A gate that passed may have been followed by a placement that was never recorded; so may the beginning
    # of a rollback, which asks none.
    placing = [stage for stage in pipeline.stages if stage.verb == "deploy"]
    names, ungated = {stage.name for stage in placing}, any(not stage.guards for stage in placing)
    return (ungated and facts.begun is not None) or any(
        r.intent.verb == "deploy"
        or (r.intent.stage in names and isinstance(r.detail, Gated) and r.state in GOOD)
        for r in facts.records
    )


def _unchanged(facts: Facts) -> bool:
    release = facts.release
    is_live = release is not None and facts.begun is not None and release == facts.begun.baseline
    return is_live and not facts.of("deploy")


def _promoted(facts: Facts) -> bool:
    return any(record.state in GOOD for record in (*facts.of("promote"), *facts.of("restore")))


def _continue(pipeline: Pipeline, stage: Stage, facts: Facts, now: float) -> Intent | Wait | None:
    """The next thing of this stage, or None if it is complete (or does not apply)."""
    if stage.optional and any(r.state not in (*GOOD, State.PENDING) for r in facts.of_stage(stage.name)):
        return None  # it failed, and nobody minds
    if stage.verb == "canary" and (facts.begun is None or facts.begun.baseline is None):
        return None  # a first release has nobody to be compared with
    if facts.together is not None and facts.together.ready(stage.verb) is None:
        return Wait(now + LOOK_AGAIN)
    if stage.guards and stage.name not in facts.running:
        asking = _gate(stage, facts, now)
        if asking is not None:
            return asking
    if stage.verb == "canary":
        return _canary(pipeline.canary, stage, facts, now)
    if stage.verb == "experiment":
        return _experiment(pipeline.canary, stage, facts, now)
    intent = Intent(stage.name, stage.verb)
    return None if facts.done(intent) else intent


def _gate(stage: Stage, facts: Facts, now: float) -> Intent | Wait | None:
    """Ask the policies, wait for evidence that is missing, or ask again; None once the stage may begin.

    Sign-offs guard the beginning of their stage: one that has begun goes on, whatever changes meanwhile.
    """
    own = facts.of_stage(stage.name)
    if not own:
        return Intent(stage.name, "gate", guards=stage.guards)
    last = own[-1]
    if not isinstance(last.detail, Gated):
        return None
    again = Intent(stage.name, "gate", len(own), guards=stage.guards)
    if stage.name in facts.lapsed:
        return again
    if last.state is not State.PENDING:
        return again if 0 < last.detail.expires <= now else None
    until = min(last.detail.waits_until, last.detail.due or math.inf)
    return again if now >= until else Wait(min(until, now + LOOK_AGAIN))


def _canary(plan: Canary, stage: Stage, facts: Facts, now: float) -> Intent | Wait | None:
    afresh, measure = Intent(stage.name, "baseline"), Intent(stage.name, "measure")
    if plan.baseline and not facts.done(afresh):
        return afresh
    if not facts.done(measure):
        return measure
    shifts, looks = facts.of("shift"), facts.of("look")
    if facts.request == "promote" and shifts and looks:
        return None  # a person says enough; the gate of the next stage still decides
    if not shifts:
        return Intent(stage.name, "shift", 0, plan.steps[0])
    step_began = shifts[-1].ended
    since = [look for look in looks if look.began >= step_began]
    last = since[-1].ended if since else step_began
    if now < last + plan.look_every:
        return Wait(last + plan.look_every)
    if not since or last < step_began + plan.seconds_per_step:
        return Intent(stage.name, "look", len(looks), shifts[-1].intent.share)
    if len(shifts) < len(plan.steps):
        return Intent(stage.name, "shift", len(shifts), plan.steps[len(shifts)])
    seen = since[-1].detail if isinstance(since[-1].detail, Looked) else Looked("looked", "UNKNOWN", False)
    patient = last < step_began + plan.seconds_per_step + plan.patience
    # Waiting helps where the requests are few, not where there are none to speak of.
    if seen.verdict == "PASS" or seen.quiet or not patient:
        return None
    return Intent(stage.name, "look", len(looks), shifts[-1].intent.share)


def _experiment(plan: Canary, stage: Stage, facts: Facts, now: float) -> Intent | Wait | None:
    """Deal users out, and look until a look says that it is the last. The plan has one step."""
    assign = Intent(stage.name, "assign")
    if not facts.done(assign):
        return assign
    looks = facts.of("weigh")
    if any(isinstance(look.detail, Weighed) and look.detail.ended for look in looks):
        return None
    began = facts.of("assign")[0].ended
    last, end = looks[-1].ended if looks else began, began + plan.seconds_per_step
    due = last + max(plan.look_every, min((last - began) * PART, plan.seconds_per_step / LOOKS))
    due = due if due < end else max(end, last + plan.look_every)
    return Wait(due) if now < due else Intent(stage.name, "weigh", len(looks))
