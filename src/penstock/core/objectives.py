"""Objectives that users can rely on, and what became of their error budgets: values, and the evidence of it.

Called by `slofile` (which reads objectives), by whoever says how they stand, and by `core.predicates`, which
lists `Budget`. Must not count or judge anything: `analysis.budget` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from penstock.core.facts import MAX_NAMES, Fact
from penstock.core.release import PRODUCTION

#: Where objectives hold: users are there.
ENVIRONMENT = PRODUCTION
#: The role whose holders say which objectives hold.
OWNER = "operations-lead"

#: ``ok``; ``burning``: at this rate the budget will not last; ``exhausted``: more than all of it is used;
#: ``quiet``: too few requests to tell; ``unknown``: nobody has counted of late.
State = Literal["ok", "burning", "exhausted", "quiet", "unknown"]


@dataclass(frozen=True)
class Objective:
    """At least *target* (a share below 1) of a service's user requests are good, over *window* seconds.

    Good is what was answered within *within_ms* milliseconds; if that is 0, what was answered without an
    error (5xx, or no answer). *slo* is the document's name, *name* the objective's own in it, if it has one.
    """

    service: str
    slo: str
    name: str
    target: float
    window: float
    within_ms: float = 0.0

    @property
    def label(self) -> str:
        """What people call it: unique within a service."""
        return f"{self.slo}/{self.name}" if self.name else self.slo

    @property
    def allowed(self) -> float:
        """The share of requests that may be bad: the error budget."""
        return round(1.0 - self.target, 9)


@dataclass(frozen=True)
class SloInForce:
    """An SLO version that holds: its text, the text's digest, and the entry that published it."""

    service: str
    name: str
    source: str
    digest: str
    index: int


@dataclass(frozen=True)
class BurnRate:
    """How fast the budget went over the last *long* and *short* seconds, where 1 uses it up in one window.

    It *burns* if both are *limit* or more; None where there were too few requests to tell.
    """

    long: float
    short: float
    limit: float
    long_rate: float
    short_rate: float
    burns: bool | None = None


@dataclass(frozen=True)
class Standing:
    """How an objective stood: *bad* of *total* requests in its window. *left* is the share of the budget that
    was left (below 0: more than all was used), None where that cannot be told. *entry* published it.
    """

    objective: str
    entry: int
    target: float
    window: float
    total: int
    bad: int
    state: State
    says: str
    burns: tuple[BurnRate, ...] = ()
    left: float | None = None


@dataclass(frozen=True)
class Budget:
    """How every objective of a service stood when a delivery was about to be promoted.

    FAIL if one burns or is exhausted; else UNKNOWN if of one that cannot be told; else PASS.
    """

    TYPE: ClassVar[str] = "urn:penstock:error-budget:v1"
    service: str
    environment: str
    verdict: Literal["PASS", "FAIL", "UNKNOWN"]
    explanation: str
    objectives: tuple[Standing, ...]
    at: float | None = None

    def named(self, state: State) -> tuple[str, ...]:
        """The objectives that stand so."""
        return tuple(one.objective for one in self.objectives if one.state == state)


def facts(budget: Budget) -> Mapping[str, Fact]:
    """What policies may use of it (`core.facts.FACTS`)."""
    left = [one.left for one in budget.objectives if one.left is not None]
    named: dict[str, Fact] = {
        f"evidence.slo.{state}": budget.named(state)[:MAX_NAMES]
        for state in ("burning", "exhausted", "quiet", "unknown")
    }
    return {
        **named,
        **({"evidence.slo.left": min(left)} if left else {}),
        "evidence.slo.verdict": budget.verdict,
        "evidence.slo.explanation": budget.explanation,
    }
