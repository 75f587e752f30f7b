"""Generated requests at a rate: what is measured when the service is quick, slow, stuck or wrong."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from fakes.shop import Reply, Shop
from penstock.checks import load
from penstock.checks.load import Plan, Tally, measured
from penstock.core.acceptance import Count, Sent
from penstock.core.acceptanceconfig import AcceptanceConfig, LoadConfig

QUICK = Reply("hello", kind="text/plain")


async def sent(shop: Shop, plan: Plan) -> Sent:
    async with shop.open():
        return await load.send(plan, shop.way)


async def test_one_after_another_in_turn() -> None:
    shop = Shop(a=QUICK, b=QUICK)
    found = await sent(shop, Plan(5, ("/a", "/b")))
    assert shop.asked == ["GET /a", "GET /b", "GET /a", "GET /b", "GET /a"]
    assert (found.requests, found.errors) == (5, 0)
    assert found.paths == (Count("/a", 3), Count("/b", 2))
    assert shop.most_at_once == 1
    assert sum(bucket.count for bucket in found.histogram) == 5


async def test_the_mix_follows_the_weights() -> None:
    plan = Plan(400, ("/a", "/b"), weights={"/b": 3.0})
    assert 250 < plan.mix().count("/b") < 350
    assert plan.mix() == plan.mix()


async def test_a_rate_takes_its_time_and_is_marked_as_a_preview() -> None:
    shop = Shop(a=QUICK)
    began = time.monotonic()
    found = await sent(shop, Plan(20, ("/a",), per_second=40, connections=8))
    assert time.monotonic() - began >= 19 / 40
    assert (found.requests, found.errors) == (20, 0)
    assert all("penstock-release: shop-new" in head for head in shop.heads)


async def test_who_waits_behind_a_slow_answer_is_counted_as_slow() -> None:
    """Coordinated omission: one connection, one answer of 0.5 s among quick ones, 40 requests a second."""
    slow = iter([Reply(seconds=0.5)])
    shop = Shop(a=lambda _: next(slow, QUICK))
    found = await sent(shop, Plan(20, ("/a",), per_second=40, connections=1))
    assert found.errors == 0
    assert found.max_ms >= 500
    # Nineteen were due while the first was answered; a closed loop would have seen one slow request.
    assert found.p50_ms > 150


async def test_no_more_is_under_way_than_there_are_connections() -> None:
    shop = Shop(a=Reply(seconds=0.05))
    await sent(shop, Plan(60, ("/a",), per_second=1000, connections=7))
    assert shop.most_at_once == 7


async def test_what_no_connection_was_free_for_is_an_error() -> None:
    shop = Shop(a=Reply(seconds=0.2))
    found = await sent(shop, Plan(100, ("/a",), per_second=1000, connections=2, seconds=0.5))
    assert found.requests == 100
    assert found.problems == (Count("not sent in time: no connection was free", found.errors),)
    assert found.errors > 50


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (Reply(status=503), "/a: 503"),
        (Reply(release="shop-old"), "/a: answered by shop-old"),
        (Reply("zz\r\n", headers={"transfer-encoding": "chunked"}), "/a: ValueError"),
    ],
)
async def test_errors_are_named(reply: Reply, problem: str) -> None:
    found = await sent(Shop(a=reply), Plan(3, ("/a",)))
    assert (found.errors, found.problems) == (3, (Count(problem, 3),))
    assert (found.p95_ms, found.histogram) == (0.0, ())


async def test_an_answer_to_elsewhere_is_not_followed() -> None:
    shop = Shop(a=Reply(status=302, headers={"location": "http://192.0.2.1/"}))
    found = await sent(shop, Plan(2, ("/a",)))
    assert (found.errors, shop.asked) == (0, ["GET /a"] * 2)


async def test_nobody_there_is_all_errors_and_no_exception() -> None:
    shop = Shop()
    async with shop.open():
        way = shop.way
    found = await load.send(Plan(3, ("/",)), replace(way, address=way.address))
    assert found.errors == found.requests == 3


async def test_it_can_be_stopped() -> None:
    shop = Shop(a=Reply(seconds=60))
    async with shop.open():
        work = asyncio.create_task(load.send(Plan(10, ("/a",), per_second=100, connections=4), shop.way))
        async with asyncio.timeout(20):
            while shop.at_once < 4:
                await asyncio.sleep(0.01)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work


async def test_no_request_is_no_trouble() -> None:
    assert (await sent(Shop(), Plan(0, ("/",)))).requests == 0


# --- verdicts -------------------------------------------------------------------------------------------

LIMITS = LoadConfig(requests_per_second=10, p95_ms=100, p99_ms=200, error_rate=0.01)


def after(*milliseconds: float, errors: int = 0) -> Sent:
    tally = Tally()
    tally.latencies.extend(ms / 1000 for ms in milliseconds)
    tally.problems["503"] += errors
    return measured(Plan(len(milliseconds) + errors, ("/",), per_second=10), tally, 1.0)


def test_within_the_limits_is_one_test_passed() -> None:
    part = load.judged(after(*[50.0] * 99, 150.0), LIMITS)
    assert (part.passed, part.failed) == (1, 0)
    assert part.words == "load of 10/s: 100 requests, 0 errors, p95 50 ms, p99 50 ms"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (after(*[101.0] * 100), ["load: p95 101 ms above 100 ms"]),
        (after(*[50.0] * 96, *[500.0] * 4), ["load: p99 500 ms above 200 ms"]),
        (after(*[50.0] * 98, errors=2), ["load: 2.00% of the requests failed, at most 1.00%"]),
    ],
)
def test_what_is_broken_is_said(found: Sent, said: list[str]) -> None:
    part = load.judged(found, LIMITS)
    assert (part.failed, list(part.failing)) == (1, said)


def test_where_nobody_was_answered_no_limit_holds() -> None:
    part = load.judged(after(errors=5), replace(LIMITS, error_rate=1.0))
    assert part.failing == ("load: p95 0 ms above 100 ms; p99 0 ms above 200 ms",)


def test_the_histogram_doubles() -> None:
    found = after(0.5, 1.0, 1.5, 3.0, 1e9)
    assert [(bucket.ms, bucket.count) for bucket in found.histogram] == [(1, 2), (2, 1), (4, 1), (65536, 1)]


def test_the_plans_of_a_configuration() -> None:
    config = AcceptanceConfig(paths=("/a", "/b"), requests=40, weights={"/a": 2}, load=LIMITS)
    assert load.quiet(config) == Plan(40, ("/a", "/b"), weights={"/a": 2})
    assert load.quiet(replace(config, requests_per_second=4.0)).per_second == 4.0
    heavy = load.heavy(config, LIMITS)
    assert (heavy.count, heavy.per_second, heavy.weights) == (200, 10, {"/a": 2})
    assert load.heavy(config, replace(LIMITS, paths=("/c",))).weights == {}
