"""Counting user requests over time: differences of readings, gaps, take-overs, folding and pruning."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.objectives import Objective
from penstock.core.traffic import Counters
from penstock.errors import Unavailable
from penstock.ports import Store, Transaction
from penstock.telemetry import rollups
from penstock.telemetry.rollups import GAP, HOUR, HOURS_FOR, MINUTES_FOR, Difference, Place, difference
from penstock.telemetry.sampler import Sampler
from penstock.telemetry.standing import stand

SHOP: Place = ("shop", "production")
DAY = 86400.0
T = 20_000 * DAY
ERRORS = Objective("shop", "availability", "", 0.99, 28 * DAY)
FAST = Objective("shop", "latency", "", 0.99, 28 * DAY, within_ms=300.0)
LATENCY = {"100": 80, "300": 90, "500": 95, "10000": 100}


def reading(requests: int, errors: int = 0, release: str = "shop-1", epoch: str = "e") -> Counters:
    latency = {bound: n * requests // 100 for bound, n in LATENCY.items()}
    return Counters(release, 0.0, epoch, requests, errors, latency)


# --- differences -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "requests", "errors"),
    [
        ([reading(100, 1)], [reading(300, 4)], 200, 3),
        ([reading(100, 1)], [reading(300, 4), reading(50, 5, "shop-2")], 250, 8),  # a new release
        ([reading(100, 1)], [reading(30, 2, epoch="f")], 30, 2),  # the proxy was started again
        ([reading(100, 1), reading(50, 1, "shop-2")], [reading(100, 1)], 0, 0),  # one was taken out
        ([reading(100, 1)], [reading(90, 1)], 0, 0),  # ran backwards: not to be believed
        ([reading(100, 5)], [reading(110, 4)], 0, 0),
        ([], [reading(10)], 10, 0),
    ],
)
def test_differences(before: list[Counters], after: list[Counters], requests: int, errors: int) -> None:
    found = difference(before, after)
    assert (found.requests, found.errors) == (requests, errors)


def test_latency_is_subtracted_bound_by_bound() -> None:
    assert difference([reading(100)], [reading(300)]).latency == {100: 160, 300: 180, 500: 190, 10000: 200}


@given(st.integers(0, 10_000), st.integers(0, 500), st.integers(1, 200))
def test_what_is_spread_is_neither_more_nor_less(requests: int, errors: int, of: int) -> None:
    whole = Difference(requests, errors, {300.0: requests})
    parts = [rollups._part(whole, number, of) for number in range(of)]
    assert rollups._sum(parts) == whole
    counts = [part.requests for part in parts]
    assert max(counts) - min(counts) <= 1


# --- what is kept -----------------------------------------------------------------------------------------


@pytest.fixture
async def kept(store: Store) -> Store:
    await rollups.migrate(store)
    return store


async def add(store: Store, at: float, *counters: Counters, seen: float | None = None) -> bool:
    async with store.transaction() as tx:
        last = (await rollups.last_read(tx)).get(SHOP, 0.0) if seen is None else seen
        return await rollups.add(tx, SHOP, last, at, counters)


async def counted(
    store: Store, objective: Objective = ERRORS, since: float = 0.0
) -> list[tuple[float, int, int]]:
    async with store.transaction(write=False) as tx:
        found = await rollups.buckets(tx, SHOP, objective, since)
    return [(bucket.start - T, bucket.total, bucket.bad) for bucket in found]


async def test_counting_begins_with_the_first_reading(kept: Store) -> None:
    await add(kept, T, reading(1000, 100))
    assert await counted(kept) == []
    await add(kept, T + 15, reading(1100, 101))
    await add(kept, T + 30, reading(1300, 103))
    assert await counted(kept) == [(0.0, 300, 3)]
    assert await counted(kept, FAST) == [(0.0, 300, 30)]
    async with kept.transaction(write=False) as tx:
        assert await rollups.watched(tx, SHOP, 0.0) == rollups.Watched(T, T + 30, 0.0)


async def test_the_nearest_bound_under_the_objectives_counts(kept: Store) -> None:
    await add(kept, T, reading(0))
    await add(kept, T + 15, reading(1000))
    for within_ms, bad in ((50.0, 1000), (100.0, 200), (299.0, 200), (300.0, 100), (10000.0, 0)):
        assert await counted(kept, replace(FAST, within_ms=within_ms)) == [(0.0, 1000, bad)]


async def test_a_difference_over_two_minutes_is_shared_by_them(kept: Store) -> None:
    await add(kept, T + 45, reading(0))
    await add(kept, T + 75, reading(101, 3))
    assert await counted(kept) == [(0.0, 50, 1), (60.0, 51, 2)]


async def test_a_gap_is_spread_and_told(kept: Store) -> None:
    await add(kept, T, reading(0))
    await add(kept, T + 600, reading(1000, 10))
    assert await counted(kept) == [(60.0 * minute, 100, 1) for minute in range(10)]
    async with kept.transaction(write=False) as tx:
        assert (await rollups.watched(tx, SHOP, T)).gaps == 600.0
        assert (await rollups.watched(tx, SHOP, T + 500)).gaps == 100.0
        assert (await rollups.watched(tx, SHOP, T + 700)).gaps == 0.0


async def test_just_no_gap(kept: Store) -> None:
    await add(kept, T, reading(0))
    await add(kept, T + GAP, reading(10))
    async with kept.transaction(write=False) as tx:
        assert (await rollups.watched(tx, SHOP, 0.0)).gaps == 0.0


async def test_a_long_gap_is_few_rows_and_loses_nothing(kept: Store) -> None:
    await add(kept, T, reading(0))
    await add(kept, T + 3 * DAY, reading(100_003, 1001))
    found = await counted(kept)
    assert len(found) <= rollups.MOST_ROWS
    assert (sum(n for _, n, _ in found), sum(bad for *_, bad in found)) == (100_003, 1001)


async def test_nothing_happened_is_no_row(kept: Store) -> None:
    await add(kept, T, reading(5))
    await add(kept, T + 15, reading(5))
    assert await counted(kept) == []


async def test_of_two_that_read_at_once_one_counts(kept: Store) -> None:
    await add(kept, T, reading(0))
    assert await add(kept, T + 15, reading(100), seen=T)
    assert not await add(kept, T + 15, reading(101), seen=T)
    assert not await add(kept, T + 16, reading(101), seen=T)
    assert not await add(kept, T + 14, reading(101), seen=T + 15)  # a clock that went back
    assert await add(kept, T + 30, reading(120), seen=T + 15)
    assert await counted(kept) == [(0.0, 120, 0)]


async def test_old_minutes_become_hours_and_old_hours_go(kept: Store) -> None:
    await add(kept, T, reading(0))
    for minute in range(1, 121):
        await add(kept, T + 60 * minute, reading(100 * minute, minute))
    async with kept.transaction() as tx:
        await rollups.upkeep(tx, SHOP, T + MINUTES_FOR + HOUR)
    found = await counted(kept)
    assert found[0] == (0.0, 6000, 60)
    assert len(found) == 61
    assert (await counted(kept, FAST))[0] == (0.0, 6000, 600)
    async with kept.transaction() as tx:
        await rollups.upkeep(tx, SHOP, T + MINUTES_FOR + 3 * HOUR)
    assert await counted(kept) == [(0.0, 6000, 60), (float(HOUR), 6000, 60)]
    async with kept.transaction() as tx:
        await rollups.upkeep(tx, SHOP, T + HOURS_FOR + 1)
    assert await counted(kept) == [(float(HOUR), 6000, 60)]


def test_rows_with_other_bounds_are_summed_by_what_they_tell() -> None:
    one, other = Difference(10, 0, {100: 5, 300: 10}), Difference(10, 0, {200: 8, 400: 10})
    assert rollups._sum([one, other]).latency == {100: 5, 200: 13, 300: 18, 400: 20}


# --- the sampler --------------------------------------------------------------------------------------------


class Proxy:
    """A data plane that counts a hundred requests between any two readings."""

    def __init__(self) -> None:
        self.requests, self.asked = 0, list[Place]()
        self.away = set[str]()

    async def counters(self, service: str, environment: str) -> tuple[Counters, ...]:
        self.asked.append((service, environment))
        await asyncio.sleep(0)
        if service in self.away:
            raise Unavailable("the node agent does not answer")
        self.requests += 100
        return (reading(self.requests),)


async def only_shop(tx: Transaction) -> Collection[Place]:
    return [SHOP]


async def test_it_reads_what_has_objectives_when_it_is_due(kept: Store) -> None:
    proxy = Proxy()
    sampler = Sampler(kept, proxy, only_shop, every=3600.0)
    assert (await sampler.tick(), await sampler.tick()) == (1, 0)
    assert proxy.asked == [SHOP]

    async def nothing(tx: Transaction) -> Collection[Place]:
        return []

    assert await Sampler(kept, proxy, nothing, every=0.0).tick() == 0
    assert proxy.asked == [SHOP]


async def test_two_of_them_count_every_request_once(kept: Store) -> None:
    """Whoever comes first; and when one dies, the other goes on from its last reading."""
    proxy = Proxy()
    samplers = [Sampler(kept, proxy, only_shop, every=0.0) for _ in range(2)]
    await samplers[0].tick()
    first = proxy.requests
    for _ in range(20):
        await asyncio.gather(*(sampler.tick() for sampler in samplers))
    async with asyncio.timeout(20):
        while not await samplers[1].tick():  # the other is dead; and the clock may not have gone on
            await asyncio.sleep(0.001)
    assert sum(n for _, n, _ in await counted(kept)) == proxy.requests - first


async def test_one_that_dies_is_taken_over_from(kept: Store) -> None:
    proxy = Proxy()
    one, other = (asyncio.create_task(Sampler(kept, proxy, only_shop, every=0.03).run()) for _ in range(2))
    try:
        await until(lambda: len(proxy.asked) > 4)
        one.cancel()
        await asyncio.gather(one, return_exceptions=True)
        before = len(proxy.asked)
        await until(lambda: len(proxy.asked) > before + 4)
    finally:
        other.cancel()
        await asyncio.gather(other, return_exceptions=True)


async def test_a_service_that_cannot_be_read_holds_no_other_up(kept: Store) -> None:
    proxy = Proxy()
    proxy.away = {"catalog"}

    async def both(tx: Transaction) -> Collection[Place]:
        return [("catalog", "production"), SHOP]

    assert await Sampler(kept, proxy, both, every=0.0).tick() == 1


async def test_it_goes_on_whatever_happens(kept: Store) -> None:
    calls = 0

    async def broken(tx: Transaction) -> Collection[Place]:
        nonlocal calls
        calls += 1
        raise ValueError("a fault of our own")

    task = asyncio.create_task(Sampler(kept, Proxy(), broken, every=0.01).run())
    try:
        await until(lambda: calls > 3)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_how_an_objective_stands_now(kept: Store) -> None:
    async with kept.transaction(write=False) as tx:
        now = await tx.now()
        assert (await stand(tx, ERRORS, 3)).state == "unknown"
    await add(kept, now - 60, reading(0))
    await add(kept, now, reading(10_000, 500))
    async with kept.transaction(write=False) as tx:
        found = await stand(tx, ERRORS, 3)
    assert (found.state, found.left, found.entry) == ("exhausted", -4.0, 3)


async def until(met: object, seconds: float = 20.0) -> None:
    assert callable(met)
    async with asyncio.timeout(seconds):
        while not met():
            await asyncio.sleep(0.01)
