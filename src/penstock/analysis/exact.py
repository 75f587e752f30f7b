"""One exact test at a look that was fixed beforehand: how likely is it that so many fell to the new release?

Called by `judge` at the declared last look. Pure. Given the requests of both releases and the bad ones of
each step, the new release's bad ones are hypergeometric if the releases do not differ (Fisher, *The design of
experiments*, 1935; for several tables, Zelen, *The analysis of several 2×2 contingency tables*, Biometrika
58, 1971). Steps are kept apart: within one the router gave the new release the same share all the time, so
what happened to both at once cannot count against it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from penstock.analysis.sequential import Pair

#: Products of probabilities that are worth it; beyond, the normal law with its skewness is exact enough.
MOST_TERMS = 400_000
#: Where a tail ends: far below any α.
TINY = 1e-14


def tail(steps: Sequence[Pair]) -> float:
    """P(the new release has at least as many bad requests by chance alone), one-sided. Whole counts."""
    told = [p for p in steps if p.bad > 0]
    seen = round(sum(p.new_bad for p in told))
    if not told:
        return 1.0
    if _terms(told) > MOST_TERMS:
        return _skewed(told, seen)
    first, law = 0, [1.0]
    for pair in told:
        start, own = _law(round(pair.new), round(pair.stable), round(pair.bad))
        first, law = first + start, _convolved(law, own)
    return min(1.0, math.fsum(law[max(0, seen - first) :]))


def _terms(told: Sequence[Pair]) -> float:
    widths = [1.0]
    for p in told:
        widths.append(16 * math.sqrt(p.bad * p.share * (1 - p.share)) + 8)
    return sum(sum(widths[: n + 1]) * widths[n + 1] for n in range(len(told)))


def _law(new: int, stable: int, bad: int) -> tuple[int, list[float]]:
    """The hypergeometric law around its middle, where it is not negligible: first value, probabilities."""
    low, high = max(0, bad - stable), min(bad, new)
    middle = min(high, max(low, round(bad * new / (new + stable))))
    whole = _log_choose(new + stable, bad)
    ends = [middle]
    for step in (-1, 1):
        k = middle
        while low <= k + step <= high and _point(new, stable, bad, k + step, whole) > TINY:
            k += step
        ends.append(k)
    first = min(ends)
    return first, [_point(new, stable, bad, k, whole) for k in range(first, max(ends) + 1)]


def _point(new: int, stable: int, bad: int, k: int, whole: float) -> float:
    return math.exp(_log_choose(new, k) + _log_choose(stable, bad - k) - whole)


def _convolved(one: list[float], other: list[float]) -> list[float]:
    found = [0.0] * (len(one) + len(other) - 1)
    for i, p in enumerate(one):
        for j, q in enumerate(other):
            found[i + j] += p * q
    return found


def _skewed(told: Sequence[Pair], seen: int) -> float:
    """The tail by the first term of Edgeworth's series, with a correction for whole numbers."""
    mean = sum(p.bad * p.share for p in told)
    spread = third = 0.0
    for p in told:
        total, s = p.new + p.stable, p.share
        spread += p.bad * s * (1 - s) * (total - p.bad) / max(1.0, total - 1)
        third += p.bad * s * (1 - s) * (1 - 2 * s)
    deviation = math.sqrt(spread) or 1.0
    z = (seen - 0.5 - mean) / deviation
    normal = NormalDist()
    skewness = third / deviation**3
    return min(1.0, max(0.0, 1 - normal.cdf(z) + skewness * (z * z - 1) * normal.pdf(z) / 6))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
