"""Whatever a metric source does wrong is UNKNOWN with its cause: the full matrix, for both releases."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from penstock.analysis.readings import Reading, Seen, absent, latencies, latency, seen
from penstock.core.canary import Latencies, Quantile, Row, Rule
from penstock.core.traffic import Counters
from penstock.core.verdict import Cause, Result, Verdict

NEW = Counters("new", 100.0, "e-1", 10, 1, {"5": 6, "20": 9, "+Inf": 10})
STABLE = Counters("stable", 100.0, "e-1", 90, 2, {"5": 50, "20": 88, "+Inf": 90})
START = Reading(0, NEW, STABLE)


def rows(start: Reading, later: list[Reading], slow_ms: float | None) -> tuple[Row, ...] | Verdict:
    found = seen(start, later, Rule(60.0, slow_ms))
    return found.rows if isinstance(found, Seen) else found


def later(reading: Counters, seconds: float = 5.0, **changes: object) -> Counters:
    """Five seconds on: twenty more requests, of which two failed and three were slow."""
    grown = {"5": 10, "20": 17, "+Inf": 20}
    counts = {bound: count + grown[bound] for bound, count in reading.latency.items()}
    good = replace(
        reading,
        at=reading.at + seconds,
        requests=reading.requests + 20,
        errors=reading.errors + 2,
        latency=counts,
    )
    return replace(good, **changes)  # type: ignore[arg-type]


GOOD = Reading(50, later(NEW), later(STABLE))

#: What is wrong with a reading, the changes, the cause, and words of the reason.
MATRIX = [
    ("empty", None, Cause.MISSING, "has no counters of"),
    ("NaN requests", {"requests": math.nan}, Cause.ERROR, "not numbers: requests nan"),
    ("infinite requests", {"requests": math.inf}, Cause.ERROR, "not numbers: requests inf"),
    ("a fraction of a request", {"requests": 30.5}, Cause.ERROR, "not numbers: requests 30.5"),
    ("negative requests", {"requests": -1}, Cause.ERROR, "not numbers: requests -1"),
    ("NaN errors", {"errors": math.nan}, Cause.ERROR, "not numbers: errors nan"),
    ("truth for a count", {"errors": True}, Cause.ERROR, "not numbers: errors True"),
    ("NaN time", {"at": math.nan}, Cause.ERROR, "not numbers: read at nan"),
    ("infinite time", {"at": math.inf}, Cause.ERROR, "not numbers: read at inf"),
    ("NaN in the histogram", {"latency": {"5": math.nan, "20": 1}}, Cause.ERROR, "not numbers: 5 nan"),
    ("a bound that is none", {"latency": {"x": 1}}, Cause.ERROR, "a latency bound of 'x'"),
    ("a NaN bound", {"latency": {"nan": 1}}, Cause.ERROR, "a latency bound of 'nan'"),
    ("stale", {"at": 100.0}, Cause.STALE, "stale"),
    ("out of order", {"at": 97.0}, Cause.ERROR, "out of order: 3.0 s older"),
    ("restarted", {"epoch": "e-2"}, Cause.ERROR, "restarted during the canary"),
    ("reset to zero", {"requests": 0, "errors": 0, "latency": {}}, Cause.ERROR, "ran backwards"),
    ("errors fell", {"errors": 0}, Cause.ERROR, "ran backwards"),
    ("more errors than requests", {"errors": 60}, Cause.ERROR, "ran backwards"),
    ("a bucket fell", {"latency": {"5": 1, "20": 200, "+Inf": 200}}, Cause.ERROR, "ran backwards"),
    ("not cumulative", {"latency": {"5": 300, "20": 200, "+Inf": 400}}, Cause.ERROR, "not cumulative"),
    ("the bound is gone", {"latency": {"5": 300, "+Inf": 400}}, Cause.ERROR, "no longer has the bound 20"),
    ("two clocks", {"at": 165.0}, Cause.ERROR, "60 s apart"),
]


@pytest.mark.parametrize("arm", ["new", "stable"])
@pytest.mark.parametrize(("changes", "cause", "words"), [m[1:] for m in MATRIX], ids=[m[0] for m in MATRIX])
def test_a_bad_reading_is_unknown_with_its_cause(
    arm: str, changes: dict[str, object] | None, cause: Cause, words: str
) -> None:
    of = NEW if arm == "new" else STABLE
    bad = absent(arm) if changes is None else later(of, **changes)
    found = rows(START, [replace(GOOD, **{arm: bad})], 20.0)
    assert isinstance(found, Verdict)
    assert (found.result, found.cause) == (Result.UNKNOWN, cause)
    assert words in found.reason
    assert words.startswith("60 s") or arm in found.reason, "it says whose counters"
    again = Reading(50, later(GOOD.new, 5.0), later(GOOD.stable, 5.0))
    assert rows(START, [replace(GOOD, **{arm: bad}), again], 20.0) == ((10_000, 50, 40, 4, 6, 40, 4, 6),), (
        "the next look goes on from the last reading that was right"
    )


def test_good_readings_say_what_happened_in_between() -> None:
    again = Reading(500, later(GOOD.new), later(GOOD.stable))
    assert rows(START, [GOOD, again], 20.0) == (
        (5000, 50, 20, 2, 3, 20, 2, 3),
        (10_000, 500, 20, 2, 3, 20, 2, 3),
    )
    assert rows(START, [GOOD], None) == ((5000, 50, 20, 2, 0, 20, 2, 0),)
    assert rows(START, [], 20.0) == ()


def test_a_release_that_was_not_there_at_the_beginning_cannot_be_told() -> None:
    found = rows(replace(START, new=absent("new")), [GOOD], 20.0)
    assert isinstance(found, Verdict)
    assert "restarted" in found.reason


def test_a_histogram_that_begins_during_the_canary_counts_from_zero() -> None:
    start = replace(START, new=replace(NEW, requests=0, errors=0, latency={}))
    until = replace(GOOD, new=Counters("new", 105.0, "e-1", 4, 0, {"5": 1, "20": 2, "+Inf": 4}))
    assert rows(start, [until], 20.0) == ((5000, 50, 4, 0, 2, 20, 2, 3),)


def test_a_histogram_that_is_ahead_has_no_more_slow_requests_than_there_were() -> None:
    ahead = replace(GOOD.new, latency={"5": 6, "20": 9, "+Inf": 90})
    assert rows(START, [replace(GOOD, new=ahead)], 20.0) == ((5000, 50, 20, 2, 20, 20, 2, 3),)


def test_bounds_are_numbers() -> None:
    assert latency(NEW) == {5.0: 6, 20.0: 9, math.inf: 10}


# --- quantiles -------------------------------------------------------------------------------------------


def test_requests_above_the_bound_of_each_quantile_are_counted() -> None:
    rule = Rule(60.0, 20.0, quantiles=(Quantile(0.95, 1.5, 10.0, 5.0), Quantile(0.99, 1.5, 10.0)))
    found = seen(START, [GOOD], rule)
    assert isinstance(found, Seen)
    assert found.rows == ((5000, 50, 20, 2, 3, 20, 2, 3, 10, 10, 0, 0),)
    gone = replace(GOOD, new=later(NEW, latency={"20": 26, "+Inf": 30}))
    verdict = seen(START, [gone], rule)
    assert isinstance(verdict, Verdict)
    assert "no longer has the bound 5 ms" in verdict.reason


def test_histograms_are_kept_step_by_step() -> None:
    """Up to 5 ms, up to 20, above; of the new release, then of the stable one."""
    second = Reading(50, later(GOOD.new), later(GOOD.stable))
    third = Reading(500, later(second.new), later(second.stable))
    assert latencies([START, GOOD, second, third]) == Latencies(
        (5.0, 20.0), ((50, 20, 14, 6, 20, 14, 6), (500, 10, 7, 3, 10, 7, 3))
    )
    without = replace(GOOD, stable=replace(GOOD.stable, latency={}))
    assert latencies([START, without]) is None
