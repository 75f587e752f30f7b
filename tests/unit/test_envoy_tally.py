"""What users saw of a release: without what a circuit breaker answered, and never less than before."""

from __future__ import annotations

import pytest

from penstock.adapters.envoy.tally import Tally, counted
from penstock.core.traffic import Counters


def reading(epoch: str = "1", **numbers: int) -> Counters:
    names = {"done": "external.upstream_rq_completed", "bad": "external.upstream_rq_5xx"}
    names |= {"active": "upstream_rq_active_overflow", "pending": "upstream_rq_pending_overflow"}
    names |= {"http": "upstream_rq_5xx", "unavailable": "grpc.14"}
    names |= {f"grpc{status}": f"grpc.{status}" for status in range(17)}
    counters = {f"cluster.web-1.{names[name]}": number for name, number in numbers.items()}
    return counted("web-1", 1.0, epoch, counters, {"1": 2})


def seen(counters: Counters) -> tuple[int, int, int | None]:
    return counters.requests, counters.errors, counters.refused


def test_what_a_circuit_breaker_answered_is_none_of_its_errors() -> None:
    assert seen(reading(done=10, bad=3)) == (10, 3, None)
    assert seen(reading(done=10, bad=6, active=3, pending=2)) == (5, 1, 5)
    assert seen(reading()) == (0, 0, None)


def test_an_answer_that_is_not_counted_yet_makes_no_count_shrink() -> None:
    tally = Tally()
    (first,) = tally.of("web", [reading(done=10, bad=5, active=5)])
    (second,) = tally.of(
        "web", [reading(done=10, bad=5, active=6)]
    )  # the breaker is counted a moment earlier
    (third,) = tally.of("web", [reading(done=13, bad=6, active=6)])
    assert [seen(found) for found in (first, second, third)] == [(5, 0, 5), (5, 0, 6), (7, 0, 6)]


def test_what_counts_afresh_may_be_less_and_services_are_apart() -> None:
    tally = Tally()
    tally.of("web", [reading(done=10, bad=5)])
    assert seen(*tally.of("shop", [reading(done=1)])) == (1, 0, None)
    assert seen(*tally.of("web", [reading(epoch="2", done=1)])) == (1, 0, None)


@pytest.mark.parametrize("status", range(17))
def test_statuses_by_which_a_grpc_server_says_that_it_failed_are_errors(status: int) -> None:
    errors = 2 if status in (2, 4, 12, 13, 14, 15) else 0
    assert seen(reading(done=10, **{f"grpc{status}": 2})) == (10, errors, None)


@pytest.mark.parametrize(
    ("numbers", "errors"),
    [
        ({"bad": 3, "http": 3}, 3),
        ({"bad": 3, "unavailable": 3}, 3),  # nobody was there: counted by both
        ({"bad": 1, "unavailable": 4}, 4),  # and three that the service said itself
        ({"bad": 3}, 3),  # calls that got a plain 5xx
        ({"bad": 5, "http": 3, "unavailable": 2, "grpc13": 1}, 6),  # two protocols at once
        ({"bad": 4, "http": 1, "unavailable": 3, "active": 2}, 2),
    ],
)
def test_a_call_that_failed_is_one_error(numbers: dict[str, int], errors: int) -> None:
    assert reading(done=10, **numbers).errors == errors


def test_calls_that_fail_at_their_end_wait_for_requests() -> None:
    """Streams that began long ago: between two readings no more can fail than are asked."""
    tally = Tally()
    steps = [(10, 0), (10, 4), (11, 4), (20, 5)]
    found = [seen(*tally.of("web", [reading(done=done, grpc13=bad)]))[:2] for done, bad in steps]
    assert found == [(10, 0), (10, 0), (11, 1), (20, 5)]
