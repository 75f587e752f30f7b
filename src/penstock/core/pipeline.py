"""Pipelines, what has been done of one, and the pure function that says what comes next.

Called by the engine's worker, which performs what `decide` says and records it. Must not perform,
read a clock or look at the world: everything it knows is in `Facts` and *now*.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from penstock.core.release import Artifact, EnvironmentData, Release
from penstock.core.traffic import WHOLE, Counters


class State(StrEnum):
    """OpenTelemetry's words for a run and its result."""

    PENDING = "pending"
    EXECUTING = "executing"
    FINALIZING = "finalizing"
    SUCCESS = "success"
    FAILURE = "failure"
    ERROR = "error"
    TIMEOUT = "timeout"
    CANCELLATION = "cancellation"
    SKIP = "skip"


#: Results that let a delivery go on.
GOOD = (State.SUCCESS, State.SKIP)
#: States in which a delivery has ended.
ENDED = (State.SUCCESS, State.FAILURE, State.ERROR, State.TIMEOUT, State.CANCELLATION, State.SKIP)


@dataclass(frozen=True)
class Stage:
    """One step of the plan. *verb* names the action or check; *guards* the action its policies guard."""

    name: str
    verb: str
    guards: str = ""


@dataclass(frozen=True)
class Canary:
    """Shares of user traffic in thousandths, rising, and the times in seconds between decisions."""

    steps: tuple[int, ...]
    seconds_per_step: float
    look_every: float
    patience: float

    @property
    def looks(self) -> int:
        """How many looks this plan can take at most: what the judge divides its error among."""
        whole = len(self.steps) * self.seconds_per_step + self.patience
        return max(1, round(whole / self.look_every) + len(self.steps))


#: For pipelines that move everybody at once.
NO_CANARY = Canary((), 1.0, 1.0, 0.0)


@dataclass(frozen=True)
class Pipeline:
    name: str
    stages: tuple[Stage, ...]
    canary: Canary


@dataclass(frozen=True)
class Intent:
    """Something to do: *stage*, *verb*, and for the canary which *number* and *share* (thousandths)."""

    stage: str
    verb: str
    number: int = 0
    share: int = 0
    guards: str = ""

    @property
    def key(self) -> str:
        """Unique within a delivery; an intent with the same key is the same intent."""
        return f"{self.stage}/{self.verb}/{self.number}"


# --- what a performed intent leaves for the ones after it -------------------------------------------


@dataclass(frozen=True)
class Begun:
    """Fixed when a delivery starts: what is live now, and the half of the pair that is given."""

    kind: Literal["begun"]
    data: EnvironmentData
    baseline: Release | None = None
    artifact: Artifact | None = None


@dataclass(frozen=True)
class Made:
    kind: Literal["made"]
    artifact: Artifact


@dataclass(frozen=True)
class Gated:
    """*refused_by* names the policies that did not pass."""

    kind: Literal["gated"]
    refused_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measured:
    """Readings of both releases when the canary began."""

    kind: Literal["measured"]
    new: Counters
    stable: Counters


@dataclass(frozen=True)
class Looked:
    kind: Literal["looked"]
    verdict: Literal["PASS", "FAIL", "UNKNOWN"]
    quiet: bool


Detail = Begun | Made | Gated | Measured | Looked


@dataclass(frozen=True)
class Record:
    """An intent that was performed. Times are seconds since 1970; *entries* are ledger indices."""

    intent: Intent
    state: State
    began: float
    ended: float
    reason: str = ""
    entries: tuple[int, ...] = ()
    detail: Detail | None = None
    version: int = 1


@dataclass(frozen=True)
class Facts:
    """All that is known of a delivery. *request* is what a person asked of it meanwhile."""

    service: str
    environment: str
    records: tuple[Record, ...]
    request: Literal["", "abort", "promote"] = ""

    def of(self, verb: str) -> tuple[Record, ...]:
        return tuple(record for record in self.records if record.intent.verb == verb)

    def done(self, intent: Intent) -> bool:
        return any(record.intent.key == intent.key for record in self.records)

    @property
    def begun(self) -> Begun | None:
        details = (record.detail for record in self.of("begin"))
        return next((detail for detail in details if isinstance(detail, Begun)), None)

    @property
    def artifact(self) -> Artifact | None:
        made = (r.detail.artifact for r in self.records if isinstance(r.detail, Made))
        return next(made, self.begun.artifact if self.begun else None)

    @property
    def release(self) -> Release | None:
        """The pair that this delivery is about, once both halves are known."""
        if self.begun is None or self.artifact is None:
            return None
        return Release(self.service, self.environment, self.artifact.digest, self.begun.data.digest)

    @property
    def measured(self) -> Measured | None:
        details = (record.detail for record in self.of("measure"))
        return next((detail for detail in details if isinstance(detail, Measured)), None)

    @property
    def failed(self) -> Record | None:
        """The first record that keeps the delivery from going on, the undoing itself left aside."""
        bad = (r for r in self.records if r.state not in GOOD and r.intent.verb != "rollback")
        return next(bad, None)


# --- what comes next ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Perform:
    intent: Intent


@dataclass(frozen=True)
class Wait:
    """Nothing to do before *until* (seconds since 1970), unless somebody asks for something."""

    until: float


@dataclass(frozen=True)
class Finish:
    """The delivery ends. *outcome* is the word for people."""

    state: State
    outcome: Literal["promoted", "refused", "rolled-back", "restored", "unchanged", "failed", "aborted"]
    reason: str = ""


Next = Perform | Wait | Finish

UNDO = Intent("rollback", "rollback")


def decide(pipeline: Pipeline, facts: Facts, now: float) -> Next:
    """The one next thing for a delivery. Total: every reachable `Facts` leads to an end.

    1. A delivery that went wrong, or that somebody aborts, is undone if it touched the world.
    2. Otherwise the first stage that is not complete goes on, its gate first.
    3. When no stage is left, it has succeeded.
    """
    trouble = facts.failed
    if trouble or (facts.request == "abort" and not _promoted(facts)):
        return _give_up(facts, trouble)
    if _unchanged(facts):
        return Finish(State.SKIP, "unchanged", "this pair is what is live already")
    for stage in pipeline.stages:
        following = _continue(pipeline, stage, facts, now)
        if following is not None:
            return following
    word: Literal["restored", "promoted"] = "restored" if pipeline.name == "rollback" else "promoted"
    return Finish(State.SUCCESS, word)


def _give_up(facts: Facts, trouble: Record | None) -> Next:
    # A gate that passed may have been followed by a placement that was never recorded.
    touched = any(r.intent.verb == "deploy" or (r.intent.key == "deploy/gate/0" and r.state in GOOD)
                  for r in facts.records)  # fmt: skip
    undone = facts.of("rollback")
    if touched and not undone:
        return Perform(UNDO)
    if undone and undone[0].state not in GOOD:
        return Finish(State.ERROR, "failed", f"could not be undone: {undone[0].reason}")
    if trouble is None:
        return Finish(State.CANCELLATION, "aborted", "aborted by request")
    if isinstance(trouble.detail, Gated):
        return Finish(trouble.state, "refused", trouble.reason)
    return Finish(trouble.state, "rolled-back" if undone else "failed", trouble.reason)


def _unchanged(facts: Facts) -> bool:
    release = facts.release
    is_live = release is not None and facts.begun is not None and release == facts.begun.baseline
    return is_live and not facts.of("deploy")


def _promoted(facts: Facts) -> bool:
    return any(record.state in GOOD for record in (*facts.of("promote"), *facts.of("restore")))


def _continue(pipeline: Pipeline, stage: Stage, facts: Facts, now: float) -> Next | None:
    """The next thing of this stage, or None if it is complete (or does not apply)."""
    if stage.verb == "canary" and (facts.begun is None or facts.begun.baseline is None):
        return None  # a first release has nobody to be compared with
    gate = Intent(stage.name, "gate", guards=stage.guards)
    if stage.guards and not facts.done(gate):
        return Perform(gate)
    if stage.verb == "canary":
        return _canary(pipeline.canary, stage, facts, now)
    intent = Intent(stage.name, stage.verb)
    return None if facts.done(intent) else Perform(intent)


def _canary(plan: Canary, stage: Stage, facts: Facts, now: float) -> Next | None:
    measure = Intent(stage.name, "measure")
    if not facts.done(measure):
        return Perform(measure)
    shifts, looks = facts.of("shift"), facts.of("look")
    if facts.request == "promote" and shifts and looks:
        return None  # a person says enough; the gate of the next stage still decides
    if not shifts:
        return Perform(Intent(stage.name, "shift", 0, plan.steps[0]))
    step_began = shifts[-1].ended
    since = [look for look in looks if look.began >= step_began]
    last = since[-1].ended if since else step_began
    if now < last + plan.look_every:
        return Wait(last + plan.look_every)
    if not since or last < step_began + plan.seconds_per_step:
        return Perform(Intent(stage.name, "look", len(looks)))
    if len(shifts) < len(plan.steps):
        return Perform(Intent(stage.name, "shift", len(shifts), plan.steps[len(shifts)]))
    seen = since[-1].detail if isinstance(since[-1].detail, Looked) else Looked("looked", "UNKNOWN", False)
    patient = last < step_began + plan.seconds_per_step + plan.patience
    # Waiting helps where the requests are few, not where there are none to speak of.
    if seen.verdict == "PASS" or seen.quiet or not patient:
        return None
    return Perform(Intent(stage.name, "look", len(looks)))


def standard(canary: Canary) -> Pipeline:
    """The pipeline of a code change: what happens if a repository says nothing."""
    return Pipeline(
        "standard",
        (
            Stage("begin", "begin"),
            Stage("build", "build"),
            Stage("tests", "suite"),
            Stage("scan", "scan"),
            Stage("deploy", "deploy", guards="deploy"),
            Stage("acceptance", "acceptance"),
            Stage("canary", "canary", guards="shift"),
            Stage("promote", "promote", guards="promote"),
        ),
        canary,
    )


def configuration(canary: Canary) -> Pipeline:
    """Environment data alone: the artifact that is live, and its evidence, stand as they are."""
    kept = ("begin", "deploy", "acceptance", "canary", "promote")
    whole = standard(canary)
    return Pipeline("configuration", tuple(s for s in whole.stages if s.name in kept), canary)


def rollback(canary: Canary) -> Pipeline:
    """Back to a pair that was promoted before: its promotion is on record, so no gate asks again."""
    stages = (Stage("begin", "begin"), Stage("deploy", "deploy"), Stage("restore", "restore"))
    return Pipeline("rollback", stages, canary)


def pipeline_for(kind: str, canary: Canary) -> Pipeline:
    """The default pipeline for a `Change.kind`."""
    makers = {"code": standard, "configuration": configuration, "rollback": rollback}
    return makers[kind](canary)


def thousandths(per_cent: float) -> int:
    """A share as people write it (per cent) in the unit that crosses ports."""
    return round(per_cent * WHOLE / 100)
