"""What the canary judge is given: evidence taken apart, and its counts side by side, metric by metric.

Called by `judge` and whoever has evidence for it. Pure, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock.analysis.sequential import Pair
from penstock.analysis.series import events_of
from penstock.core.canary import ROW, Margin, Row, Rule, Series
from penstock.core.verdict import Cause, Verdict, unknown
from penstock.errors import Invalid


@dataclass(frozen=True)
class Arm:
    """What one release did in a stretch of time."""

    requests: int
    errors: int
    slow: int = 0


@dataclass(frozen=True)
class Span:
    """From one look to the next: *at* seconds since the canary began, in which *step* (of its traffic)."""

    at: float
    step: int
    new: Arm
    stable: Arm


def spans_of(rows: Sequence[Row]) -> list[Span]:
    """Evidence as the judge takes it. `Invalid` if it is none."""
    if any(len(row) != ROW or min(row) < 0 for row in rows):
        raise Invalid(f"spans have {ROW} whole numbers each", where="canary")
    spans = [Span(row[0] / 1000, row[1], Arm(*row[2:5]), Arm(*row[5:8])) for row in rows]
    if any(max(arm.errors, arm.slow) > arm.requests for s in spans for arm in (s.new, s.stable)):
        raise Invalid("more bad requests than requests", where="canary")
    return spans


@dataclass(frozen=True)
class Judged:
    """One metric as the judge takes it: *what* are its events, *pairs* their counts from look to look, and
    *ends* when those were (seconds since the canary began)."""

    name: str
    what: str
    pairs: list[Pair]
    ends: list[float]
    points: float
    ratio: float = 1.0
    #: Whether a rise must also be beyond the margin to fail.
    lenient: bool = True
    #: The name of one of the service's own.
    metric: str = ""


def of_requests(spans: Sequence[Span], rule: Rule) -> list[Judged]:
    ends = [span.at for span in spans]
    failed = Judged("failed", "requests", _errors(spans), ends, rule.points, rule.ratio, lenient=False)
    if rule.slow_ms is None:
        return [failed]
    slow = f"slower than {rule.slow_ms:g} ms"
    return [failed, Judged(slow, "requests", _slow(spans), ends, rule.slow_points)]


def of_series(margin: Margin, found: Series | None) -> Judged | Verdict:
    """A metric of the service's own, or why it cannot be told."""
    if found is None:
        return unknown(Cause.MISSING, f"{margin.metric}: nothing was counted in this canary")
    if found.spans is None:
        return unknown(Cause(found.cause or Cause.ERROR), found.reason or f"{margin.metric}: not told")
    rows = events_of(found.spans)
    # Of logs there may be more bad lines than requests: then all of these were bad.
    pairs = [Pair(r.step, r.new, min(r.new, r.new_bad), r.stable, min(r.stable, r.stable_bad)) for r in rows]
    for who, events in (("stable", sum(r.stable for r in rows)), ("new", sum(r.new for r in rows))):
        if events == 0:
            return unknown(Cause.MISSING, f"{margin.metric}: the {who} release has counted no event yet")
    ends = [row.at for row in rows]
    name, what = f"bad by {margin.metric}", f"events of {margin.metric}"
    return Judged(name, what, pairs, ends, margin.points, margin.ratio, metric=margin.metric)


def _errors(spans: Sequence[Span]) -> list[Pair]:
    return [Pair(s.step, s.new.requests, s.new.errors, s.stable.requests, s.stable.errors) for s in spans]


def _slow(spans: Sequence[Span]) -> list[Pair]:
    return [Pair(s.step, s.new.requests, s.new.slow, s.stable.requests, s.stable.slow) for s in spans]
