"""How well an experiment's judge does: false alarms, detection, users until detection, and mismatches.

    benchmarks/experiments.py [--runs N] [--json FILE]

Everything is simulated with a fixed seed: users are dealt by chance, some of them reach the goal, and the
judge looks at 200 evenly spaced times. Beside it, with the same users: the two-sided test of two proportions
at the last look alone (what a fixed horizon allows), and the same test read at every look (what people do).
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from penstock.analysis.experiment import SRM_ALPHA, SRM_USERS, mismatch, plan, ratio_bounds
from penstock.core.experiment import Arm, Goal, Plan, Terms, Variant

LOOKS = 200
TERMS = Terms(effect=0.1)
#: (rate of the control, share of the variant in thousandths, users at the end)
NULL = ((0.05, 500, 40_000), (0.30, 500, 40_000), (0.05, 100, 40_000), (0.01, 500, 20_000))
#: (rate of the control, relative change)
CHANGED = ((0.05, 0.05), (0.05, 0.1), (0.05, 0.2), (0.05, 0.4), (0.30, 0.1))
SKEWED = (0.0, 0.01, 0.02, 0.05)

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Runs:
    """Cumulative counts of many runs at every look: [run, look]."""

    users: tuple[Counts, Counts]
    reached: tuple[Counts, Counts]
    share: int

    def arms(self, run: int, look: int) -> tuple[Arm, Arm]:
        shares = (1000 - self.share, self.share)
        control, variant = (
            Arm(name, name, share, int(users[run, look]), int(reached[run, look]))
            for name, share, users, reached in zip("cv", shares, self.users, self.reached, strict=True)
        )
        return control, variant


def simulated(
    seed: int, runs: int, users: int, share: int, rates: tuple[float, float], skew: float = 0.0
) -> Runs:
    """*skew* is how many of the variant's users (0 to 1) are lost before they are counted."""
    random = np.random.default_rng(seed)
    each = users // LOOKS
    variant = random.binomial(each, share / 1000, (runs, LOOKS))
    control = each - variant
    variant = random.binomial(variant, 1 - skew)
    reached = random.binomial(control, rates[0]), random.binomial(variant, rates[1])
    summed = [counts.cumsum(axis=1) for counts in (control, variant, *reached)]
    return Runs((summed[0], summed[1]), (summed[2], summed[3]), share)


def evidence(runs: Runs, terms: Terms) -> NDArray[np.float64]:
    """The logarithm of what is won against "no difference", for all runs and looks at once."""
    part = runs.share / 1000
    spread = 1 / (part * (1 - part) * math.log1p(terms.effect) ** 2)
    return _bet((runs.reached[1], runs.reached[0]), (part, 1 - part), spread)


def unlike(runs: Runs) -> NDArray[np.float64]:
    """The logarithm of what is won against the shares, as `mismatch` bets."""
    part = runs.share / 1000
    logs = [_bet((runs.users[1], runs.users[0]), (part, 1 - part), spread) for spread in SRM_USERS]
    return np.asarray(np.logaddexp.reduce(logs, axis=0) - math.log(len(logs)))


def _bet(counts: tuple[Counts, Counts], shares: tuple[float, float], spread: float) -> NDArray[np.float64]:
    total = -_rising(spread, counts[0] + counts[1])
    for count, share in zip(counts, shares, strict=True):
        total = total + _rising(spread * share, count) - count * math.log(share)
    return np.asarray(total)


def _rising(start: float, counts: Counts) -> NDArray[np.float64]:
    """The logarithm of start (start + 1) … (start + count - 1)."""
    table = np.concatenate([[0.0], np.log(start + np.arange(counts.max())).cumsum()])
    return np.asarray(table[counts])


def up(runs: Runs) -> NDArray[np.bool_]:
    """Whether the variant's rate is the higher one of those who reached the goal."""
    return np.asarray(runs.reached[1] * (1000 - runs.share) > runs.reached[0] * runs.share)


def first(shown: NDArray[np.bool_]) -> list[int]:
    """The looks at which runs first show it, of those that do."""
    return [int(look) for look, any_ in zip(shown.argmax(axis=1), shown.any(axis=1), strict=True) if any_]


def agree(runs: Runs, terms: Terms, count: int = 40) -> int:
    """How many of so many looks the judge itself sees otherwise than these formulas."""
    picked = np.random.default_rng(1).integers((len(runs.users[0]), LOOKS), size=(count, 2))
    won = evidence(runs, terms) >= math.log(1 / terms.alpha)
    odd = 0
    for run, look in picked:
        bounds = ratio_bounds(*runs.arms(run, look), terms.alpha, terms)
        odd += bool(won[run, look]) != (bounds.low > 1 or bounds.high < 1)
        arms = runs.arms(run, look)
        odd += bool(unlike(runs)[run, look] >= math.log(1 / SRM_ALPHA)) != (mismatch(arms) <= SRM_ALPHA)
    return odd


def proportions(runs: Runs) -> NDArray[np.bool_]:
    """Whether the fixed test of two proportions would be significant, at each look."""
    (n, m), (a, b) = runs.users, runs.reached
    pooled = (a + b) / np.maximum(n + m, 1)
    spread = np.sqrt(
        np.maximum(pooled * (1 - pooled) * (1 / np.maximum(n, 1) + 1 / np.maximum(m, 1)), 1e-300)
    )
    z = np.abs(b / np.maximum(m, 1) - a / np.maximum(n, 1)) / spread
    return np.asarray(z >= NormalDist().inv_cdf(1 - TERMS.alpha / 2))


def error(rate: float, runs: int) -> float:
    return math.sqrt(max(rate * (1 - rate), 1e-9) / runs)


def false_alarms(runs: int, figures: dict[str, float]) -> None:
    print(f"\nfalse alarms of {runs} runs without a difference, {LOOKS} looks each, alpha {TERMS.alpha}")
    print("  rate  share   users    judge  fixed, last look  fixed, every look")
    for number, (rate, share, users) in enumerate(NULL):
        made = simulated(number, runs, users, share, (rate, rate))
        judged = len(first(evidence(made, TERMS) >= math.log(1 / TERMS.alpha))) / runs
        fixed = proportions(made)
        last, ever = float(fixed[:, -1].mean()), float(fixed[:, 5:].any(axis=1).mean())
        print(f"{rate:>6.0%} {share / 1000:>6.0%} {users:>7} {judged:>8.3f} {last:>17.3f} {ever:>18.3f}")
        name = f"null_{rate:g}_{share}"
        figures |= {f"{name}_judge": judged, f"{name}_fixed_last": last, f"{name}_fixed_every": ever}
        assert judged <= TERMS.alpha + 3 * error(TERMS.alpha, runs), "more false alarms than were promised"


def detection(runs: int, figures: dict[str, float]) -> None:
    print(f"\n{runs} runs with a difference; users: as many as the planner asks for")
    print("  rate  change  planned  found  median users  fixed test  ratio")
    for number, (rate, change) in enumerate(CHANGED):
        terms = Terms(effect=change)
        asked = Plan("x", "x", Goal("/"), terms, (Variant("v", {"X": 1}, 500),), "")
        planned = plan(asked, rate, 0)
        users = math.ceil(planned.users / LOOKS) * LOOKS
        made = simulated(100 + number, runs, users, 500, (rate, rate * (1 + change)))
        looks = first((evidence(made, terms) >= math.log(1 / terms.alpha)) & up(made))
        found = len(looks) / runs
        times = sorted([(look + 1) * users // LOOKS for look in looks] + [users] * (runs - len(looks)))
        median = times[runs // 2]
        ratio = median / planned.fixed
        counts = f"{planned.users:>8} {found:>6.2f} {median:>13} {planned.fixed:>11} {ratio:>6.2f}"
        print(f"{rate:>6.0%} {change:>+7.0%} {counts}")
        name = f"found_{rate:g}_{change:g}"
        figures |= {name: found, f"{name}_median": median, f"{name}_fixed": planned.fixed}
        assert found >= 0.8 - 3 * error(0.8, runs), "the planner promised more"


def mismatches(runs: int, figures: dict[str, float]) -> None:
    print(
        f"\nsample ratio mismatch, {runs} runs of 40000 users, alpha {SRM_ALPHA}: a part of one side is lost"
    )
    print("  lost   found  median users")
    for number, skew in enumerate(SKEWED):
        made = simulated(200 + number, runs, 40_000, 500, (0.05, 0.05), skew)
        looks = first(unlike(made) >= math.log(1 / SRM_ALPHA))
        found = len(looks) / runs
        median = sorted(looks)[len(looks) // 2] * 200 + 200 if looks else 0
        print(f"{skew:>6.0%} {found:>7.3f} {median or '–':>13}")
        figures |= {f"srm_{skew:g}": found, f"srm_{skew:g}_median": median}
    assert figures["srm_0"] <= SRM_ALPHA + 3 * error(SRM_ALPHA, runs), "more mismatches than were promised"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    figures: dict[str, float] = {}
    odd = agree(simulated(300, 50, 40_000, 500, (0.05, 0.06)), TERMS)
    print(f"the judge itself, asked 80 times: {odd} answers differ from the formulas used here")
    figures["judge_differs"] = odd
    assert not odd
    for part in (false_alarms, detection, mismatches):
        part(given.runs, figures)
    if given.json:
        given.json.write_text(json.dumps({"figures": figures}, indent=1))


if __name__ == "__main__":
    main()
