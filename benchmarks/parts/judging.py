"""The judge on thousands of runs at once, and the rules of the field beside it. Called by `benchmarks.judge`.

Runs are arrays (run, interval) of whole counts: requests and errors of the new and of the stable release.
What is computed here for all at once is what `penstock.analysis` says of one: `differing` compares.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from penstock.analysis import dispersion, exact, sequential
from penstock.analysis.judge import SEQUENTIAL, Arm, Span, judge
from penstock.analysis.sequential import Pair
from penstock.core.canary import Rule
from penstock.core.verdict import Result

Whole = NDArray[np.int64]
Real = NDArray[np.float64]

ALPHA = 0.01
INTERVALS = 50


@dataclass(frozen=True)
class Runs:
    """Requests *n* and errors *a* of the new release, *m* and *b* of the stable one; (run, interval).

    *steps* says how many intervals each step of the canary has.
    """

    n: Whole
    a: Whole
    m: Whole
    b: Whole
    steps: tuple[int, ...] = (INTERVALS,)

    @property
    def count(self) -> int:
        return int(self.n.shape[0])

    def first(self, count: int) -> Runs:
        return Runs(self.n[:count], self.a[:count], self.m[:count], self.b[:count], self.steps)


@dataclass(frozen=True)
class Stops:
    """At which interval (from 1) each run was stopped; 0 where it was not."""

    at: Whole

    @property
    def share(self) -> float:
        return float((self.at > 0).mean())

    def median(self, values: Whole) -> float:
        """The median over all runs of *values* until the stop; those that went on count as endless."""
        told = np.where(self.at > 0, values[np.arange(len(self.at)), np.maximum(self.at - 1, 0)], np.inf)
        return float(np.median(told))


# --- ours ------------------------------------------------------------------------------------------------


def ours(runs: Runs, *, clusters: bool = True, also: NDArray[np.bool_] | None = None) -> Stops:
    """The judge of one metric with all of alpha; without *clusters*, requests are believed independent. It
    stops only at looks at which what is asked *also* holds."""
    looks = np.arange(1, runs.n.shape[1] + 1)
    divisor = _clusters(runs) if clusters else np.ones(runs.n.shape)
    if clusters:
        divisor = np.where(looks < dispersion.ENOUGH, np.maximum(divisor, dispersion.UNMEASURED), divisor)
    asked = np.ones(runs.n.shape, dtype=bool) if also is None else also
    won = (_log_evidence(runs, divisor) >= math.log(1 / (ALPHA * SEQUENTIAL))) & asked
    at = np.where(won.any(1), won.argmax(1) + 1, 0)
    late = np.flatnonzero((at == 0) & asked[:, -1])
    last = _tails(runs, divisor[:, -1], late, runs.steps) <= ALPHA * (1 - SEQUENTIAL)
    at[late[last]] = looks[-1]
    return Stops(at)


def _log_evidence(runs: Runs, divisor: Real) -> Real:
    bad, share = runs.a + runs.b, runs.n / (runs.n + runs.m)
    won = runs.a.cumsum(1)
    logs = []
    for effect in sequential.EFFECTS:
        lost = (bad * np.log1p((effect - 1) * share)).cumsum(1)
        logs.append((won * math.log(effect) - lost) / divisor)
    top = np.maximum.reduce(logs)
    return top + np.log(sum(np.exp(one - top) for one in logs) / len(logs))


def _tails(runs: Runs, divisor: Real, which: NDArray[np.intp], steps: tuple[int, ...]) -> Real:
    """The exact test over all intervals of these runs, the *steps* kept apart."""
    starts = np.cumsum((0, *steps[:-1]))
    sums = [
        np.add.reduceat(x, starts, axis=1)[which] / divisor[which][:, None]
        for x in (runs.n, runs.a, runs.m, runs.b)
    ]
    n, a, m, b = np.round(sums[0]), np.floor(sums[1]), np.round(sums[2]), np.round(sums[3])
    rows = np.stack([np.maximum(n, a), a, np.maximum(m, b), b], axis=2).astype(int)
    return np.array([_tail(tuple(map(tuple, row))) for row in rows.tolist()])


@functools.lru_cache(maxsize=1_000_000)
def _tail(rows: tuple[tuple[int, int, int, int], ...]) -> float:
    # Far from any limit, no sum is needed.
    if sum(a - (a + b) * n / (n + m) for n, a, m, b in rows) <= 0:
        return 1.0
    return exact.tail([Pair(step, *row) for step, row in enumerate(rows)])


def _clusters(runs: Runs) -> Real:
    """`dispersion.ratio` at every look."""
    starts = np.cumsum((0, *runs.steps))
    found = np.ones(runs.n.shape)
    for look in range(1, runs.n.shape[1] + 1):
        steps = [slice(a, min(b, look)) for a, b in itertools.pairwise(starts) if min(b, look) - a > 1]
        if not steps:
            continue
        one, free = _within(runs, steps)
        other, others = _between(runs, steps)
        measured = np.maximum(one, other)
        chance = _chance(np.where(other > one, others, free))
        beyond = measured > np.maximum(dispersion.MOST, chance)
        found[:, look - 1] = np.where(beyond, np.minimum(measured, dispersion.LARGEST), 1.0)
    return found


def _chance(free: Whole) -> Real:
    part = 2 / (9 * np.maximum(free, 1))
    return (1 - part + dispersion.BY_CHANCE * np.sqrt(part)) ** 3


def _within(runs: Runs, steps: Sequence[slice]) -> tuple[Real, int]:
    bad, spread, common = (np.zeros(runs.count) for _ in range(3))
    free = 0
    for step in steps:
        n, a, m, b = (x[:, step].astype(float) for x in (runs.n, runs.a, runs.m, runs.b))
        rate, usual = (a.sum(1) / n.sum(1))[:, None], (b.sum(1) / m.sum(1))[:, None]
        count = n.shape[1]
        off, spare = a - n * rate, count / (count - 1)
        free += count - 1
        bad += a.sum(1)
        spread += (off**2).sum(1) * spare
        with np.errstate(divide="ignore", invalid="ignore"):
            beside = np.where(usual > 0, off * (b / (m * usual) - 1) * n * rate, 0.0)
        common += beside.sum(1) * spare
    excess = np.maximum(spread - bad, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (spread - np.minimum(np.maximum(common, 0.0), excess)) / bad
    return np.where(bad > 0, found, 1.0), free


def _between(runs: Runs, steps: Sequence[slice]) -> tuple[Real, Whole]:
    total, free = np.zeros(runs.count), np.zeros(runs.count, dtype=np.int64)
    for step in steps:
        n, a, m, b = (x[:, step].astype(float) for x in (runs.n, runs.a, runs.m, runs.b))
        both, odds = a + b, n / m
        alike = (b * odds).sum(1)
        seen = (a.sum(1) > 0) & (alike > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            theta = (a.sum(1) / alike)[:, None]
            expected = theta * odds / (theta * odds + 1)
            off = (a - both * expected) ** 2 / (both * expected * (1 - expected))
        total += np.where(seen, np.where(both > 0, off, 0.0).sum(1), 0.0)
        free += np.where(seen, (both > 0).sum(1) - 1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(free > 0, total / free, 1.0), free


def differing(runs: Runs) -> int:
    """For how many of these runs the judge itself, look by look, says something else than `ours`."""
    stops = ours(runs).at
    return sum(_stop_of(runs, index) != stops[index] for index in range(runs.count))


def _stop_of(runs: Runs, index: int) -> int:
    spans: list[Span] = []
    rows = zip(*(x[index].tolist() for x in (runs.n, runs.a, runs.m, runs.b)), strict=True)
    step = np.repeat(np.arange(len(runs.steps)), runs.steps).tolist()
    for look, (n, a, m, b) in enumerate(rows, 1):
        spans.append(Span(float(look), step[look - 1], Arm(n, a), Arm(m, b)))
        if judge(spans, Rule(planned=runs.n.shape[1], alpha=ALPHA)).verdict.result is Result.FAIL:
            return look
    return 0


# --- the rules beside it ---------------------------------------------------------------------------------


def fixed_horizon(runs: Runs) -> Stops:
    """One exact test of all requests, at the end."""
    everyone = np.arange(runs.count)
    found = _tails(runs, np.ones(runs.count), everyone, (INTERVALS,)) <= ALPHA
    return Stops(np.where(found, runs.n.shape[1], 0))


def thresholds(runs: Runs, *, rate: float, limit: int) -> Stops:
    """An interval with more than *rate* errors is a failed check; the *limit*-th of them stops the run."""
    failed = (runs.a > rate * runs.n).cumsum(1) >= limit
    return Stops(np.where(failed.any(1), failed.argmax(1) + 1, 0))


def mann_whitney(runs: Runs) -> Stops:
    """The rule of the field: at confidence 0.98, the shift between the counts per interval lies above a
    quarter of its estimate (Hodges and Lehmann). Asked once, at the end."""
    found = [_higher(runs.a[i], runs.b[i]) for i in range(runs.count)]
    return Stops(np.where(found, runs.n.shape[1], 0))


QUANTILE = NormalDist().inv_cdf(0.99)
SOLVED = 1e-4


def _higher(a: Whole, b: Whole) -> bool:
    if a.min() == a.max() and b.min() == b.max():
        return False  # two constant series: the rule adds noise to them, and finds nothing
    size = int(max(a.max(), b.max())) + 1
    table = _Shifts(np.bincount(a, minlength=size), np.bincount(b, minlength=size))
    low = table.root(QUANTILE, corrected=True)
    estimate = table.root(0.0, corrected=False)
    return low > 0.25 * abs(estimate)


class _Shifts:
    """The standardised rank sum of x - d and y for any shift d; between whole numbers it is constant."""

    def __init__(self, x: Whole, y: Whole) -> None:
        self._x, self._y = x, y
        self._count = (int(x.sum()), int(y.sum()))
        self._known: dict[tuple[float, bool], float] = {}
        values = np.flatnonzero(x), np.flatnonzero(y)
        self.least = float(values[0][0] - values[1][-1])
        self.most = float(values[0][-1] - values[1][0])

    def root(self, quantile: float, *, corrected: bool) -> float:
        def excess(shift: float) -> float:
            return self._standard(shift, corrected) - quantile

        if corrected and excess(self.least) <= 0:
            return self.least
        if corrected and excess(self.most) >= 0:
            return self.most
        return brent(excess, self.least, self.most, SOLVED)

    def _standard(self, shift: float, corrected: bool) -> float:
        key = (shift if shift == round(shift) else math.floor(shift) + 0.5, corrected)
        if key not in self._known:
            self._known[key] = self._computed(*key)
        return self._known[key]

    def _computed(self, shift: float, corrected: bool) -> float:
        x, y = self._x, self._y
        n, m = self._count
        places = np.arange(len(x)) - shift
        below = np.concatenate([[0], y.cumsum()])
        under = below[np.clip(np.ceil(places).astype(int), 0, len(y))]
        whole = shift == round(shift)
        ties = y.astype(float) ** 3 - y
        inside = np.clip(places.astype(int), 0, len(y) - 1)
        equal = np.where((places >= 0) & (places < len(y)), y[inside], 0) if whole else np.zeros(len(x))
        tied = float((ties).sum() + (x.astype(float) ** 3 - x).sum())
        if whole:
            together = x + equal
            tied += float(
                (together**3 - together - (x.astype(float) ** 3 - x) - (equal**3 - equal))[x > 0].sum()
            )
        off = float((x * (under + 0.5 * equal)).sum()) - n * m / 2
        spread = math.sqrt(n * m / 12 * ((n + m + 1) - tied / ((n + m) * (n + m - 1))))
        correction = math.copysign(0.5, off) if corrected and off else 0.0
        return (off - correction) / spread if spread else 0.0


def brent(function: Callable[[float], float], low: float, high: float, tolerance: float) -> float:
    """A root by Brent's method (*Algorithms for minimization without derivatives*, 1973, chapter 4)."""
    a, b, fa, fb = low, high, function(low), function(high)
    if fa == 0:
        return a
    c, fc, step, before = a, fa, b - a, b - a
    for _ in range(1000):
        if (fb > 0) == (fc > 0):
            c, fc, step, before = a, fa, b - a, b - a
        if abs(fc) < abs(fb):
            a, b, c, fa, fb, fc = b, c, b, fb, fc, fb
        near = 2 * np.finfo(float).eps * abs(b) + tolerance / 2
        half = (c - b) / 2
        if abs(half) <= near or fb == 0:
            break
        if abs(before) >= near and abs(fa) > abs(fb):
            before, step = step, _interpolated((a, b, c), (fa, fb, fc), before, near)
        else:
            before = step = half
        a, fa = b, fb
        b += step if abs(step) > near else math.copysign(near, half)
        fb = function(b)
    return b


def _interpolated(
    points: tuple[float, float, float], values: tuple[float, float, float], before: float, near: float
) -> float:
    """The next step by a line or a parabola; half of what is left if that leads too far."""
    (a, b, c), (fa, fb, fc) = points, values
    half, s = (c - b) / 2, fb / fa
    if a == c:
        p, q = 2 * half * s, 1 - s
    else:
        q, r = fa / fc, fb / fc
        p, q = s * (2 * half * q * (q - r) - (b - a) * (r - 1)), (q - 1) * (r - 1) * (s - 1)
    p, q = (p, -q) if p > 0 else (-p, q)
    good = p < min(1.5 * half * q - abs(near * q) / 2, abs(before * q / 2))
    return p / q if good else half
