"""What users saw of a release: without what a circuit breaker answered, and never less than before."""

from __future__ import annotations

from penstock.adapters.envoy.tally import Tally, counted
from penstock.core.traffic import Counters


def reading(epoch: str = "1", **numbers: int) -> Counters:
    names = {"done": "external.upstream_rq_completed", "bad": "external.upstream_rq_5xx"}
    names |= {"active": "upstream_rq_active_overflow", "pending": "upstream_rq_pending_overflow"}
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
