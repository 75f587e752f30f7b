"""Pipelines: the plan of a delivery, and the records of what has been done so far.

Called by the engine, which keeps the plan and records each step. The plans that ship are in `core.stages`;
`core.decide` says what comes next. Must
not perform anything or read a clock.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from penstock.core.canary import Baseline, Sample
from penstock.core.changeset import Together
from penstock.core.experiment import Dealt, Weighed
from penstock.core.release import Artifact, EnvironmentData, Release, pair
from penstock.core.traffic import Counters
from penstock.errors import Invalid


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
#: Seconds that a stage may take if its plan says nothing.
STAGE_SECONDS = 3600.0


@dataclass(frozen=True)
class Stage:
    """One node of the plan. *verb* names the action or check; *guards* the action its policies guard.

    It may begin when every stage in *after* is complete, beside whatever else may. *seconds* is its deadline,
    from then or from the answer of its gate. If it fails, the delivery is undone; an *optional* one is
    passed over. *part* is the check of ``penstock.yaml`` that it runs, *target* its value of a fan-out.
    """

    name: str
    verb: str
    guards: str = ""
    after: tuple[str, ...] = ()
    seconds: float = STAGE_SECONDS
    optional: bool = False
    part: str = ""
    target: str = ""


@dataclass(frozen=True)
class Canary:
    """*steps* are rising shares of user traffic in thousandths; times are in seconds. Without a *baseline*
    the new release is compared with the stable one as it runs."""

    steps: tuple[int, ...]
    seconds_per_step: float
    look_every: float
    patience: float
    baseline: Baseline | None = None

    @property
    def longest(self) -> float:
        """How long it lasts at most, in seconds."""
        return len(self.steps) * self.seconds_per_step + self.patience

    @property
    def looks(self) -> int:
        """How many looks this plan can take at most: what the judge divides its error among."""
        return max(1, round(self.longest / self.look_every) + len(self.steps))


#: For pipelines that move everybody at once.
NO_CANARY = Canary((), 1.0, 1.0, 0.0)


@dataclass(frozen=True)
class Pipeline:
    """A graph of stages, each listed later than those that it comes after: so it has no circle."""

    name: str
    stages: tuple[Stage, ...]
    canary: Canary

    def __post_init__(self) -> None:
        earlier: set[str] = set()
        for stage in self.stages:
            unknown = set(stage.after) - earlier
            if unknown or stage.name in earlier:
                problem = (
                    f"comes after {sorted(unknown)}, not listed before it" if unknown else "is twice there"
                )
                raise Invalid(f"stage {stage.name} {problem}", where=f"pipeline {self.name}")
            earlier.add(stage.name)


@dataclass(frozen=True)
class Intent:
    """Something to do: a *verb*, for a *stage*, whose *part* and *target* it has.

    In a canary, *number* counts steps or looks, and *share* is the new release's share of user traffic
    (thousandths): for a shift the share to come, for a look the present one.
    """

    stage: str
    verb: str
    number: int = 0
    share: int = 0
    guards: str = ""
    part: str = ""
    target: str = ""

    @property
    def key(self) -> str:
        """Unique within a delivery; an intent with the same key is the same intent."""
        return f"{self.stage}/{self.verb}/{self.number}"


# --- what a performed intent leaves for the ones after it -------------------------------------------


@dataclass(frozen=True)
class Begun:
    """Fixed when a delivery starts: what is live now, and the half of the pair that is given.

    Of an experiment, *variants* have the environment data of each, and *data* is that of the first.
    """

    kind: Literal["begun"]
    data: EnvironmentData
    baseline: Release | None = None
    artifact: Artifact | None = None
    variants: tuple[Dealt, ...] = ()


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
    """*refused_by* names the policies that did not pass, *overridden* those that passed by an override alone,
    and whose (``security-lead by sue``).

    *size* is the ledger's size that was looked at, *expires* when the first sign-off expires (0: never).
    While only evidence is missing, *waits_until* is the time (seconds since 1970) at which that ends, and
    *due* when time alone may bring another answer; else 0.
    """

    kind: Literal["gated"]
    refused_by: tuple[str, ...] = ()
    size: int = 0
    expires: float = 0.0
    waits_until: float = 0.0
    blocked: tuple[Blocked, ...] = ()
    overridden: tuple[str, ...] = ()
    due: float = 0.0


@dataclass(frozen=True)
class Measured:
    """Readings of both releases when the canary began, and when that was (seconds since 1970, 0: not known).
    If *stable* is a fresh baseline, *running* is of the copies that had run before; *metrics* are those of
    the service's own that could be read."""

    kind: Literal["measured"]
    new: Counters
    stable: Counters
    running: Counters | None = None
    metrics: tuple[Sample, ...] | None = None
    began: float = 0.0

    @property
    def usual(self) -> Counters:
        """What users saw of the stable release until then."""
        return self.running or self.stable


@dataclass(frozen=True)
class Looked:
    """What a look found, and the readings of both releases that the next one goes on from; *metrics* are
    those of the service's own that could be read."""

    kind: Literal["looked"]
    verdict: Literal["PASS", "FAIL", "UNKNOWN"]
    quiet: bool
    new: Counters | None = None
    stable: Counters | None = None
    metrics: tuple[Sample, ...] | None = None


Detail = Begun | Made | Gated | Measured | Looked | Weighed


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
class Attempt:
    """How often the intent with this key found an outside system unavailable, and when it is tried again."""

    key: str
    count: int
    again: float
    error: str = ""


@dataclass(frozen=True)
class Facts:
    """All that is known of a delivery. *request* is what a person asked of it meanwhile.

    *running* names the stages that are at work now, *lapsed* those that have not begun and whose gate might
    give another answer now. *newer* is the delivery that makes this one needless. *together* is its change
    set.
    """

    service: str
    environment: str
    records: tuple[Record, ...]
    request: Literal["", "abort", "promote"] = ""
    attempts: tuple[Attempt, ...] = ()
    running: frozenset[str] = frozenset()
    lapsed: frozenset[str] = frozenset()
    newer: str = ""
    together: Together | None = None

    def of(self, verb: str) -> tuple[Record, ...]:
        return tuple(record for record in self.records if record.intent.verb == verb)

    def done(self, intent: Intent) -> bool:
        key = intent.key
        return any(record.intent.key == key for record in self.of_stage(intent.stage))

    @functools.cached_property
    def begun(self) -> Begun | None:
        details = (record.detail for record in self.of("begin"))
        return next((detail for detail in details if isinstance(detail, Begun)), None)

    @functools.cached_property
    def artifact(self) -> Artifact | None:
        made = (r.detail.artifact for r in self.records if isinstance(r.detail, Made))
        return next(made, self.begun.artifact if self.begun else None)

    @functools.cached_property
    def release(self) -> Release | None:
        """The pair that this delivery is about, once both halves are known."""
        return self._with(self.begun.data) if self.begun else None

    @functools.cached_property
    def variants(self) -> Mapping[str, Release]:
        """The pairs of an experiment's variants, by name and in their order."""
        dealt = self.begun.variants if self.begun else ()
        return {one.name: release for one in dealt if (release := self._with(one.data))}

    def _with(self, data: EnvironmentData) -> Release | None:
        artifact = self.artifact
        return pair(self.service, self.environment, artifact.digest, data.digest) if artifact else None

    @functools.cached_property
    def measured(self) -> Measured | None:
        details = (record.detail for record in self.of("measure"))
        return next((detail for detail in details if isinstance(detail, Measured)), None)

    @property
    def weighed(self) -> tuple[Weighed, ...]:
        """The looks at an experiment so far; the first is the reading when it began."""
        return tuple(record.detail for record in self.records if isinstance(record.detail, Weighed))

    @property
    def looked(self) -> tuple[tuple[int, Looked], ...]:
        """The looks of the canary so far, each with the share that the new release had."""
        looks = self.of("look")
        return tuple((r.intent.share, r.detail) for r in looks if isinstance(r.detail, Looked))

    def failed(self, pipeline: Pipeline) -> Record | None:
        """The first record that keeps the delivery from going on, the undoing itself left aside."""
        bad = [r for r in self.records if _bad(r) and r.intent.verb != "rollback"]
        optional = {stage.name for stage in pipeline.stages if stage.optional} if bad else ()
        return next((record for record in bad if record.intent.stage not in optional), None)

    def of_stage(self, name: str) -> Sequence[Record]:
        return self._by_stage.get(name, ())

    @functools.cached_property
    def _by_stage(self) -> Mapping[str, Sequence[Record]]:
        """Grouped once: `core.decide` asks for every stage of the plan."""
        found: dict[str, list[Record]] = {}
        for record in self.records:
            found.setdefault(record.intent.stage, []).append(record)
        return found

    @functools.cached_property
    def open_gates(self) -> tuple[Record, ...]:
        """Gates that wait, or whose stage has not begun: they may have to be asked again."""
        last = ((name, records[-1]) for name, records in self._by_stage.items() if name not in self.running)
        return tuple(record for _, record in last if isinstance(record.detail, Gated) and not _bad(record))

    def postponed(self, intent: Intent) -> float:
        """When an intent is tried again (seconds since 1970); 0 if nothing speaks against doing it now."""
        return next((attempt.again for attempt in self.attempts if attempt.key == intent.key), 0.0)


def _bad(record: Record) -> bool:
    return record.state not in (*GOOD, State.PENDING)
