"""Error budgets and burn rates: the arithmetic, and that no single request ever decides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.analysis.budget import (
    CHANCE,
    FEWEST,
    PAIRS,
    STALE,
    Bucket,
    Count,
    Watched,
    chance,
    exceeds,
    missing,
    span,
    standing,
    within,
)
from penstock.core.objectives import Objective, Standing

DAY = 86400.0
NOW = 100 * DAY
ALWAYS = Watched(0.0, NOW - 1)
THREE_NINES = Objective("shop", "availability", "", 0.999, 28 * DAY)

counts = st.integers(0, 100_000).flatmap(
    lambda total: st.builds(Count, st.just(total), st.integers(0, total))
)
shares = st.floats(1e-6, 0.9)


def minutes(until: float, count: int, total: int, bad: int = 0) -> list[Bucket]:
    """*count* minutes with so many requests each, the last of which ends at *until*."""
    return [Bucket(until - 60.0 * (n + 1), 60.0, total, bad) for n in range(count)]


def stands(buckets: list[Bucket], objective: Objective = THREE_NINES, watched: Watched = ALWAYS) -> Standing:
    return standing(objective, 7, buckets, watched, NOW)


# --- one request never decides --------------------------------------------------------------------------


@given(counts, shares)
def test_one_failure_more_or_less_never_turns_a_verdict_round(count: Count, allowed: float) -> None:
    verdict = exceeds(count, allowed)
    if verdict is False and count.bad < count.total:
        assert (count.bad + 1) / count.total < allowed
    if verdict is True:
        assert (count.bad - 1) / count.total >= allowed


@given(counts, shares)
def test_more_failures_are_never_better(count: Count, allowed: float) -> None:
    order = {False: 0, None: 1, True: 2}
    worse = Count(count.total, min(count.total, count.bad + 1))
    assert order[exceeds(count, allowed)] <= order[exceeds(worse, allowed)]


@given(counts, shares)
def test_where_nobody_can_tell_it_says_what_is_missing(count: Count, allowed: float) -> None:
    more = missing(count, allowed)
    assert exceeds(Count(count.total + max(more, 0), count.bad), allowed) is False
    if more > 1:
        assert exceeds(Count(count.total + more - 1, count.bad), allowed) is not False


@pytest.mark.parametrize(
    ("count", "allowed", "verdict"),
    [
        (Count(0, 0), 0.01, None),
        (Count(FEWEST - 1, FEWEST - 1), 0.01, None),
        (Count(500, 0), 0.001, None),  # one failure would cost two budgets
        (Count(500, 1), 0.001, None),
        (Count(500, 3), 0.001, None),  # could be chance
        (Count(500, 10), 0.001, True),  # could not
        (Count(20, 10), 0.001, True),
        (Count(1001, 0), 0.001, False),
        (Count(10_000, 8), 0.001, False),
        (Count(10_000, 9), 0.001, None),
        (Count(10_000, 10), 0.001, None),
        (Count(10_000, 11), 0.001, True),
        (Count(100, 100), 1.44, False),
    ],
)
def test_what_exceeds(count: Count, allowed: float, verdict: bool | None) -> None:
    assert exceeds(count, allowed) is verdict


@pytest.mark.parametrize(("bad", "expected"), [(0, 1.0), (1, 0.39362), (2, 0.09013), (5, 0.000169)])
def test_chance_is_the_binomial_tail(bad: int, expected: float) -> None:
    """Beside figures of a table, for 500 trials at a thousandth."""
    assert chance(Count(500, bad), 0.001) == pytest.approx(expected, rel=0.01)


def test_chance_alone_seldom_burns_a_quiet_budget() -> None:
    """Over every count that a service at its target could show, the false alarms are as rare as is said."""
    for total in (10, 50, 200, 1000, 4000):
        false = next(bad for bad in range(total + 1) if exceeds(Count(total, bad), 0.001) is True)
        assert chance(Count(total, false), 0.001) <= CHANCE


# --- windows -----------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 50), st.integers(0, 50)), max_size=30))
def test_a_longer_window_holds_more(counted: list[tuple[int, int, int]]) -> None:
    buckets = [Bucket(NOW - 60.0 * (at + 1), 60.0, good + bad, bad) for at, good, bad in counted]
    totals = [within(buckets, NOW - 60.0 * width).total for width in range(0, 600, 7)]
    assert totals == sorted(totals)
    assert within(buckets, 0.0) == Count(sum(b.total for b in buckets), sum(b.bad for b in buckets))


def test_a_bucket_counts_by_its_share_of_the_window() -> None:
    hour = Bucket(NOW - 3600.0, 3600.0, 600, 60)
    assert within([hour], NOW - 600.0) == Count(100, 10)
    assert within([hour], NOW) == Count(0, 0)


def test_what_ends_between_two_readings_is_never_less_than_nothing() -> None:
    assert within([Bucket(NOW - 60, 60.0, 10, -2)], 0.0) == Count(10, 0)


# --- how an objective stands -------------------------------------------------------------------------------


def test_all_is_well() -> None:
    found = stands(minutes(NOW, 3 * 1440, 100))
    assert (found.state, found.left, found.bad, found.total, found.entry) == ("ok", 1.0, 0, 432_000, 7)
    assert found.says.startswith("availability: 100% of the budget of 28 days is left")


def test_an_outage_burns_over_an_hour_and_five_minutes() -> None:
    calm, outage = minutes(NOW - 600, 20 * 1440, 100), minutes(NOW, 10, 100, 30)
    found = stands([*calm, *outage])
    assert found.state == "burning"
    assert [rate.burns for rate in found.burns] == [True, True, False]
    assert found.burns[0].long_rate == pytest.approx(300 / 6000 / 0.001, rel=0.01)
    assert "burning at 50 (1 h) and 300 (5 min), 14.4 is too fast" in found.says


def test_an_outage_that_is_over_burns_no_longer() -> None:
    calm, outage, after = (
        minutes(NOW - 4200, 20 * 1440, 100),
        minutes(NOW - 3600, 10, 100, 30),
        minutes(NOW, 60, 100),
    )
    found = stands([*calm, *outage, *after])
    assert (found.state, [rate.burns for rate in found.burns]) == ("ok", [False, False, False])
    assert found.left == pytest.approx(1 - 300 / 2_887_000 / 0.001, rel=0.01)


def test_a_slow_leak_burns_over_three_days() -> None:
    found = stands([*minutes(NOW - 3 * DAY, 20 * 1440, 1000), *minutes(NOW, 3 * 1440, 1000, 2)])
    assert (found.state, [rate.burns for rate in found.burns]) == ("burning", [False, False, True])


def test_a_budget_that_is_used_up() -> None:
    found = stands(minutes(NOW, 10 * 1440, 1000, 2))
    assert (found.state, found.left) == ("exhausted", -1.0)
    assert "200% of the budget of 28 days is used" in found.says


def test_a_quiet_service_is_told_apart_from_one_that_is_well() -> None:
    found = stands(minutes(NOW, 60, 3))
    assert (found.state, found.left) == ("quiet", None)
    assert "821 more, all good, would do" in found.says
    assert stands([]).says == "availability: no user request in 28 days, so nobody can tell"


def test_one_failure_of_a_quiet_service_burns_nothing() -> None:
    assert stands([*minutes(NOW, 60, 3), Bucket(NOW - 30, 60.0, 1, 1)]).state == "quiet"


@pytest.mark.parametrize(
    ("watched", "words"),
    [
        (Watched(), "nothing was counted yet"),
        (Watched(0.0, NOW - STALE - 60), "nothing was counted for 6 min"),
    ],
)
def test_what_nobody_counts_is_unknown(watched: Watched, words: str) -> None:
    found = stands(minutes(NOW - 3600, 60, 1000), watched=watched)
    assert (found.state, found.left, words in found.says) == ("unknown", None, True)


def test_a_gap_and_a_short_history_are_told() -> None:
    found = stands(minutes(NOW, 120, 1000), watched=Watched(NOW - 7200, NOW, 1800.0))
    assert "28 days is left (counted for 2 h)" in found.says
    assert "for 30 min nobody read the counters" in found.says


def test_pairs_longer_than_the_window_are_left_out() -> None:
    short = Objective("shop", "availability", "", 0.99, 3600.0)
    assert [rate.long for rate in stands([], short).burns] == [3600.0]
    assert len(stands([]).burns) == len(PAIRS)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(40, "40 s"), (90, "1.5 min"), (3600, "1 h"), (86400, "24 h"), (28 * DAY, "28 days")],
)
def test_spans(seconds: float, words: str) -> None:
    assert span(seconds) == words
