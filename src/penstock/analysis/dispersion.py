"""Do bad requests come alone or in clusters? The variance ratio within an arm, from counts by interval.

Called by `judge`. Pure. Every test on requests takes them for independent, given what happened to both
releases at once. Retries in batches, or one bad node behind one release, make clusters, and a test that
promises 1% false alarms then gives up to 19% (`docs/reference/judge.md`). So it is measured: the variance of
the counts of an interval divided by the variance that independent requests would give (Cox and Snell,
*Analysis of binary data*, 1989, 3.2; McCullagh and Nelder, *Generalized linear models*, 1989, 4.5 and 9.2).
Above `MOST` an interval is the unit of evidence: counts are divided by the ratio, so that a cluster counts
once; by no more than `LARGEST`, for a release that begins to fail outright is a single large cluster too.
Until there are `ENOUGH` intervals it cannot be measured, and `UNMEASURED` is taken for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from penstock.analysis.sequential import Pair

#: The variance ratio up to which requests are taken for independent.
MOST = 1.5
#: Beyond this it is no matter of clusters: the release has failed, and nobody waits to see for how long.
LARGEST = 5.0
#: Each look more of doubt is a look more for users of a bad release: clusters of two, for four looks.
ENOUGH = 5
UNMEASURED = 2.0
#: A ratio that independent requests would show more often than this says nothing.
BY_CHANCE = NormalDist().inv_cdf(0.9)


def ratio(pairs: Sequence[Pair]) -> float:
    """What the counts are to be divided by: the measured variance ratio where it is beyond `MOST`, else 1.

    Within each step: what breaks when more users come is no cluster.
    """
    steps: dict[int, list[Pair]] = {}
    for pair in pairs:
        if pair.new > 0 and pair.stable > 0:
            steps.setdefault(pair.step, []).append(pair)
    told = [own for own in steps.values() if len(own) > 1]
    measured, free = max(_within(told), _between(told))
    return min(measured, LARGEST) if measured > max(MOST, _chance(free)) else 1.0


def _within(steps: Sequence[Sequence[Pair]]) -> tuple[float, int]:
    """Of the new release's bad requests alone, less what the stable release shows at the same times."""
    bad = spread = common = 0.0
    free = 0
    for told in steps:
        own, alone, alike = _spread(told)
        free += len(told) - 1
        bad, spread, common = bad + own, spread + alone, common + alike
    if bad == 0:
        return 1.0, free
    excess = max(spread - bad, 0.0)
    return (spread - min(max(common, 0.0), excess)) / bad, free


def _spread(told: Sequence[Pair]) -> tuple[float, float, float]:
    """Of one step: bad requests, the sum of squares about their mean, and the part that is common."""
    bad, requests = sum([p.new_bad for p in told]), sum([p.new for p in told])
    stable_bad, stable = sum([p.stable_bad for p in told]), sum([p.stable for p in told])
    rate, usual = bad / requests, stable_bad / stable
    spare = len(told) / (len(told) - 1)
    spread = math.fsum([(p.new_bad - p.new * rate) ** 2 for p in told])
    if not usual:
        return bad, spread * spare, 0.0
    # How far the stable release was off at the same time, in requests of the new one.
    common = math.fsum(
        [(p.new_bad - p.new * rate) * (p.stable_bad / (p.stable * usual) - 1) * p.new for p in told]
    )
    return bad, spread * spare, common * rate * spare


def _between(steps: Sequence[Sequence[Pair]]) -> tuple[float, int]:
    """Pearson's statistic of how the bad requests of each interval were divided, over what varies freely."""
    total, free = 0.0, 0
    for told in steps:
        own = [(p.new_bad, p.stable_bad, p.new / p.stable) for p in told if p.new_bad or p.stable_bad]
        bad, alike = sum([new for new, _, _ in own]), sum([stable * odds for _, stable, odds in own])
        if not bad or not alike:
            continue
        theta, free = bad / alike, free + len(own) - 1
        for new, stable, odds in own:
            expected = theta * odds / (theta * odds + 1)
            spread = (new + stable) * expected * (1 - expected)
            # None where one release had next to all requests, to the last digit of a float.
            total += (new - (new + stable) * expected) ** 2 / spread if spread else 0.0
    return (total / free, free) if free else (1.0, 0)


def _chance(free: int) -> float:
    """What independent requests stay below, nine times in ten (Wilson and Hilferty, PNAS 17, 1931)."""
    part = 2 / (9 * max(free, 1))
    return float((1 - part + BY_CHANCE * math.sqrt(part)) ** 3)
