"""What a canary's judge was asked and which counts it had: kept as evidence, so that anybody can judge again.

Called by `core.predicates` and `analysis.judge`. Must not judge.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from penstock.core.codec import json_name
from penstock.errors import Invalid

#: What both releases did from one look to the next: milliseconds since the canary began, the new release's
#: share of user traffic (thousandths), then requests, errors and slow requests of the new release and of the
#: stable one; and for each quantile that is judged, how many of either took longer than its `above_ms`.
Row = tuple[int, ...]
ROW = 8
#: What the new release is compared with: None is the copies of the stable one that run, "fresh" some that are
#: put up for it, as many as the new release has and with the same share of users.
Baseline = Literal["fresh"]
#: So many quantiles share one alpha at most.
MOST_QUANTILES = 4


@dataclass(frozen=True)
class Quantile:
    """A quantile of latency that is judged: *level* of the requests are faster (0.95 for p95).

    The new release's may be *ratio* times the stable one's, or *ms* above it, whichever is more. *above_ms*
    is the bound of the histogram that the stable release's margin was below before the canary, above which
    requests are counted; None where that could not be told.
    """

    level: float
    ratio: float
    ms: float
    above_ms: float | None = field(default=None, metadata=json_name("aboveMs"))

    @property
    def name(self) -> str:
        return f"p{100 * self.level:g}"

    def check(self, where: str) -> None:
        """Raise `Invalid` for what can promise or show nothing."""
        if not 0.5 <= self.level <= 0.999:
            raise Invalid(f"quantiles are from 50 to 99.9, found {100 * self.level:g}", where=where)
        if self.ratio < 1 or self.ms < 0 or (self.ratio == 1 and self.ms == 0):
            raise Invalid(
                f"no release could be shown to be within {self.ratio:g} times and {self.ms:g} ms",
                where=where,
                next_move="give a margin: quantile_ratio: 2, or quantile_ms: 10",
            )


@dataclass(frozen=True)
class Latencies:
    """Histograms since the canary began, one for each of its steps.

    *bounds* are upper bounds (ms), rising. Each step has its share of user traffic (thousandths), then how
    many requests of the new release took up to each bound and longer than the one before, last those above
    all; then the same of the stable one.
    """

    bounds: tuple[float, ...]
    steps: tuple[Row, ...]

    def check(self) -> None:
        """Raise `Invalid` for what is no histogram."""
        size = 1 + 2 * (len(self.bounds) + 1)
        if list(self.bounds) != sorted({*self.bounds}) or not all(bound > 0 for bound in self.bounds):
            raise Invalid("bounds of latency must rise", where="canary")
        if any(len(step) != size or min(step) < 0 for step in self.steps):
            raise Invalid(f"a step has {size} whole numbers", where="canary")


#: The same of a metric of the service's own: milliseconds, share, then events and bad ones of both releases.
EVENTS_ROW = 6


@dataclass(frozen=True)
class Part:
    """*bad* of *total* events of one part of a release (a copy, say) since it began to count: cumulative.

    A part of another *name* is another one, whose counts begin at zero.
    """

    name: str
    bad: int
    total: int


@dataclass(frozen=True)
class Count:
    """What a meter has counted of one release by the time *at* (seconds since 1970, by the meter's clock).

    Its parts may come and go; *epoch* changes when their counts may have begun anew all the same.
    """

    release: str
    at: float
    epoch: str
    parts: tuple[Part, ...]

    @property
    def bad(self) -> int:
        return sum(part.bad for part in self.parts)

    @property
    def total(self) -> int:
        return sum(part.total for part in self.parts)


@dataclass(frozen=True)
class Sample:
    """Both releases by one *metric*, as its meter had them when we *read* it (seconds since 1970)."""

    metric: str
    read: float
    new: Count
    stable: Count


@dataclass(frozen=True)
class Margin:
    """How much worse a metric of the service's own may be, as `Rule` says it of failed requests."""

    metric: str
    source: str
    ratio: float
    points: float


@dataclass(frozen=True)
class Series:
    """What happened by one metric between two samples, from look to look; or why that cannot be told."""

    metric: str
    since: Sample | None = None
    until: Sample | None = None
    spans: tuple[Row, ...] | None = None
    cause: Literal["MISSING", "STALE", "ERROR"] | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Rule:
    """What is promised and what is asked. Rates and shares from 0 to 1, times in seconds.

    *alpha* is the whole probability of a false alarm. The new release may fail *ratio* times as often as the
    stable one, or *points* more of its requests, whichever is more, and be slow in *slow_points* more of
    them: slower than *slow_ms*, which is None where that cannot be told. The declared last look is the first
    one after *planned*. *quantiles* are judged beside them, and so are *metrics*, the service's own.
    """

    planned: float
    slow_ms: float | None = field(default=None, metadata=json_name("slowMs"))
    alpha: float = 0.01
    ratio: float = 2.0
    points: float = 0.01
    slow_points: float = field(default=0.05, metadata=json_name("slowPoints"))
    baseline: Baseline | None = None
    quantiles: tuple[Quantile, ...] | None = None
    metrics: tuple[Margin, ...] | None = None

    @property
    def judged(self) -> tuple[Quantile, ...]:
        return self.quantiles or ()

    @property
    def alpha_each(self) -> float:
        """Several metrics share one error budget evenly."""
        own = len(self.judged) + len(self.metrics or ())
        return self.alpha / (1 + (self.slow_ms is not None) + own)

    @property
    def beside(self) -> str:
        """What the new release is compared with, in words."""
        return "the fresh baseline" if self.baseline else "the stable release"

    def check(self, where: str) -> None:
        """Raise `Invalid` for what can promise or show nothing."""
        if not 0 < self.alpha <= 0.2:
            raise Invalid(f"alpha must be above 0, up to 0.2, found {self.alpha:g}", where=where)
        if not 0 < self.slow_points < 1:
            raise Invalid("slow_points must be above 0, below 100 per cent", where=where)
        check_margin(self.ratio, self.points, where)
        for margin in self.metrics or ():
            check_margin(margin.ratio, margin.points, f"{where}: {margin.metric}")
        if len(self.judged) > MOST_QUANTILES or len({q.level for q in self.judged}) < len(self.judged):
            raise Invalid(f"up to {MOST_QUANTILES} quantiles, each of them once", where=where)
        for quantile in self.judged:
            quantile.check(where)
        check_names((margin.metric for margin in self.metrics or ()), where)


def check_margin(ratio: float, points: float, where: str) -> None:
    """Raise `Invalid` for a margin within which nothing could be shown."""
    if ratio < 1:
        raise Invalid(f"ratio must be 1 or more, found {ratio:g}", where=where)
    if not 0 <= points < 1:
        raise Invalid("points must be from 0, below 100 per cent", where=where)
    if ratio == 1 and points == 0:
        what = "with a ratio of 1 and points of 0 nothing could ever be shown"
        raise Invalid(what, where=where, next_move="give a margin: ratio: 2, or points: 1")


def check_names(names: Iterable[str], where: str) -> None:
    """Raise `Invalid` if two metrics have one name."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise Invalid(f"the metric {name!r} is there twice", where=where)
        seen.add(name)
