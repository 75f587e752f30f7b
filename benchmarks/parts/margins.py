"""How many requests it takes to show that a release is no worse, simulated and planned. Called by `judge`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from penstock.analysis.judge import shown_no_worse
from penstock.analysis.power import least
from penstock.analysis.sequential import Pair
from penstock.core.canary import Rule

RUNS = 60
#: Each look is so much later than the one before: a median to within this.
GROWTH = 1.04
MOST = 400_000


@dataclass(frozen=True)
class Needed:
    """Requests of each release, both failing at *rate*: median, ninth decile, and what the plan says."""

    rate: float
    margin: str
    median: float
    most: float
    planned: float


MARGINS = {
    "2× or +1 point": Rule(0.0),
    "2×": Rule(0.0, points=0.0),
    "1.5× or +0.5 points": Rule(0.0, ratio=1.5, points=0.005),
    "+1 point": Rule(0.0, ratio=1.0),
}
RATES = (0.0, 0.001, 0.01, 0.05)


def needed(seed: int) -> list[Needed]:
    """Nothing can show that a rate of zero has not doubled: those are left out."""
    chance = np.random.default_rng(seed)
    return [
        _needed(chance, rate, name, rule)
        for rate in RATES
        for name, rule in MARGINS.items()
        if rate > 0 or rule.points > 0
    ]


def _needed(chance: np.random.Generator, rate: float, name: str, rule: Rule) -> Needed:
    at = [_first(chance, rate, rule) for _ in range(RUNS)]
    planned = least(lambda n: shown_no_worse([Pair(0, n, n * rate, n, n * rate)], rule.points, rule.ratio))
    return Needed(rate, name, float(np.median(at)), float(np.quantile(at, 0.9)), planned or np.inf)


def _first(chance: np.random.Generator, rate: float, rule: Rule) -> float:
    n = bad = stable_bad = 0
    step = 50.0
    while n < MOST:
        more = round(step)
        n, step = n + more, max(50.0, n * (GROWTH - 1))
        bad, stable_bad = bad + chance.binomial(more, rate), stable_bad + chance.binomial(more, rate)
        if shown_no_worse([Pair(0, n, bad, n, stable_bad)], rule.points, rule.ratio):
            return n
    return np.inf
