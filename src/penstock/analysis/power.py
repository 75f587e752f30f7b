"""What a run could have seen, and what it would take: the judge's power, before and after.

Called by `judge` (for a run) and by `plan` (before one). Pure. Poisson counts, made normal by their square
roots (Anscombe, Biometrika 35, 1948; Gu, Ng, Tang, Schucany, *Testing the ratio of two Poisson rates*,
Biometrical Journal 50, 2008); `tests/unit/test_judge.py` compares it with simulated runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

from penstock.analysis.sequential import Pair, stable_rate

#: How often a regression of the size told would be found.
POWER = 0.8
#: More requests than anybody waits for.
ENDLESS = 1e9


def smallest_rate(steps: Sequence[Pair], alpha: float) -> float | None:
    """The smallest rate of the new release that this run's last look would find, `POWER` of the time.

    *steps* as `sequential.comparable` gives them. None if no rate would do.
    """
    if not steps:
        return None
    new = sum(p.new for p in steps)
    # As many requests of the stable release, evenly spread, would tell as much as those of all steps.
    stable = new * new / sum(p.new * p.new / p.stable for p in steps)
    expected = max(stable_rate(steps) * stable, 0.5)
    part = new / stable
    normal = NormalDist()
    far = (normal.inv_cdf(1 - alpha) + normal.inv_cdf(POWER)) * math.sqrt(1 + part) / 2
    bad = (math.sqrt(part * (expected + 0.375)) + far) ** 2 - 0.375
    return bad / new if bad <= new else None


def least(holds: Callable[[float], bool]) -> float | None:
    """The smallest number from 0 to `ENDLESS` at which *holds*, to a hundredth; None if there is none."""
    high = 1.0
    while not holds(high):
        high *= 2
        if high > ENDLESS:
            return None
    low = 0.0 if high == 1.0 else high / 2
    while high - low > 0.01 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
