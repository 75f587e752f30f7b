"""The judge's arithmetic against known values, and its promises against simulated releases."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from penstock.analysis import dispersion, power
from penstock.analysis.exact import MOST_TERMS, tail
from penstock.analysis.judge import Judgment, evidence, judge, needed_requests, shown_no_worse, slow_bound
from penstock.analysis.sequential import (
    Pair,
    comparable,
    difference_bounds,
    log_evidence,
    rate_bounds,
    ratio_bounds,
)
from penstock.analysis.spans import Arm, Span, spans_of
from penstock.core.canary import Rule
from penstock.core.verdict import Result
from penstock.errors import Invalid

RULE = Rule(planned=60.0)
BOTH = Rule(planned=60.0, slow_ms=20.0)
NEEDED = needed_requests(RULE)


def spans(*looks: tuple[Arm, Arm], step: int = 500, every: float = 5.0) -> list[Span]:
    return [Span(every * number, step, new, stable) for number, (new, stable) in enumerate(looks, 1)]


def judged(new: Arm, stable: Arm, rule: Rule = RULE, looks: int = 1) -> Judgment:
    return judge(spans(*[(new, stable)] * looks), rule)


def test_the_exact_test_is_exact() -> None:
    # The tea tasting lady: 3 of 4 right, P(at least 3) = 17/70; 4 of 4: 1/70.
    assert tail([Pair(0, 4, 3, 4, 1)]) == pytest.approx(17 / 70)
    assert tail([Pair(0, 4, 4, 4, 0)]) == pytest.approx(1 / 70)
    assert tail([Pair(0, 10, 0, 10, 0)]) == 1.0


def test_steps_are_tested_apart() -> None:
    """By hand: two steps have a failure each, of 1 + 3 and of 2 + 2 requests; all the new one's."""
    steps = [Pair(0, 1, 1, 3, 0), Pair(1, 2, 1, 2, 0)]
    assert tail(steps) == pytest.approx(1 / 4 * 1 / 2)


def test_many_failures_are_tested_by_a_law_that_is_close() -> None:
    for part in (0.05, 0.3, 0.5):
        steps = [Pair(n, 1e6 * part, 0, 1e6 * (1 - part), 0) for n in range(3)]
        for more in (0.0, 1.5, 2.4):
            bad = 40_000
            extra = more * math.sqrt(bad * part * (1 - part))
            new = round(bad * part + extra / math.sqrt(3))
            whole = [Pair(p.step, p.new, new, p.stable, bad - new) for p in steps]
            one = [Pair(0, 3e6 * part, 3 * new, 3e6 * (1 - part), 3 * (bad - new))]
            assert tail(whole) == pytest.approx(tail(one), rel=0.02)
    assert MOST_TERMS < 1e6


def test_the_bet_is_fair_if_the_releases_are_alike() -> None:
    """Its expectation is one: summed over all ways in which four failures can fall."""
    share = 0.3
    law = [math.comb(4, k) * share**k * (1 - share) ** (4 - k) for k in range(5)]
    bets = [math.exp(log_evidence([Pair(0, 300, k, 700, 4 - k)])) for k in range(5)]
    assert math.fsum(p * bet for p, bet in zip(law, bets, strict=True)) == pytest.approx(1.0)


def test_a_bet_does_not_depend_on_what_both_suffer() -> None:
    """A stretch in which all failed alike, or nobody asked, moves nothing much."""
    some = [Pair(0, 100, 5, 100, 1)]
    assert log_evidence([*some, Pair(0, 100, 0, 100, 0)]) == pytest.approx(log_evidence(some))
    assert log_evidence([*some, Pair(0, 100, 3, 0, 0)]) == pytest.approx(log_evidence(some))
    assert log_evidence([*some, Pair(0, 100, 40, 100, 40)]) < log_evidence(some)


@pytest.mark.parametrize("rate", [0.0, 0.001, 0.05, 0.5, 1.0])
def test_bounds_hold_the_rate_and_close_in(rate: float) -> None:
    widths = []
    for n in (100, 1000, 10_000):
        bounds = rate_bounds([Pair(0, n, n * rate, n, 0)], 0.01)
        assert bounds.low <= rate <= bounds.high
        widths.append(bounds.high - bounds.low)
    assert widths == sorted(widths, reverse=True)


def test_an_outage_of_both_is_no_difference_whatever_the_shares_were() -> None:
    """The new release had most of its requests in the step with the outage."""
    steps = [Pair(50, 1000, 1, 19_000, 19), Pair(500, 10_000, 1000, 10_000, 1000)]
    bounds = difference_bounds(steps, 0.025, 0.025)
    assert bounds.low <= 0 <= bounds.high
    assert ratio_bounds(steps, 0.025).low <= 1 <= ratio_bounds(steps, 0.025).high
    pooled = [Pair(0, 11_000, 1001, 29_000, 1019)]
    assert difference_bounds(pooled, 0.025, 0.025).low > 0, "together they would look like a regression"


def test_steps_in_which_one_release_had_nothing_are_left_out() -> None:
    assert comparable([Pair(0, 10, 1, 0, 0), Pair(1, 0, 0, 10, 1)]) == []
    assert difference_bounds([Pair(0, 10, 1, 0, 0)], 0.01, 0.01).high == 1.0


def test_slow_is_beyond_twice_the_usual() -> None:
    assert slow_bound({5: 100, 10: 100, 20: 100, 50: 100}) == 20
    assert slow_bound({1: 10, 2: 100, 20: 100}) == 20, "a millisecond more hurts nobody"
    assert slow_bound({}) is None
    assert slow_bound({5: 1, math.inf: 100}) is None


# --- verdicts --------------------------------------------------------------------------------------------


def test_no_failures_pass_once_there_are_enough_requests() -> None:
    assert judged(Arm(NEEDED, 0), Arm(20 * NEEDED, 0)).verdict.result is Result.PASS
    found = judged(Arm(NEEDED - 40, 0), Arm(20 * NEEDED, 0))
    assert found.verdict.result is Result.UNKNOWN
    assert found.more is not None
    assert 30 <= found.more <= 50


@pytest.mark.parametrize(("new", "stable"), [(0, 0), (0, 500), (500, 0)])
@pytest.mark.parametrize("looks", [1, 40])
def test_without_requests_there_is_no_verdict(new: int, stable: int, looks: int) -> None:
    verdict = judged(Arm(new, 0), Arm(stable, 0), looks=looks).verdict
    assert verdict.result is Result.UNKNOWN
    assert "has answered no user request yet" in verdict.reason


def test_no_looks_are_no_verdict() -> None:
    assert judge([], RULE).verdict.result is Result.UNKNOWN


def test_failures_are_caught_at_once_and_the_reason_has_the_effect() -> None:
    verdict = judged(Arm(40, 20), Arm(400, 0)).verdict
    assert verdict.result is Result.FAIL
    assert "20 of 40 failed against 0 of 400 (+50.00 points, +" in verdict.reason
    assert ", at least " in verdict.reason


def test_slowness_is_caught() -> None:
    verdict = judged(Arm(60, 0, 40), Arm(600, 0), BOTH).verdict
    assert verdict.result is Result.FAIL
    assert "40 of 60 slower than 20 ms against 0 of 600" in verdict.reason


def test_a_little_slowness_is_no_regression_however_many_requests_show_it() -> None:
    verdict = judged(Arm(10_000, 0, 100), Arm(10_000, 0, 10), BOTH, looks=10).verdict
    assert verdict.result is Result.PASS
    assert judged(Arm(10_000, 100), Arm(10_000, 10), BOTH, looks=10).verdict.result is Result.FAIL


def test_one_bad_metric_is_enough_and_both_must_be_good() -> None:
    assert judged(Arm(600, 0, 300), Arm(600, 0, 0), BOTH).verdict.result is Result.FAIL
    undecided = judged(Arm(600, 0, 12), Arm(600, 0, 0), BOTH).verdict
    assert (undecided.result, "slower" in undecided.reason) == (Result.PASS, True)
    assert judged(Arm(600, 3, 0), Arm(600, 0, 0), BOTH).verdict.result is Result.UNKNOWN


def test_what_is_missing_is_said_with_the_time_it_takes() -> None:
    verdict = judged(Arm(10, 0), Arm(10, 0), looks=10).verdict
    assert verdict.result is Result.UNKNOWN
    assert (
        "more requests of the new release are needed, about 3 minutes at the present rate" in verdict.reason
    )
    assert "would be found 80% of the time" in verdict.reason


def test_what_no_number_of_requests_can_show_is_said_too() -> None:
    found = judged(Arm(100, 2), Arm(100, 0), looks=2)
    assert found.more is None
    assert "too close to call" in found.verdict.reason


def test_a_tighter_margin_needs_more_and_a_ratio_alone_needs_failures() -> None:
    assert needed_requests(Rule(60.0, points=0.005)) > 1.8 * NEEDED
    assert needed_requests(Rule(60.0, points=0.0)) > 10**8
    assert shown_no_worse([Pair(0, 40_000, 40, 40_000, 40)], 0.0, 2.0)
    assert not shown_no_worse([Pair(0, 5_000, 5, 5_000, 5)], 0.0, 2.0)
    assert not shown_no_worse([], 0.01, 2.0)


def test_the_exact_test_is_asked_once_at_the_look_that_was_declared() -> None:
    """Enough for the exact test at the end, and too little for the one that holds at every look."""
    looks = [*spans(*[(Arm(100, 1), Arm(100, 0))] * 9), Span(50.0, 500, Arm(100, 0), Arm(100, 0))]
    before, at = judge(looks, Rule(planned=51.0)), judge(looks, Rule(planned=50.0))
    assert (before.verdict.result, at.verdict.result) == (Result.UNKNOWN, Result.FAIL)
    later = [*looks, Span(55.0, 500, Arm(10_000, 10), Arm(10_000, 10))]
    assert judge(later, Rule(planned=50.0)).findings[0].p == at.findings[0].p, "not with what came after it"


# --- evidence --------------------------------------------------------------------------------------------


def test_evidence_is_judged_as_it_is_kept() -> None:
    (span,) = spans_of([(5002, 100, 40, 1, 2, 360, 3, 4)])
    assert span == Span(5.002, 100, Arm(40, 1, 2), Arm(360, 3, 4))


@pytest.mark.parametrize("row", [(1, 2, 3), (1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 3, -4, 5, 6, 7, 8), ()])
def test_what_is_no_evidence_is_refused(row: tuple[int, ...]) -> None:
    with pytest.raises(Invalid, match="8 whole numbers"):
        spans_of([row])


@pytest.mark.parametrize("row", [(1, 2, 3, 4, 0, 6, 0, 0), (1, 2, 3, 0, 0, 6, 0, 7)])
def test_more_bad_requests_than_requests_are_refused(row: tuple[int, ...]) -> None:
    with pytest.raises(Invalid, match="more bad requests"):
        spans_of([row])


def test_whatever_the_counts_are_there_is_a_verdict_in_finite_numbers() -> None:
    chance = random.Random(5)
    counts = (0, 0, 1, 2, 10, 1000, 10**7, 9 * 10**12)

    def arm() -> tuple[int, int, int]:
        requests = chance.choice(counts)
        return requests, chance.choice((0, requests, requests // 3)), chance.choice((0, requests))

    for _ in range(40):
        rows = [(1000 * n, chance.choice((1, 500, 999)), *arm(), *arm()) for n in range(chance.randint(1, 7))]
        rule = Rule(3.0, 20.0, chance.choice((1e-9, 0.2)), chance.choice((1.0, 2.0, 1e6)), 1e-9, 0.05)
        for finding in judge(spans_of(rows), rule).findings:
            numbers = (finding.effect, finding.difference.low, finding.difference.high, finding.p)
            assert all(math.isfinite(number) for number in numbers), (rows, finding)


# --- clusters --------------------------------------------------------------------------------------------


def test_clusters_are_measured_and_what_both_suffer_is_none() -> None:
    chance = random.Random(3)
    alone = [
        Pair(0, 1000, binomial(chance, 1000, 0.005), 1000, binomial(chance, 1000, 0.005)) for _ in range(60)
    ]
    assert dispersion.ratio(alone) == 1.0
    thrice = [
        Pair(0, 1000, 3 * binomial(chance, 500, 0.003), 1000, 3 * binomial(chance, 500, 0.003))
        for _ in range(60)
    ]
    assert 2.0 < dispersion.ratio(thrice) < 4.5
    outages = [0.05 if chance.random() < 0.2 else 0.001 for _ in range(60)]
    common = [Pair(0, 1000, binomial(chance, 1000, r), 1000, binomial(chance, 1000, r)) for r in outages]
    assert dispersion.ratio(common) < 2.0
    assert dispersion.ratio([]) == 1.0


def test_a_cluster_counts_once() -> None:
    """Five retry storms of six, each in one look, against one: thirty failures, and no proof."""
    looks = [(Arm(200, 6 if n % 4 == 0 else 0), Arm(200, 6 if n == 2 else 0)) for n in range(20)]
    found = judge(spans(*looks), RULE)
    assert found.verdict.result is Result.UNKNOWN
    assert "clusters of about" in found.verdict.reason
    single = [(Arm(200, 1 + n % 2), Arm(200, 1 if n % 3 == 0 else 0)) for n in range(20)]
    assert judge(spans(*single), RULE).verdict.result is Result.FAIL, "as many, one by one, are"


@pytest.mark.parametrize(("bad", "looks"), [(80, 2), (30, 3)])
def test_a_release_that_begins_to_fail_outright_is_no_cluster(bad: int, looks: int) -> None:
    good = [(Arm(100, 0), Arm(100, 0))] * 20
    assert judge(spans(*good, *[(Arm(100, bad), Arm(100, 0))] * looks), RULE).verdict.result is Result.FAIL


def test_what_breaks_when_more_users_come_is_no_cluster() -> None:
    few = spans(*[(Arm(20, 0), Arm(180, 0))] * 6, step=100)
    many = [Span(30.0 + s.at, 500, s.new, s.stable) for s in spans(*[(Arm(100, 3), Arm(100, 0))] * 6)]
    found = judge([*few, *many], RULE)
    assert (found.verdict.result, found.findings[0].clusters) == (Result.FAIL, 1.0)


# --- promises, on simulated releases ---------------------------------------------------------------------


def binomial(chance: random.Random, n: int, p: float) -> int:
    return sum(chance.random() < p for _ in range(n))


def test_false_alarms_over_all_looks_stay_rare() -> None:
    """Two releases with the same 2% of failures, looked at twelve times in three steps: alpha is 1%."""
    chance, alarms = random.Random(7), 0
    for _ in range(400):
        pairs: list[Pair] = []
        for number in range(12):
            share = (50, 250, 500)[number // 4]
            new = share * 200 // 1000
            bad = binomial(chance, new, 0.02), binomial(chance, 200 - new, 0.02)
            pairs.append(Pair(share, new, bad[0], 200 - new, bad[1]))
            p, limit = evidence(pairs, dispersion.ratio(pairs), 11 if number == 11 else None, 0.01)
            if p <= limit:
                alarms += 1
                break
    assert alarms <= 10, "1% of 400 is 4; 10 is three standard errors above"


def test_what_is_said_to_be_detectable_is_detected() -> None:
    chance = random.Random(11)
    for n, m, rate in ((2000, 2000, 0.002), (500, 4500, 0.01), (1000, 1000, 0.0)):
        expected = [Pair(0, n, n * rate, m, m * rate)]
        found = power.smallest_rate(expected, 0.008)
        assert found is not None
        caught = 0
        for _ in range(150):
            bad, stable_bad = binomial(chance, n, found), binomial(chance, m, rate)
            caught += tail([Pair(0, n, bad, m, stable_bad)]) <= 0.008
        assert 0.66 <= caught / 150 <= 0.94, (n, m, rate, found)


def test_nothing_is_detectable_in_next_to_nothing() -> None:
    assert power.smallest_rate([Pair(0, 3, 0, 3, 0)], 0.008) is None
    assert power.smallest_rate([], 0.008) is None


def test_a_worse_release_is_never_easier_to_pass() -> None:
    p = [judged(Arm(500, bad), Arm(500, 2), looks=10).findings[0].p for bad in range(0, 12)]
    assert all(after <= before for before, after in itertools.pairwise(p))
