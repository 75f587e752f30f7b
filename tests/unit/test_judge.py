"""The judge's arithmetic against known values, and its promises against simulated releases."""

from __future__ import annotations

import random

import pytest

from penstock.analysis.judge import NEEDED, Window, fisher, judge, newcombe_upper, slow_bound, wilson
from penstock.core.verdict import Result

LOOKS = 12


def window(requests: int, errors: int, slow: int = 0) -> Window:
    fast = requests - slow
    return Window(requests, errors, {5: fast, 10: fast, 20: fast, 50: requests})


def test_fisher_is_exact() -> None:
    # The tea tasting lady: 3 of 4 right, P(at least 3) = 17/70; 4 of 4: 1/70.
    assert fisher(3, 4, 1, 4) == pytest.approx(17 / 70)
    assert fisher(4, 4, 0, 4) == pytest.approx(1 / 70)
    assert fisher(0, 10, 0, 10) == pytest.approx(1.0)


def test_wilson_matches_the_published_example() -> None:
    # Newcombe (1998), 81 of 263, 95%: 0.2553 to 0.3662.
    low, high = wilson(81, 263, 1.959964)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


def test_newcombe_matches_the_published_example() -> None:
    # Newcombe (1998), 56/70 against 48/80, method 10: 0.0524 to 0.3339.
    assert newcombe_upper(56, 70, 48, 80, 1.959964) == pytest.approx(0.3339, abs=5e-5)


def test_no_failures_pass_once_there_are_enough_requests() -> None:
    assert judge(window(NEEDED + 10, 0), window(20 * NEEDED, 0), LOOKS).verdict.result is Result.PASS
    assert judge(window(NEEDED - 20, 0), window(20 * NEEDED, 0), LOOKS).verdict.result is Result.UNKNOWN


@pytest.mark.parametrize(("new", "stable"), [(0, 0), (0, 500), (500, 0)])
def test_without_requests_there_is_no_verdict(new: int, stable: int) -> None:
    assert judge(window(new, 0), window(stable, 0), LOOKS).verdict.result is Result.UNKNOWN


def test_failures_are_caught() -> None:
    verdict = judge(window(40, 8), window(400, 0), LOOKS).verdict
    assert verdict.result is Result.FAIL
    assert "8 of 40 failed against 0 of 400" in verdict.reason


def test_slowness_is_caught() -> None:
    verdict = judge(window(60, 0, slow=40), window(600, 0), LOOKS).verdict
    assert verdict.result is Result.FAIL
    assert "slower than 20 ms" in verdict.reason


def test_a_millisecond_more_hurts_nobody() -> None:
    stable = Window(1000, 0, {1: 1000, 2: 1000, 20: 1000})
    new = Window(1000, 0, {1: 0, 2: 1000, 20: 1000})
    assert judge(new, stable, LOOKS).verdict.result is Result.PASS


def test_slow_is_beyond_twice_the_usual() -> None:
    assert slow_bound(window(100, 0)) == 20
    assert slow_bound(Window(10, 0, {})) is None


def test_false_alarms_over_all_looks_stay_rare() -> None:
    """Two releases with the same 2% of failures, looked at twelve times: alpha is 1%."""
    chance = random.Random(7)
    alarms = 0
    for _ in range(400):
        new = stable = new_bad = stable_bad = 0
        for _ in range(LOOKS):
            new, stable = new + 25, stable + 225
            new_bad += sum(chance.random() < 0.02 for _ in range(25))
            stable_bad += sum(chance.random() < 0.02 for _ in range(225))
            verdict = judge(Window(new, new_bad, {}), Window(stable, stable_bad, {}), LOOKS).verdict
            if verdict.result is Result.FAIL:
                alarms += 1
                break
    assert alarms <= 10, "1% of 400 is 4; 10 is three standard errors above"
