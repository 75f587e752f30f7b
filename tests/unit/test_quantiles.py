"""Quantiles of latency: bounds that hold, and close in as far as the buckets let them."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest

from penstock.analysis.judge import Judgment, judge, needed_requests
from penstock.analysis.plan import Traffic, foresee
from penstock.analysis.quantiles import (
    Shares,
    difference,
    estimates,
    fixed,
    intervals,
    least_requests,
    more,
    within_margin,
)
from penstock.analysis.replay import replay
from penstock.analysis.sequential import Bounds
from penstock.analysis.spans import Arm, Span
from penstock.config import ServiceConfig, parse
from penstock.core.canary import Latencies, Quantile, Rule
from penstock.core.pipeline import Canary
from penstock.core.verdict import Result
from penstock.errors import Invalid
from penstock.server.chart import picture

BOUNDS = (5.0, 10.0, 20.0, 40.0, 80.0)
P95 = Quantile(0.95, 2.0, 10.0, 40.0)
RULE = Rule(60.0, quantiles=(P95,))
#: Up to 5, 10, 20, 40 and 80 ms, and longer: p95 is between 10 and 20, and between 40 and 80.
GOOD, SLOW = (50, 30, 19, 1, 0, 0), (30, 30, 20, 12, 8, 0)


def kept(new: Sequence[int], stable: Sequence[int], times: int = 1, step: int = 500) -> Latencies:
    return Latencies(BOUNDS, ((step, *(n * times for n in new), *(m * times for m in stable)),))


def judged(new: Sequence[int], stable: Sequence[int], looks: int, rule: Rule = RULE) -> Judgment:
    """A hundred requests of each release at every look."""
    arms = [Arm(sum(counts), 0, 0, (sum(counts[4:]),)) for counts in (new, stable)]
    spans = [Span(5.0 * number, 500, *arms) for number in range(1, looks + 1)]
    return judge(spans, rule, kept(new, stable, looks))


# --- arithmetic ------------------------------------------------------------------------------------------


def test_a_quantile_is_within_its_bucket() -> None:
    new, stable = estimates(Shares(kept(SLOW, GOOD)), 0.95)
    assert new == (pytest.approx(40 + 3 / 8 * 40), 40.0)
    assert stable == (pytest.approx(10 + 15 / 19 * 10), 10.0)
    assert estimates(Shares(kept((0, 0, 0, 0, 0, 9), GOOD)), 0.95)[0] == (80.0, math.inf)


def test_the_stable_release_is_told_as_if_asked_when_the_new_one_was() -> None:
    """Slow in the second step, where the new release has nearly all of its requests."""
    first = (50, *(n * 1 for n in GOOD), *(n * 19 for n in GOOD))
    second = (500, *(n * 10 for n in SLOW), *(n * 10 for n in SLOW))
    shares = Shares(Latencies(BOUNDS, (first, second)))
    new, stable = estimates(shares, 0.95)
    assert stable[0] == pytest.approx(new[0])
    bounds = difference(*intervals(shares, 0.95, 0.01))
    assert bounds.low < 0 < bounds.high


def test_no_number_of_requests_tells_more_than_the_buckets_do() -> None:
    widths = []
    for times in (1, 10, 100, 100_000):
        new, stable = intervals(Shares(kept(SLOW, GOOD, times)), 0.95, 0.01)
        assert new.low <= 55 <= new.high
        assert stable.low <= 17.9 <= stable.high
        widths.append(new.high - new.low)
    assert widths == sorted(widths, reverse=True)
    assert (new, stable) == (Bounds(40.0, 80.0), Bounds(10.0, 20.0))
    assert difference(new, stable) == Bounds(20.0, 70.0)


def test_bounds_hold_at_every_look() -> None:
    """Latencies that drift, for both alike: 5% of the runs may be wrong at some look."""
    chance, wrong = random.Random(5), 0
    for _ in range(60):
        counts = [[0] * 6 for _ in range(2)]
        for look in range(10):
            law = [(10 - look) * good + look * bad for good, bad in zip(GOOD, SLOW, strict=True)]
            for own in counts:
                for bucket in chance.choices(range(6), law, k=60):
                    own[bucket] += 1
            bounds = difference(*intervals(Shares(kept(*counts)), 0.95, 0.0125))
            if not bounds.low <= 0 <= bounds.high:
                wrong += 1
                break
    assert wrong <= 6, "5% of 60 is 3; 6 is two standard errors above"


def test_what_is_counted_is_above_the_margin_of_before() -> None:
    counts = {5.0: 500, 10.0: 800, 20.0: 990, 40.0: 1000, 80.0: 1000}
    assert fixed(counts, Quantile(0.95, 2.0, 10.0)).above_ms == 40.0
    assert fixed(counts, Quantile(0.95, 1.1, 0.0)).above_ms == 20.0
    assert fixed(counts, Quantile(0.95, 50.0, 0.0)).above_ms is None
    assert fixed({}, Quantile(0.95, 2.0, 10.0)).above_ms is None


def test_a_quantile_without_requests_above_it_needs_some_all_the_same() -> None:
    assert 150 <= (least_requests(0.95, 0.0125) or 0) <= 200
    assert 5 <= (least_requests(0.99, 0.0125) or 0) / (least_requests(0.95, 0.0125) or 1) <= 6
    assert needed_requests(Rule(60.0, quantiles=(Quantile(0.99, 2.0, 10.0),))) > needed_requests(RULE)


def test_what_is_missing_is_enough() -> None:
    shares = Shares(kept(GOOD, GOOD))
    found = more(shares, P95, 0.0125)
    assert found is not None
    assert not within_margin(*intervals(shares, 0.95, 0.0125), P95)
    assert within_margin(*intervals(shares.longer(found), 0.95, 0.0125), P95)
    assert more(shares, Quantile(0.95, 1.5, 0.0), 0.0125) is None, "the buckets are wider than that"


# --- verdicts --------------------------------------------------------------------------------------------


def test_a_slower_quantile_is_found_and_said_with_its_interval() -> None:
    found = judged(SLOW, GOOD, looks=5)
    assert found.verdict.result is Result.FAIL
    assert "p95 55 ms against 17.9 ms (+37.1 ms, " in found.verdict.reason
    assert "; buckets of 40 and 10 ms; margin 17.9 ms; by chance " in found.verdict.reason


def test_a_quantile_within_its_margin_passes_and_needs_requests_for_it() -> None:
    few, enough = judged(GOOD, GOOD, looks=4), judged(GOOD, GOOD, looks=20)
    assert few.verdict.result is Result.UNKNOWN
    assert "more requests of the new release are needed" in few.verdict.reason
    assert enough.verdict.result is Result.PASS
    assert "p95 17.9 ms against 17.9 ms (+0 ms, -10 to +10; " in enough.verdict.reason
    assert "% above 40 ms would be found 80% of the time" in enough.verdict.reason


def test_a_little_slower_is_no_regression_however_many_requests_show_it() -> None:
    slower = (45, 30, 15, 9, 1, 0)
    found = judged(slower, GOOD, looks=200)
    assert found.timings[0].p is not None
    assert found.timings[0].p < 1e-9
    assert found.verdict.result is not Result.FAIL


def test_a_quantile_that_is_asked_for_never_passes_without_a_histogram() -> None:
    spans = [Span(5.0 * n, 500, Arm(1000, 0, 0, (0,)), Arm(1000, 0, 0, (0,))) for n in range(1, 20)]
    for latencies in (None, Latencies((), ()), kept((0,) * 6, (0,) * 6)):
        found = judge(spans, RULE, latencies)
        assert found.verdict.result is Result.UNKNOWN
        assert "p95 cannot be told: no histogram" in found.verdict.reason


def test_where_none_is_asked_for_p95_is_told_and_decides_nothing() -> None:
    spans = [Span(5.0 * n, 500, Arm(100, 0), Arm(100, 0)) for n in range(1, 11)]
    found = judge(spans, Rule(60.0), kept(SLOW, GOOD, 10))
    assert found.verdict.result is Result.PASS
    words = "; p95 55 ms against 17.9 ms (+37.1 ms, +0 to +70; buckets of 40 and 10 ms)"
    assert words in found.verdict.reason
    assert judge(spans, Rule(60.0)).timings == ()


def test_all_metrics_share_one_alpha() -> None:
    assert Rule(60.0, 20.0, alpha=0.01, quantiles=(P95,)).alpha_each == pytest.approx(0.01 / 3)


def test_a_plan_knows_what_a_quantile_needs() -> None:
    canary, traffic = Canary((500,), 30.0, 5.0, 30.0), Traffic(10.0, 400, 0)
    assert foresee(traffic, canary, Rule(60.0)).reachable
    tail = Rule(60.0, quantiles=(Quantile(0.999, 2.0, 10.0),))
    found = foresee(traffic, canary, tail)
    assert not found.reachable
    assert "this canary ends after 60 s" in found.words


# --- evidence, configuration, picture ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "latencies",
    [
        Latencies((10.0, 5.0), ()),
        Latencies((0.0, 5.0), ()),
        Latencies(BOUNDS, ((500, 1, 2),)),
        Latencies((5.0,), ((500, 1, 2, -3, 4),)),
    ],
)
def test_what_is_no_histogram_is_refused(latencies: Latencies) -> None:
    with pytest.raises(Invalid):
        latencies.check()


def test_spans_that_do_not_count_for_a_quantile_are_refused() -> None:
    with pytest.raises(Invalid, match="do not count what a quantile is judged by"):
        judge([Span(5.0, 500, Arm(10, 0), Arm(10, 0))], RULE, None)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("quantiles: [30]", "quantiles are from 50 to 99.9, found 30"),
        ("quantiles: [95, 95]", "each of them once"),
        ("quantiles: [50, 75, 90, 95, 99]", "up to 4 quantiles"),
        ("{quantiles: [95], quantile_ratio: 1, quantile_ms: 0}", "within 1 times and 0 ms"),
        ("{quantiles: [95], quantile_ratio: 0.5}", "within 0.5 times"),
    ],
)
def test_quantiles_that_can_show_nothing_are_refused(asked: str, words: str) -> None:
    judge_section = asked if asked.startswith("{") else f"{{{asked}}}"
    text = f"service: shop\ncanary:\n  judge: {judge_section}\n"
    with pytest.raises(Invalid, match=words):
        parse(ServiceConfig, text.encode(), "penstock.yaml").canary.check()


def test_the_picture_closes_in_on_each_quantile() -> None:
    spans = [Span(5.0 * n, 500, Arm(100, 0), Arm(100, 0)) for n in range(1, 11)]
    histograms = {number: kept(GOOD, GOOD, number) for number in range(1, 11)}
    found = picture(replay(spans, Rule(60.0), latencies=histograms))
    assert found is not None
    (panel,) = found.quantiles
    assert panel.title.startswith("How much slower p95 of the new release is, in ms")
    assert panel.margin is None, "it is only told"
    assert len(panel.band.split()) == 20
    assert picture(replay(spans, Rule(60.0))).quantiles == ()  # type: ignore[union-attr]
