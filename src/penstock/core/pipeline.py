"""Pipelines, and what has been done of one: plans, intents, records. What comes next says `decide`.

Called by the engine, which plans a delivery and records what it performed of it. Must not perform
anything, and knows no clock.
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
class Blocked:
    """A policy that did not pass, in words, and who holds the role that owns it."""

    policy: str
    says: str
    owner: str
    holders: tuple[str, ...]


@dataclass(frozen=True)
class Gated:
    """*refused_by* names the policies that did not pass.

    *overridden* names those that passed by somebody's override alone, and whose (``security-lead by sue``).
    *size* is the ledger's size that was looked at, *expires* when the first sign-off expires (0: never).
    While only evidence is missing, *waits_until* is the time (seconds since 1970) at which that ends; else 0.
    """

    kind: Literal["gated"]
    refused_by: tuple[str, ...] = ()
    size: int = 0
    expires: float = 0.0
    waits_until: float = 0.0
    blocked: tuple[Blocked, ...] = ()
    overridden: tuple[str, ...] = ()


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
    """All that is known of a delivery. *request* is what a person asked of it meanwhile; *lapsed* says that
    the answer of its last gate might be another one now."""

    service: str
    environment: str
    records: tuple[Record, ...]
    request: Literal["", "abort", "promote"] = ""
    lapsed: bool = False

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
        fine = (*GOOD, State.PENDING)
        bad = (r for r in self.records if r.state not in fine and r.intent.verb != "rollback")
        return next(bad, None)

    @property
    def open_gate(self) -> Record | None:
        """The last gate, if it waits or if what it guards has not begun; it may have to be asked again."""
        last = self.records[-1] if self.records else None
        asked = last is not None and isinstance(last.detail, Gated) and last.state in (*GOOD, State.PENDING)
        return last if asked else None


# --- the plans ------------------------------------------------------------------------------------------


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
