"""How far apart are two releases' quantiles of latency? Bounds that hold at every look, from histograms.

Called by `judge`, and by ``checks.canary`` to say beforehand above which bound requests are counted. Pure.
Latencies are in milliseconds, levels from 0 to 1.

*Is the new release's higher?* It is if more of its requests than of the stable one's take longer than a bound
that the stable release's margin was below before the canary: a test on counts, which `judge` has. The bounds
here would see it too, with several times as many requests (`benchmarks/judge.py`), and not within a bucket.

*How far apart are they?* A quantile is above a bound if more than 1 - level of the requests took longer, and
that share has bounds which hold at all times for each bound of the histogram (`sequential.sides`). So the
quantile lies between the largest bound that it is shown to be above and the smallest that it is shown to be
below (Howard and Ramdas, *Sequential estimation of quantiles with applications to A/B testing and best-arm
identification*, Bernoulli 28, 2022, whose bounds are on the same shares). All of them hold together, by an
even part of the error each, so that latencies may drift; and the buckets' width is part of the interval: with
any number of requests it stays as wide as the buckets that the quantiles fall into.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from statistics import NormalDist

from penstock.analysis import power
from penstock.analysis.sequential import Bounds, Pair, comparable, sides
from penstock.core.canary import Latencies, Quantile

#: What is told of latency where no quantile is judged. Its margin is never asked about.
TOLD = Quantile(0.95, 2.0, 10.0)
#: Bounds of the histogram that a plan reckons with: those of the proxy.
USUAL_BOUNDS = 40


@dataclass(frozen=True)
class Timing:
    """One quantile. *new* and *stable* are estimates within their buckets, *difference* has the bounds at all
    looks together, *widths* are those of the two buckets, *limit* what the difference may be.

    *p* is the chance of so many requests above *above_ms* if there were no regression, *alpha* its limit;
    *detectable* the smallest share above it that would have been found. None where it is only told.
    """

    quantile: Quantile
    new: float
    stable: float
    difference: Bounds
    widths: tuple[float, float]
    limit: float
    p: float | None
    alpha: float | None
    detectable: float | None
    worse: bool
    no_worse: bool


#: Of a step of the canary: its share, and for each bucket the requests that took as long or longer.
_Step = tuple[int, Sequence[float], Sequence[float]]


class Shares:
    """The histograms as a test on shares has them: for each bound, the requests that took longer."""

    def __init__(self, latencies: Latencies) -> None:
        self.bounds = latencies.bounds
        size = len(self.bounds) + 1
        self._steps: list[_Step] = [
            (row[0], _longer(row[1 : size + 1]), _longer(row[size + 1 :])) for row in latencies.steps
        ]

    def above(self, index: int) -> list[Pair]:
        """Of each step, how many took longer than the bound with this *index* (-1: all)."""
        found = [
            Pair(step, new[0], new[index + 1], stable[0], stable[index + 1])
            for step, new, stable in self._steps
        ]
        return comparable(found)

    def scaled(self, factor: float) -> Shares:
        """As many requests times *factor*."""
        scaled = (
            (step, [n * factor for n in new], [m * factor for m in old]) for step, new, old in self._steps
        )
        return self._with([*scaled])

    def longer(self, extra: float) -> Shares:
        """With *extra* more requests of the new release in the last step, if all goes on as in that step."""
        *before, (step, new, old) = self._steps
        factor = 1 + extra / new[0] if new[0] else 1.0
        return self._with([*before, (step, [n * factor for n in new], [m * factor for m in old])])

    def _with(self, steps: list[_Step]) -> Shares:
        found = Shares(Latencies(self.bounds, ()))
        found._steps = steps
        return found


def _longer(counts: Sequence[float]) -> list[float]:
    """Of counts by bucket, how many are in this one or a later one."""
    return [*accumulate(reversed(counts))][::-1]


def estimates(shares: Shares, level: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """(quantile, width of its bucket) of the new release and of the stable one, had it been asked at the same
    times. Evenly within a bucket; what is above the last bound is taken to be there."""
    every = [shares.above(index) for index in range(-1, len(shares.bounds))]
    new = [sum(p.new_bad for p in steps) for steps in every]
    stable = [sum(p.stable_bad * p.new / p.stable for p in steps) for steps in every]
    return _within(shares.bounds, new, level), _within(shares.bounds, stable, level)


def _within(bounds: Sequence[float], longer: Sequence[float], level: float) -> tuple[float, float]:
    left = (1 - level) * longer[0]
    if not longer[0]:
        return 0.0, 0.0
    index = next((i for i in range(len(bounds)) if longer[i + 1] <= left), None)
    if index is None:
        return (bounds[-1] if bounds else 0.0), math.inf
    low = bounds[index - 1] if index else 0.0
    inside = longer[index] - longer[index + 1]
    part = (longer[index] - left) / inside if inside else 1.0
    return low + part * (bounds[index] - low), bounds[index] - low


def intervals(shares: Shares, level: float, alpha: float) -> tuple[Bounds, Bounds]:
    """Bounds of the quantile of either release; each end is wrong, at any look, with probability *alpha*."""
    count, each = len(shares.bounds), alpha / max(1, len(shares.bounds))

    @functools.cache
    def said(index: int) -> tuple[int, int]:
        return sides(shares.above(index), 1 - level, each)

    def bounds(arm: int) -> Bounds:
        """Fewer take longer the higher the bound is: above the quantile, then unclear, then below."""
        above = bisect_left(range(count), True, key=lambda index: said(index)[arm] <= 0)
        below = bisect_left(range(count), True, key=lambda index: said(index)[arm] < 0)
        low = shares.bounds[above - 1] if above else 0.0
        return Bounds(low, shares.bounds[below] if below < count else math.inf)

    return bounds(0), bounds(1)


def difference(new: Bounds, stable: Bounds) -> Bounds:
    return Bounds(new.low - stable.high, new.high - stable.low)


def within_margin(new: Bounds, stable: Bounds, quantile: Quantile) -> bool:
    """Whether the new release's quantile is shown to be within the margin of the stable one's."""
    return new.high <= _margin(stable.low, quantile) and math.isfinite(new.high)


def _margin(ms: float, quantile: Quantile) -> float:
    return max(ms * quantile.ratio, ms + quantile.ms)


def fixed(latency: Mapping[float, int], quantile: Quantile) -> Quantile:
    """The quantile with the bound above which its requests are counted: the first at or above the margin of
    what *latency*, cumulative counts by upper bound, gives of the stable release; None if there is none."""
    bounds = sorted(bound for bound in latency if math.isfinite(bound))
    total = max(latency.values(), default=0)
    longer = [total, *(total - latency[bound] for bound in bounds)]
    usual, width = _within(bounds, longer, quantile.level)
    if not total or math.isinf(width):
        return quantile
    margin = _margin(usual, quantile)
    return replace(quantile, above_ms=next((bound for bound in bounds if bound >= margin), None))


@dataclass(frozen=True)
class Tested:
    """What the test on requests above a quantile's bound gave, its limit, and that of the last look."""

    p: float
    alpha: float
    last: float


def timing(shares: Shares, quantile: Quantile, tested: Tested | None, alpha: float) -> Timing:
    """One quantile at one look; where it is only told nothing was *tested*. *alpha* is that of each end of
    the interval."""
    bounds = intervals(shares, quantile.level, alpha)
    (new, width), (stable, alike) = estimates(shares, quantile.level)
    limit = _margin(stable, quantile) - stable
    return Timing(
        quantile=quantile,
        new=new,
        stable=stable,
        difference=difference(*bounds),
        widths=(width, alike),
        limit=limit,
        p=tested.p if tested else None,
        alpha=tested.alpha if tested else None,
        detectable=_detectable(shares, quantile, tested.last) if tested else None,
        worse=tested is not None and tested.p <= tested.alpha and new - stable > limit,
        no_worse=within_margin(*bounds, quantile),
    )


def _detectable(shares: Shares, quantile: Quantile, alpha: float) -> float | None:
    """The smallest share of the new release's requests above its bound that would be found: more than the
    stable one's beyond chance, and more than the level leaves, for the quantile itself must be beyond."""
    if quantile.above_ms not in shares.bounds:
        return None
    steps = shares.above(shares.bounds.index(quantile.above_ms))
    least = power.smallest_rate(steps, alpha)
    requests, left = sum(p.new for p in steps), 1 - quantile.level
    if least is None or not requests:
        return None
    spread = NormalDist().inv_cdf(power.POWER) * math.sqrt(left * quantile.level / requests)
    return max(least, left + spread) if left + spread <= 1 else None


@functools.cache
def least_requests(level: float, alpha: float) -> float | None:
    """From how many requests of each release on, all of them fast, the quantile has an upper bound at all."""
    each = alpha / USUAL_BOUNDS
    return power.least(lambda n: sides([Pair(0, n, 0, n, 0)], 1 - level, each)[0] < 0)


def more(shares: Shares, quantile: Quantile, alpha: float) -> float | None:
    """How many more requests of the new release show that its quantile is within the margin, if latencies and
    shares stay; None if no number would, as where the buckets are wider than the margin."""
    if not shares.above(-1):
        return least_requests(quantile.level, alpha)
    return power.least(
        lambda extra: within_margin(*intervals(shares.longer(extra), quantile.level, alpha), quantile)
    )


# --- in words ---------------------------------------------------------------------------------------------


def in_words(found: Timing) -> str:
    """``p95 41 ms against 23 ms (+18 ms, +9 to +31; …)``: effect, interval, margin, what would be seen."""
    f, bound = found, found.quantile.above_ms
    if not any(f.widths):
        return f"{f.quantile.name} cannot be told: no histogram of both releases' latencies"
    low, high = f.difference.low, f.difference.high
    ends = f"{_ms(low)} to {_ms(high)}" if math.isfinite(low) and math.isfinite(high) else _open(low, high)
    said = [f"{_ms(f.new - f.stable)} ms, {ends}"]
    if all(math.isfinite(width) for width in f.widths):
        said.append(f"buckets of {f.widths[0]:g} and {f.widths[1]:g} ms")
    if f.p is not None and f.alpha is not None:
        said.append(f"margin {f.limit:.3g} ms")
        if f.worse:
            said.append(f"by chance {f.p:.1g}, limit {f.alpha:.1g}")
        elif f.detectable is not None:
            seen = f"{100 * f.detectable:.2g}% above {bound:g} ms"
            said.append(f"{seen} would be found {power.POWER:.0%} of the time")
    return f"{f.quantile.name} {f.new:.3g} ms against {f.stable:.3g} ms ({'; '.join(said)})"


def _ms(value: float) -> str:
    return f"{value:+.3g}" if abs(value) < 1000 else f"{value:+.0f}"


def _open(low: float, high: float) -> str:
    if math.isfinite(low):
        return f"{_ms(low)} or more"
    return f"{_ms(high)} or less" if math.isfinite(high) else "too few requests for bounds"
