"""How good the canary judge is: false alarms, detection, requests until detection, beside the field's rules.

    benchmarks/judge.py [--json FILE] [--runs N] [--markdown FILE]

Every run has 50 intervals; every rule has α 0.01 and one metric, failed requests or a quantile of latency.
The judge looks after every interval. Seeded: the same figures each time. Goals are printed as met or not; the
exit code is 1 if one is not.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Found from anywhere, like the other benchmarks.
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.parts import judging, timing
from benchmarks.parts.judging import ALPHA, INTERVALS, Real, Runs, Stops
from benchmarks.parts.margins import Needed, needed
from benchmarks.parts.telling import Goal, number, table

from penstock.analysis.judge import Arm, Span, judge
from penstock.core.canary import Rule
from penstock.core.verdict import Result

SEED = 20261127
#: Solving for the shift of two samples takes a millisecond for each run.
FEWER = 10
#: A histogram is forty numbers where a count is one.
TIMED = 5
SIZES = (10, 30, 100, 300, 1000)
EFFECTS = {0.001: (1.0, 2.0, 3.0, 5.0, 10.0, 30.0), 0.01: (1.0, 1.5, 2.0, 3.0, 5.0)}
VERDICT_INTERVALS = 10_000


@dataclass(frozen=True)
class Cell:
    """One place of the grid: *requests* of each release in an interval, the stable rate, times *effect*."""

    requests: int
    rate: float
    effect: float
    found: dict[str, float]
    median: float
    intervals: float

    @property
    def name(self) -> str:
        return f"{self.requests} requests, {self.rate:.1%} × {self.effect:g}"


@dataclass(frozen=True)
class Shape:
    """*kind*: what varies is `common` to both, comes in `clusters` of each, or is `beyond` the promise."""

    name: str
    kind: str
    runs: Callable[[np.random.Generator, int], Runs]


RULES: dict[str, Callable[[Runs], Stops]] = {
    "judge": judging.ours,
    "exact": judging.fixed_horizon,
    "mann-whitney": lambda runs: judging.mann_whitney(runs.first(max(200, runs.count // FEWER))),
    "1% once": lambda runs: judging.thresholds(runs, rate=0.01, limit=1),
    "1% five times": lambda runs: judging.thresholds(runs, rate=0.01, limit=5),
}


# --- detection -------------------------------------------------------------------------------------------


def grid(runs: int) -> list[Cell]:
    chance = np.random.default_rng(SEED)
    return [
        cell(chance, size, rate, effect, runs)
        for rate, effects in EFFECTS.items()
        for size in SIZES
        for effect in effects
    ]


def cell(chance: np.random.Generator, size: int, rate: float, effect: float, count: int) -> Cell:
    shape = (count, INTERVALS)
    requests = np.full(shape, size)
    runs = Runs(
        requests, chance.binomial(size, rate * effect, shape), requests, chance.binomial(size, rate, shape)
    )
    stops = {name: rule(runs) for name, rule in RULES.items()}
    found = {name: stop.share for name, stop in stops.items()}
    at = np.where(stops["judge"].at > 0, stops["judge"].at, np.inf)
    return Cell(size, rate, effect, found, stops["judge"].median(requests.cumsum(1)), float(np.median(at)))


# --- false alarms ----------------------------------------------------------------------------------------


def drawn(chance: np.random.Generator, requests: Real, rates: Real) -> Runs:
    """Both releases have these rates; each has its own requests, on average *requests* in each interval."""
    n, m = (np.maximum(chance.poisson(requests), 1) for _ in range(2))
    return Runs(n, chance.binomial(n, rates), m, chance.binomial(m, rates))


def steady(chance: np.random.Generator, count: int) -> Runs:
    flat = np.ones((count, INTERVALS))
    return drawn(chance, 100 * flat, 0.01 * flat)


def daily(chance: np.random.Generator, count: int) -> Runs:
    start = chance.uniform(0, 2 * np.pi, (count, 1))
    wave = 1 + 0.8 * np.sin(start + np.linspace(0, 2 * np.pi, INTERVALS))
    return drawn(chance, 100 * wave, 0.01 * wave)


def bursty(chance: np.random.Generator, count: int) -> Runs:
    shape = (count, INTERVALS)
    return drawn(
        chance,
        np.where(chance.random(shape) < 0.1, 500.0, 55.0),
        np.where(chance.random(shape) < 0.1, 0.1, 0.002),
    )


def drift(chance: np.random.Generator, count: int) -> Runs:
    slope = np.linspace(0.2, 3.0, INTERVALS) * np.ones((count, 1))
    return drawn(chance, 100 + 0 * slope, 0.01 * slope)


def stepped(chance: np.random.Generator, count: int) -> Runs:
    """5, 25, 50% of 200 requests, and an outage of both during the last step."""
    steps = (16, 17, 17)
    share = np.repeat((0.05, 0.25, 0.5), steps) * np.ones((count, 1))
    rate = np.repeat((0.005, 0.005, 0.03), steps) * np.ones((count, 1))
    n = np.maximum(chance.poisson(200 * share), 1)
    m = np.maximum(chance.poisson(200 * (1 - share)), 1)
    return Runs(n, chance.binomial(n, rate), m, chance.binomial(m, rate), steps)


def clustered(ratio: float) -> Callable[[np.random.Generator, int], Runs]:
    """Each release has bad intervals of its own: the variance is *ratio* times that of single errors."""

    def runs(chance: np.random.Generator, count: int) -> Runs:
        shape = (count, INTERVALS)
        requests = np.full(shape, 500)
        a, b = (chance.poisson(chance.gamma(5 / (ratio - 1), ratio - 1, shape)) for _ in range(2))
        return Runs(requests, a, requests, b)

    return runs


def retried(chance: np.random.Generator, count: int) -> Runs:
    """Each error comes three times."""
    shape = (count, INTERVALS)
    requests = np.full(shape, 500)
    return Runs(requests, 3 * chance.poisson(5 / 3, shape), requests, 3 * chance.poisson(5 / 3, shape))


SHAPES = (
    Shape("steady", "common", steady),
    Shape("daily", "common", daily),
    Shape("bursty: outages of both", "common", bursty),
    Shape("drift common to both", "common", drift),
    Shape("5, 25, 50%, outage in the last step", "common", stepped),
    Shape("variance ratio 2 within each", "clusters", clustered(2.0)),
    Shape("variance ratio 4 within each", "clusters", clustered(4.0)),
    Shape("each error three times", "clusters", retried),
    Shape("variance ratio 8: too large to be promised", "beyond", clustered(8.0)),
)


@dataclass(frozen=True)
class Alarms:
    shape: Shape
    judge: float
    requests_alone: float
    exact: float


def alarms(runs: int) -> list[Alarms]:
    chance = np.random.default_rng(SEED + 1)
    found = []
    for shape in SHAPES:
        drawn_runs = shape.runs(chance, runs)
        found.append(
            Alarms(
                shape,
                judging.ours(drawn_runs).share,
                judging.ours(drawn_runs, clusters=False).share,
                judging.fixed_horizon(drawn_runs).share,
            )
        )
    return found


# --- goals -----------------------------------------------------------------------------------------------


def goals(cells: Sequence[Cell], found: Sequence[Alarms], runs: int) -> list[Goal]:
    tenfold = next(c for c in cells if (c.requests, c.rate, c.effect) == (100, 0.001, 10.0))
    real = [c for c in cells if c.effect > 1]
    sure = [c for c in real if c.found["exact"] >= 0.999]
    least = min(c.found["judge"] for c in sure)
    loss = max(c.found["exact"] - c.found["judge"] for c in real)
    error = 3 * (ALPHA * (1 - ALPHA) / runs) ** 0.5
    most = max(
        [a.judge for a in found if a.shape.kind == "common"]
        + [c.found["judge"] for c in cells if c.effect == 1]
    )
    clusters = max(a.judge for a in found if a.shape.kind == "clusters")
    backwards = list(falls(cells, runs))
    passes, seconds, differing = without_data(runs), verdict_seconds(), unlike()
    within = most <= ALPHA + error
    timed = f"{seconds * 1000:.0f} ms"
    return [
        Goal("false alarms: α + 3 standard errors at most", within, f"{most:.2%} of {ALPHA + error:.2%}"),
        Goal("detection 99% wherever the exact test reaches 99.9%", least >= 0.99, f"{least:.2%} at least"),
        Goal("at most 0.06 below the exact test anywhere", loss <= 0.06, f"{loss:.3f}"),
        Goal(
            "ten-fold rise, 0.1%, 100 requests: median interval 17 at most",
            tenfold.intervals <= 17,
            f"{tenfold.intervals:g} of {INTERVALS}",
        ),
        Goal("monotone in the effect", not backwards, ", ".join(backwards) or "everywhere"),
        Goal("no pass without data", passes == 0, f"{passes} of {runs}"),
        Goal("clusters within one release: 3% false alarms at most", clusters <= 0.03, f"{clusters:.2%}"),
        Goal("a verdict on 10,000 intervals in less than 50 ms", seconds < 0.05, timed),
        Goal("the judge itself says the same, run by run", differing == 0, f"{differing} of {UNLIKE} differ"),
    ]


def falls(cells: Sequence[Cell], runs: int) -> Iterable[str]:
    """Where a greater effect is found less often, by more than chance gives."""
    for before, after in itertools.pairwise(cells):
        p = before.found["judge"]
        chance = 3 * (2 * max(p * (1 - p), 1 / runs) / runs) ** 0.5
        if after.effect > before.effect and after.found["judge"] < p - chance:
            yield after.name


def without_data(runs: int) -> int:
    """How many of these series without a request on one side, or on both, pass."""
    chance = np.random.default_rng(SEED + 2)
    passed = 0
    for _ in range(runs):
        n, m = ((0, 0), (0, 100), (100, 0))[int(chance.integers(3))]
        spans = [Span(float(k), 500, Arm(n, 0), Arm(m, 0)) for k in range(1, int(chance.integers(1, 50)))]
        passed += judge(spans, Rule(planned=50.0)).verdict.result is Result.PASS
    return passed


def verdict_seconds() -> float:
    """Of the processor, and the fastest of a few: others may be at work beside us."""
    chance = np.random.default_rng(SEED + 3)
    a, b = (chance.binomial(100, 0.002, VERDICT_INTERVALS).tolist() for _ in range(2))
    spans = [
        Span(float(k), 500, Arm(100, x, x), Arm(100, y, y)) for k, (x, y) in enumerate(zip(a, b, strict=True))
    ]
    rule = Rule(planned=VERDICT_INTERVALS - 1.0, slow_ms=50.0)
    times = []
    for _ in range(7):
        began = time.process_time()
        judge(spans, rule)
        times.append(time.process_time() - began)
    return min(times)


UNLIKE = 120


def unlike() -> int:
    chance = np.random.default_rng(SEED + 4)
    each = UNLIKE // 4
    some = [shape(chance, each) for shape in (steady, stepped, clustered(4.0), retried)]
    return sum(judging.differing(runs) for runs in some)


# --- telling ---------------------------------------------------------------------------------------------


def tables(
    cells: Sequence[Cell], found: Sequence[Alarms], margins: Sequence[Needed], met: Sequence[Goal]
) -> str:
    kept = [(n.rate, n.margin, n.median, n.most, n.planned) for n in margins]
    parts = [
        "## Goals\n",
        table(("goal", "", "figure"), [(g.what, "met" if g.met else "**not met**", g.figure) for g in met]),
        "\n## False alarms\n",
        table(
            ("both are alike; what varies", "judge", "judge without clusters", "exact, pooled"),
            [(a.shape.name, f"{a.judge:.2%}", f"{a.requests_alone:.2%}", f"{a.exact:.2%}") for a in found],
        ),
        "\n## Detection\n",
        table(
            ("requests per interval", "stable", "new", *RULES, "median requests until it stops", "interval"),
            [
                (c.requests, f"{c.rate:.1%}", f"{c.rate * c.effect:.1%}",
                 *(f"{c.found[name]:.1%}" for name in RULES), number(c.median), number(c.intervals))
                for c in cells
            ],
        ),
        "\n## Requests until it is shown that the new release is no worse\n",
        table(
            ("both fail", "margin", "median", "nine in ten", "planned"),
            [(f"{rate:.1%}", margin, *map(number, counts)) for rate, margin, *counts in kept],
        ),
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


INTRODUCTION = """# The canary judge, measured

Written by `benchmarks/judge.py --runs {runs} --markdown docs/reference/judge.md`; do not edit.
What the judge does and why says [the guide](../guides/canary.md).

Each run has {intervals} intervals with a look after each of them, equal traffic for both releases unless it
says otherwise, α {alpha:.0%}, and one metric. The rules beside the judge:

* **exact**: one exact test of all requests at the end (Fisher), at the same α. It cannot stop earlier.
* **mann-whitney**: the field's reference judge at its defaults. The shift between the two series of counts,
  with a confidence of 0.98; worse if the whole interval lies above a quarter of its estimate. Asked once, at
  the end; on {fewer} runs.
* **1% once**, **1% five times**: an interval with more than 1% errors is a failed check; so many of them stop
  the run.

Latencies are log-normal: half up to 8 ms, 95% up to 21 ms, 99% up to 32 ms, in the proxy's buckets; on
{timed} runs. The margin of p95 is 1.5 times or 10 ms, that of p99 twice or 10 ms, whichever is more: one that
is just as much slower is hardly beyond it. Beside the judge's test of a quantile:

* **slow**: its test on the share of slow requests, above {slow:g} ms here and with a margin of 5 points.
* **bounds**: what the interval of the quantile would find by itself, at the last look and with the same α
  and margin; on 200 runs.
"""


def page(runs: int, body: str) -> str:
    fewer = max(200, runs // FEWER)
    timed = f"{max(timing.CHUNK, runs // TIMED):,}"
    head = INTRODUCTION.format(
        runs=runs,
        intervals=INTERVALS,
        alpha=ALPHA,
        fewer=f"{min(fewer, runs):,}",
        timed=timed,
        slow=timing.SLOW_MS,
    )
    return f"{head}\n{body}"


def figures(cells: Sequence[Cell], found: Sequence[Alarms], margins: Sequence[Needed]) -> dict[str, float]:
    told = {f"{c.name}: {rule}": share for c in cells for rule, share in c.found.items()}
    told |= {f"{c.name}: median requests": c.median for c in cells if np.isfinite(c.median)}
    told |= {f"false alarms, {a.shape.name}": a.judge for a in found}
    return told | {f"no worse, {n.rate:.1%}, {n.margin}": n.median for n in margins if np.isfinite(n.median)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--runs", type=int, default=10_000, help="of each kind (default 10,000)")
    parser.add_argument("--markdown", type=Path, help="write the page of the reference here")
    given = parser.parse_args()
    if given.runs < 200:
        parser.error("--runs: 200 or more, or chance decides which goals are met")
    cells, found, margins = grid(given.runs), alarms(given.runs), needed(SEED)
    timed = timing.measured(SEED, max(timing.CHUNK, given.runs // TIMED))
    met = goals(cells, found, given.runs) + timed.goals()
    body = f"{tables(cells, found, margins, met)}\n{timed.tables()}"
    print(body)
    if given.markdown:
        given.markdown.write_text(page(given.runs, body), encoding="utf-8")
    if given.json:
        given.json.write_text(
            json.dumps({"figures": figures(cells, found, margins) | timed.figures()}, indent=2) + "\n"
        )
    return 0 if all(goal.met for goal in met) else 1


if __name__ == "__main__":
    sys.exit(main())
