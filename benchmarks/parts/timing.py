"""Quantiles of latency, judged on thousands of runs at once, beside other ways to judge latency. Called by
`benchmarks.judge`.

Latencies are log-normal, in the proxy's buckets: half of the requests take up to 8 ms, 95% up to 21 ms and
99% up to 32 ms. Both releases have as many requests in each interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from benchmarks.parts import judging
from benchmarks.parts.judging import ALPHA, INTERVALS, Real, Runs, Stops, Whole
from benchmarks.parts.telling import Goal, number, table

from penstock.adapters.envoy.config import BUCKETS
from penstock.analysis.judge import NO_WORSE, judge, slow_bound
from penstock.analysis.quantiles import Shares, difference, fixed, intervals, within_margin
from penstock.analysis.spans import Arm, Span
from penstock.core.canary import Latencies, Quantile, Rule
from penstock.core.verdict import Result

HALF_MS, SPREAD = 8.0, 0.6
SIZES = (30, 100, 300)
#: Of a draw, so many runs at once: each is two numbers for each bucket and interval.
CHUNK = 250
#: The bounds of the intervals are computed run by run.
FEWER = 200
SEARCHES = 40
UNLIKE = 20
GROWTH = 1.05
MOST = 200_000
SLOW_POINTS = 0.05
P95, P99 = Quantile(0.95, 1.5, 10.0), Quantile(0.99, 2.0, 10.0)


_normal = np.vectorize(lambda z: math.erfc(-z / math.sqrt(2)) / 2, otypes=[float])


def law(factor: Real | float = 1.0, late: float = 0.0) -> Real:
    """Probabilities of the buckets, and of more, if everything takes *factor* times as long, and a share of
    *late* requests 100 ms more. One law for each number in *factor*."""
    factors = np.asarray(factor, dtype=float)[..., None]
    bounds = np.array(BUCKETS, dtype=float)

    def under(at: Real) -> Real:
        far = (np.log(np.maximum(at, 1e-12)) - np.log(HALF_MS * factors)) / SPREAD
        return np.where(at > 0, _normal(far), 0.0)

    share = (1 - late) * under(bounds) + late * under(bounds - 100)
    return np.diff(share, prepend=0.0, append=1.0, axis=-1)


def _counts(probabilities: Real) -> dict[float, int]:
    """What a stable release with a long past has counted, cumulative by bound."""
    return dict(zip(map(float, BUCKETS), (1e6 * probabilities.cumsum()).astype(int).tolist(), strict=False))


STABLE = _counts(law())
FIXED = {quantile: fixed(STABLE, quantile) for quantile in (P95, P99)}
SLOW_MS = slow_bound(STABLE) or 0.0


@dataclass(frozen=True)
class Buckets:
    """Counts by run, interval and bucket, of the new release and of the stable one."""

    new: Whole
    stable: Whole

    def above(self, bound: float) -> Runs:
        first = BUCKETS.index(bound) + 1
        a, b = self.new[:, :, first:].sum(2), self.stable[:, :, first:].sum(2)
        return Runs(self.new.sum(2), a, self.stable.sum(2), b)

    def estimates(self, level: float) -> tuple[Real, Real]:
        """Of both releases' quantiles at each look."""
        return _quantile(self.new.cumsum(1), level), _quantile(self.stable.cumsum(1), level)

    def until(self, run: int, look: int) -> Shares:
        return Shares(self.latencies(run, look))

    def latencies(self, run: int, look: int) -> Latencies:
        new, stable = (x[run, :look].sum(0).tolist() for x in (self.new, self.stable))
        return Latencies(tuple(map(float, BUCKETS)), ((500, *new, *stable),))


def _quantile(counts: Whole, level: float) -> Real:
    """As `quantiles.estimates` has it, for all runs and looks."""
    bounds = np.array([0.0, *BUCKETS, BUCKETS[-1]], dtype=float)
    total = counts.sum(2, keepdims=True)
    longer = total - np.concatenate([np.zeros_like(total), counts.cumsum(2)], axis=2)
    left = (1 - level) * total
    index = (longer[:, :, 1:] <= left).argmax(2)[..., None]
    at, after = (np.take_along_axis(longer, i, 2)[..., 0] for i in (index, index + 1))
    low, high = bounds[index[..., 0]], bounds[index[..., 0] + 1]
    return low + (at - left[..., 0]) / np.maximum(at - after, 1e-9) * (high - low)


def drawn(chance: np.random.Generator, count: int, size: int, new: Real, stable: Real) -> Buckets:
    """*new* and *stable* are laws, for all or for each run and interval."""
    shape = (count, INTERVALS, len(BUCKETS) + 1)
    a, b = (chance.multinomial(size, np.broadcast_to(law_, shape)) for law_ in (new, stable))
    return Buckets(a, b)


# --- the ways to judge --------------------------------------------------------------------------------------


def counted(buckets: Buckets, quantile: Quantile) -> Stops:
    """The judge's: more requests above the bound, and the quantile beyond its margin."""
    new, stable = buckets.estimates(quantile.level)
    margin = np.maximum(stable * quantile.ratio, stable + quantile.ms)
    return judging.ours(buckets.above(FIXED[quantile].above_ms or 0.0), also=new > margin)


def slow(buckets: Buckets) -> Stops:
    """The judge's test on slow requests alone, with all of alpha."""
    runs = buckets.above(SLOW_MS)
    rise = runs.a.cumsum(1) / runs.n.cumsum(1) - runs.b.cumsum(1) / runs.m.cumsum(1)
    return judging.ours(runs, also=rise > SLOW_POINTS)


def bounded(buckets: Buckets, quantile: Quantile) -> Stops:
    """By the interval alone, at the last look: the new release's quantile is shown to be above the stable
    one's, and is beyond its margin. Half of alpha for either end."""
    ours, theirs = (of[:, -1] for of in buckets.estimates(quantile.level))
    far = ours > np.maximum(theirs * quantile.ratio, theirs + quantile.ms)
    found = []
    for run in range(min(FEWER, len(buckets.new))):
        new, stable = intervals(buckets.until(run, INTERVALS), quantile.level, ALPHA / 2)
        found.append(INTERVALS if far[run] and difference(new, stable).low >= 0 else 0)
    return Stops(np.array(found))


# --- detection -------------------------------------------------------------------------------------------


TWICE = "2 times as slow"
SLOWED = {
    "no slower": law(),
    "1.25 times as slow": law(1.25),
    "1.5 times as slow": law(1.5),
    TWICE: law(2.0),
    "3 times as slow": law(3.0),
    "2% take 100 ms more": law(late=0.02),
    "10% take 100 ms more": law(late=0.1),
}


@dataclass(frozen=True)
class Detected:
    """Shares of runs that were stopped; *median* requests until the first of the two quantiles' tests."""

    requests: int
    slowed: str
    p95: float
    p99: float
    slow: float
    p95_bounds: float
    p99_bounds: float
    median: float


def detected(seed: int, runs: int) -> list[Detected]:
    chance = np.random.default_rng(seed)
    return [_detected(chance, size, slowed, runs) for size in SIZES for slowed in SLOWED]


def _detected(chance: np.random.Generator, size: int, slowed: str, runs: int) -> Detected:
    parts = [drawn(chance, CHUNK, size, SLOWED[slowed], law()) for _ in range(max(1, runs // CHUNK))]
    p95, p99 = (Stops(np.concatenate([counted(b, q).at for b in parts])) for q in (P95, P99))
    either = Stops(
        np.where((p95.at > 0) & (p99.at > 0), np.minimum(p95.at, p99.at), np.maximum(p95.at, p99.at))
    )
    return Detected(
        requests=size,
        slowed=slowed,
        p95=p95.share,
        p99=p99.share,
        slow=float(np.mean([slow(b).share for b in parts])),
        p95_bounds=bounded(parts[0], P95).share,
        p99_bounds=bounded(parts[0], P99).share,
        median=either.median(size * np.arange(1, INTERVALS + 1) * np.ones((len(either.at), 1), dtype=int)),
    )


# --- false alarms ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Varying:
    """*laws* of both releases for so many runs; *common* if what varies does so for both."""

    name: str
    common: bool
    laws: Callable[[np.random.Generator, int], tuple[Real, Real]]


def _drift(_chance: np.random.Generator, _count: int) -> tuple[Real, Real]:
    factors = np.linspace(0.7, 2.5, INTERVALS)
    return law(factors), law(factors)


def _busy(chance: np.random.Generator, count: int) -> tuple[Real, Real]:
    factors = np.where(chance.random((count, INTERVALS)) < 0.1, 6.0, 1.0)
    both = law(factors)
    return both, both


def _own(spread: float) -> Callable[[np.random.Generator, int], tuple[Real, Real]]:
    def laws(chance: np.random.Generator, count: int) -> tuple[Real, Real]:
        one, other = (law(np.exp(chance.normal(0, spread, (count, INTERVALS)))) for _ in range(2))
        return one, other

    return laws


VARYING = (
    Varying("steady", True, lambda _, __: (law(), law())),
    Varying("slower and slower, 3.6 times at the end", True, _drift),
    Varying("one interval in ten six times as slow", True, _busy),
    Varying("intervals of each release's own, 20% apart", False, _own(0.2)),
    Varying("intervals of each release's own, 50% apart", False, _own(0.5)),
)


@dataclass(frozen=True)
class TimingAlarms:
    """*p95*, *p99*: runs stopped. *unfiltered*: where p95 need not be beyond its margin. *wrong*: runs whose
    interval of p95 missed the truth at some look."""

    name: str
    common: bool
    p95: float
    p99: float
    unfiltered: float
    wrong: float


def alarms(seed: int, runs: int) -> list[TimingAlarms]:
    chance = np.random.default_rng(seed)
    return [_alarms(chance, varying, runs) for varying in VARYING]


def _alarms(chance: np.random.Generator, varying: Varying, runs: int) -> TimingAlarms:
    found: dict[str, list[float]] = {"p95": [], "p99": [], "unfiltered": []}
    wrong: list[bool] = []
    for _ in range(max(1, runs // CHUNK)):
        buckets = drawn(chance, CHUNK, 100, *varying.laws(chance, CHUNK))
        found["p95"].append(counted(buckets, P95).share)
        found["p99"].append(counted(buckets, P99).share)
        found["unfiltered"].append(judging.ours(buckets.above(FIXED[P95].above_ms or 0.0)).share)
        wrong += [_missed(buckets, run) for run in range(0 if len(wrong) >= FEWER else CHUNK)]
    means = {name: float(np.mean(shares)) for name, shares in found.items()}
    return TimingAlarms(varying.name, varying.common, wrong=float(np.mean(wrong)), **means)


def _missed(buckets: Buckets, run: int) -> bool:
    for look in range(5, INTERVALS + 1, 5):
        bounds = difference(*intervals(buckets.until(run, look), P95.level, NO_WORSE / 4))
        if not bounds.low <= 0 <= bounds.high:
            return True
    return False


def unlike(seed: int) -> int:
    """For how many runs the judge itself, look by look, says something else than `counted`."""
    chance = np.random.default_rng(seed)
    rule = Rule(float(INTERVALS), alpha=2 * ALPHA, quantiles=(FIXED[P95],))
    different = 0
    for factor in (1.0, 1.7, 2.5):
        buckets = drawn(chance, UNLIKE, 100, law(factor), law())
        stops = counted(buckets, P95).at
        different += sum(_stop_of(buckets, run, rule) != stops[run] for run in range(UNLIKE))
    return different


def _stop_of(buckets: Buckets, run: int, rule: Rule) -> int:
    above, spans = buckets.above(rule.judged[0].above_ms or 0.0), []
    for look in range(1, INTERVALS + 1):
        n, a, m, b = (int(x[run, look - 1]) for x in (above.n, above.a, above.m, above.b))
        spans.append(Span(float(look), 500, Arm(n, 0, 0, (a,)), Arm(m, 0, 0, (b,))))
        if judge(spans, rule, buckets.latencies(run, look)).verdict.result is Result.FAIL:
            return look
    return 0


# --- no worse --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TimingNeeded:
    """Requests of each release until a quantile is shown to be within its margin, both alike."""

    name: str
    margin: str
    median: float
    most: float


def needed(seed: int) -> list[TimingNeeded]:
    chance = np.random.default_rng(seed)
    margins = {"1.5× or +10 ms": (1.5, 10.0), "2× or +10 ms": (2.0, 10.0), "3× or +10 ms": (3.0, 10.0)}
    found = []
    for level in (0.5, 0.95, 0.99):
        for name, (ratio, ms) in margins.items():
            at = [_first(chance, Quantile(level, ratio, ms)) for _ in range(SEARCHES)]
            told = float(np.median(at)), float(np.quantile(at, 0.9))
            found.append(TimingNeeded(f"p{100 * level:g}", name, *told))
    return found


def _first(chance: np.random.Generator, quantile: Quantile) -> float:
    both, n = [np.zeros(len(BUCKETS) + 1, dtype=int) for _ in range(2)], 0
    while n < MOST:
        more = max(50, round(n * (GROWTH - 1)))
        n, both = n + more, [counts + chance.multinomial(more, law()) for counts in both]
        row = (500, *both[0].tolist(), *both[1].tolist())
        shares = Shares(Latencies(tuple(map(float, BUCKETS)), (row,)))
        if within_margin(*intervals(shares, quantile.level, NO_WORSE / 4), quantile):
            return float(n)
    return np.inf


# --- telling ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timings:
    detected: Sequence[Detected]
    alarms: Sequence[TimingAlarms]
    needed: Sequence[TimingNeeded]
    unlike: int
    runs: int

    def goals(self) -> list[Goal]:
        common = [a for a in self.alarms if a.common]
        most = max(max(a.p95, a.p99, a.unfiltered) for a in common)
        limit = ALPHA + 3 * (ALPHA * (1 - ALPHA) / self.runs) ** 0.5
        wrong = max(a.wrong for a in common)
        found = min(d.p95 for d in self.detected if d.slowed == TWICE and d.requests >= 100)
        same = f"{self.unlike} of {3 * UNLIKE} differ"
        return [
            Goal("the same of quantiles, and without margins", most <= limit, f"{most:.2%} of {limit:.2%}"),
            Goal("outside their intervals at some look: 5% at most", wrong <= NO_WORSE, f"{wrong:.2%}"),
            Goal("twice as slow, 100 requests: p95 finds it in 99%", found >= 0.99, f"{found:.2%}"),
            Goal("the judge itself says the same of p95, run by run", self.unlike == 0, same),
        ]

    def tables(self) -> str:
        parts = [
            "## Quantiles: false alarms\n",
            table(
                ("what varies", "p95", "p99", "p95 without margin", "p95 outside its interval"),
                [(a.name, *map(_share, (a.p95, a.p99, a.unfiltered, a.wrong))) for a in self.alarms],
            ),
            "\n## Quantiles: detection\n",
            table(
                ("requests per interval", "new", "p95", "p99", "slow", "p95, bounds", "p99, bounds",
                 "median requests until p95 or p99 stops it"),
                [
                    (d.requests, d.slowed,
                     *map(_share, (d.p95, d.p99, d.slow, d.p95_bounds, d.p99_bounds)), number(d.median))
                    for d in self.detected
                ],
            ),
            "\n## Quantiles: requests until it is shown that the new release is no worse\n",
            table(
                ("quantile", "margin", "median", "nine in ten"),
                [(n.name, n.margin, number(n.median), number(n.most)) for n in self.needed],
            ),
        ]  # fmt: skip
        return "\n".join(parts) + "\n"

    def figures(self) -> dict[str, float]:
        told = {f"{d.requests} requests, {d.slowed}: {name}": found for d in self.detected
                for name, found in (("p95", d.p95), ("p99", d.p99), ("slow", d.slow))}  # fmt: skip
        told |= {f"quantile false alarms, {a.name}": a.p95 for a in self.alarms}
        return told | {f"no worse, {n.name}, {n.margin}": n.median for n in self.needed}


def _share(value: float) -> str:
    return f"{value:.1%}"


def measured(seed: int, runs: int) -> Timings:
    return Timings(detected(seed, runs), alarms(seed + 1, runs), needed(seed + 2), unlike(seed + 3), runs)
