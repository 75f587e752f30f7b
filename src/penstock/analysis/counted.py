"""What the canary judge is given: counts side by side, metric by metric.

Called by `judge`. Pure, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock.analysis.sequential import Pair
from penstock.analysis.series import events_of
from penstock.analysis.spans import Span, errors, slow
from penstock.core.canary import Margin, Rule, Series
from penstock.core.verdict import Cause, Verdict, unknown


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
    failed = Judged("failed", "requests", errors(spans), ends, rule.points, rule.ratio, lenient=False)
    if rule.slow_ms is None:
        return [failed]
    name = f"slower than {rule.slow_ms:g} ms"
    return [failed, Judged(name, "requests", slow(spans), ends, rule.slow_points)]


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
