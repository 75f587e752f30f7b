"""Do bad requests come alone or in clusters? The variance ratio within an arm, from counts by interval.

Called by `judge`. Pure. Every test on requests takes them for independent, given what happened to both
releases at once. Retries in batches, or one bad node behind one release, make clusters, and a test that
promises 1% false alarms then gives up to 19% (`docs/reference/judge.md`). So it is measured: the variance of
the counts of an interval divided by the variance that independent requests would give (Cox and Snell,
*Analysis of binary data*, 1989, 3.2; McCullagh and Nelder, *Generalized linear models*, 1989, 4.5 and 9.2).
Above `MOST` an interval is the unit of evidence: counts are divided by the ratio, so that a cluster counts
once. Until there are `ENOUGH` intervals it cannot be measured, and `UNMEASURED` is taken for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from penstock.analysis.sequential import Pair

#: The variance ratio up to which requests are taken for independent.
MOST = 1.5
ENOUGH = 8
UNMEASURED = 3.0
#: A ratio that independent requests would show more often than this says nothing.
BY_CHANCE = NormalDist().inv_cdf(0.9)


def ratio(pairs: Sequence[Pair]) -> float:
    """What the counts are to be divided by: the measured variance ratio where it is beyond `MOST`, else 1."""
    told = [p for p in pairs if p.new > 0 and p.stable > 0]
    measured, intervals = max((_within(told), len(told)), _between(told))
    return measured if measured > max(MOST, _chance(intervals)) else 1.0


def _within(told: Sequence[Pair]) -> float:
    """Of the new release's bad requests alone, less what the stable release shows at the same times."""
    bad, requests = sum([p.new_bad for p in told]), sum([p.new for p in told])
    stable_bad, stable = sum([p.stable_bad for p in told]), sum([p.stable for p in told])
    if bad == 0 or len(told) < 2:
        return 1.0
    rate, alike = bad / requests, stable_bad / stable
    spread = math.fsum([(p.new_bad - p.new * rate) ** 2 for p in told])
    common = 0.0
    if alike:
        # How far the stable release was off at the same time, in requests of the new one.
        common = math.fsum(
            [
                (p.new_bad - p.new * rate) * (p.stable_bad / (p.stable * alike) - 1) * p.new * rate
                for p in told
            ]
        )
    spare = len(told) / (len(told) - 1)
    excess = max(spread * spare - bad, 0.0)
    return (spread * spare - min(max(common * spare, 0.0), excess)) / bad


def _between(told: Sequence[Pair]) -> tuple[float, int]:
    """Pearson's statistic of how the bad requests of each interval were divided, over what varies freely."""
    own = [(p.new_bad, p.stable_bad, p.new / p.stable) for p in told if p.new_bad or p.stable_bad]
    bad, alike = sum([new for new, _, _ in own]), sum([stable * odds for _, stable, odds in own])
    if bad == 0 or alike == 0 or len(own) < 2:
        return 1.0, len(own)
    theta, total = bad / alike, 0.0
    for new, stable, odds in own:
        expected = theta * odds / (theta * odds + 1)
        total += (new - (new + stable) * expected) ** 2 / ((new + stable) * expected * (1 - expected))
    return total / (len(own) - 1), len(own)


def _chance(intervals: int) -> float:
    """What independent requests stay below, nine times in ten (Wilson and Hilferty, PNAS 17, 1931)."""
    free = max(intervals - 1, 1)
    part = 2 / (9 * free)
    return float((1 - part + BY_CHANCE * math.sqrt(part)) ** 3)
