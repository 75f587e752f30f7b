"""What a canary's judge was asked and told, as evidence keeps it: enough for anybody to judge again.

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
#: stable one.
Row = tuple[int, ...]
ROW = 8
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
    them: slower than *slow_ms*, which is None where that cannot be told. *metrics* are the service's own. The
    declared last look is the first one after *planned*.
    """

    planned: float
    slow_ms: float | None = field(default=None, metadata=json_name("slowMs"))
    alpha: float = 0.01
    ratio: float = 2.0
    points: float = 0.01
    slow_points: float = field(default=0.05, metadata=json_name("slowPoints"))
    metrics: tuple[Margin, ...] | None = None

    @property
    def alpha_each(self) -> float:
        """Several metrics share one error budget evenly."""
        return self.alpha / (1 + (self.slow_ms is not None) + len(self.metrics or ()))

    def check(self, where: str) -> None:
        """Raise `Invalid` for what can promise or show nothing."""
        if not 0 < self.alpha <= 0.2:
            raise Invalid(f"alpha must be above 0, up to 0.2, found {self.alpha:g}", where=where)
        if not 0 < self.slow_points < 1:
            raise Invalid("slow_points must be above 0, below 100 per cent", where=where)
        check_margin(self.ratio, self.points, where)
        for margin in self.metrics or ():
            check_margin(margin.ratio, margin.points, f"{where}: {margin.metric}")
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
