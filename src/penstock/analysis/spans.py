"""What two releases did from look to look, and the pairs of counts that tests are made of.

Called by `judge`, `replay` and by whoever reads evidence. Must not judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock.analysis.sequential import Pair
from penstock.core.canary import ROW, Row
from penstock.errors import Invalid


@dataclass(frozen=True)
class Arm:
    """What one release did in a stretch of time."""

    requests: int
    errors: int
    slow: int = 0
    #: For each quantile that is judged, requests above its bound.
    beyond: tuple[int, ...] = ()


@dataclass(frozen=True)
class Span:
    """From one look to the next: *at* seconds since the canary began, in which *step* (of its traffic)."""

    at: float
    step: int
    new: Arm
    stable: Arm


def spans_of(rows: Sequence[Row]) -> list[Span]:
    """Evidence as the judge takes it. `Invalid` if it is none."""
    if any(len(row) < ROW or len(row) % 2 or min(row) < 0 for row in rows):
        raise Invalid(f"spans have {ROW} whole numbers each, and two for each quantile", where="canary")
    spans = [Span(row[0] / 1000, row[1], _arm(row, 0), _arm(row, 1)) for row in rows]
    bad = ((arm, max(arm.errors, arm.slow, *arm.beyond)) for s in spans for arm in (s.new, s.stable))
    if any(most > arm.requests for arm, most in bad):
        raise Invalid("more bad requests than requests", where="canary")
    return spans


def _arm(row: Row, which: int) -> Arm:
    first = 2 + 3 * which
    return Arm(row[first], row[first + 1], row[first + 2], row[ROW + which :: 2])


def errors(spans: Sequence[Span]) -> list[Pair]:
    return [Pair(s.step, s.new.requests, s.new.errors, s.stable.requests, s.stable.errors) for s in spans]


def slow(spans: Sequence[Span]) -> list[Pair]:
    return [Pair(s.step, s.new.requests, s.new.slow, s.stable.requests, s.stable.slow) for s in spans]


def beyond(spans: Sequence[Span], index: int) -> list[Pair]:
    """Requests above the bound of the quantile with this *index* in the rule. `Invalid` if nobody counted."""
    if any(len(arm.beyond) <= index for s in spans for arm in (s.new, s.stable)):
        raise Invalid("spans that do not count what a quantile is judged by", where="canary")
    return [
        Pair(s.step, s.new.requests, s.new.beyond[index], s.stable.requests, s.stable.beyond[index])
        for s in spans
    ]
