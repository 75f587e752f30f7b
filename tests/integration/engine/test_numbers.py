"""What the engine counts, on every store: take-overs, failed attempts, queues, stuck deliveries, steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from integration.engine.stage import FakeEngine, Stage, running, stage
from penstock.core.pipeline import Intent, Record, State
from penstock.engine import numbers
from penstock.engine.numbers import BOUNDS, Numbers
from penstock.errors import Unavailable
from penstock.ports import Store

LEASE = 10.0


@pytest.fixture
async def stage_(short_tmp: Path, store: Store) -> Stage:
    async with stage(short_tmp, store, LEASE) as made:
        return made


async def read(stage_: Stage) -> Numbers:
    async with stage_.store.transaction(write=False) as tx:
        return await numbers.read(tx, LEASE)


async def later(stage_: Stage, delivery: str, columns: str, seconds: float) -> None:
    """Set *columns* (lease, wake, created) to so many seconds from now; negative is in the past."""
    async with stage_.store.transaction() as tx:
        at = await tx.now() + seconds
        for column in columns.split():
            await tx.execute(f"UPDATE deliveries SET {column} = ? WHERE id = ?", (at, delivery))


async def test_an_empty_store_has_zeros(stage_: Stage) -> None:
    found = await read(stage_)
    assert set(found.deliveries.values()) == {0}
    assert (found.queues, found.stuck, found.steps, found.failed_attempts, found.take_overs) == (
        {},
        0,
        (),
        {},
        0,
    )


async def test_a_lease_that_ended_unreturned_is_a_take_over(stage_: Stage) -> None:
    await stage_.queue("shop-1")
    assert await stage_.journal.claim("a")
    await later(stage_, "shop-1", "lease", -1)
    assert await stage_.journal.claim("b")
    assert (await read(stage_)).take_overs == 1


async def test_a_lease_that_was_given_back_is_none(stage_: Stage) -> None:
    await stage_.queue("shop-1")
    held = await stage_.journal.claim("a")
    assert held
    await stage_.journal.release(held, "a", 0.0)
    assert await stage_.journal.claim("b")
    assert (await read(stage_)).take_overs == 0


async def test_failed_attempts_are_counted_by_verb(stage_: Stage) -> None:
    await stage_.queue("shop-1")
    for _ in range(2):
        held = await stage_.journal.claim("a")
        assert held
        await stage_.journal.postpone(held, "a", Intent("build", "build"), "away")
        await stage_.journal.release(held, "a", 0.0)
        await later(stage_, "shop-1", "wake", -1)
    assert (await read(stage_)).failed_attempts == {"build": 2}


async def test_the_oldest_pending_delivery_gives_the_queues_age(stage_: Stage) -> None:
    await stage_.queue("shop-1")
    await stage_.queue("cart-1", "cart")
    await later(stage_, "cart-1", "created", -100)
    await later(stage_, "shop-1", "created", -50)
    found = await read(stage_)
    assert found.deliveries["pending"] == 2
    assert 100 <= found.queues["production"] < 160
    await stage_.journal.claim("a")
    await stage_.journal.claim("a")
    assert (await read(stage_)).queues == {"production": 0.0}


@pytest.mark.parametrize(
    ("columns", "seconds", "stuck"),
    [
        ("lease", -2.9 * LEASE, 0),
        ("lease", -3.1 * LEASE, 1),
        ("wake", -3.1 * LEASE, 1),
        ("wake", 3600.0, 0),
        ("lease wake", -3.1 * LEASE, 1),
    ],
)
async def test_a_delivery_is_stuck_if_nobody_takes_it_up(
    stage_: Stage, columns: str, seconds: float, stuck: int
) -> None:
    await stage_.queue("shop-1")
    held = await stage_.journal.claim("a")
    assert held
    await stage_.journal.release(held, "a", 0.0)
    await later(stage_, "shop-1", columns, seconds)
    assert (await read(stage_)).stuck == stuck


async def test_one_that_was_just_woken_is_not_stuck(stage_: Stage) -> None:
    await stage_.queue("shop-1")
    held = await stage_.journal.claim("a")
    assert held
    await stage_.journal.release(held, "a", 1e10)
    async with stage_.store.transaction() as tx:
        await stage_.journal.nudge(tx)
    assert (await read(stage_)).stuck == 0


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0, 0), (0.05, 0), (0.051, 1), (1800.0, 9), (1e6, 10), (-5.0, 0)]
)
async def test_a_step_falls_into_one_bucket(stage_: Stage, seconds: float, bucket: int) -> None:
    record = Record(Intent("build", "build"), State.SUCCESS, 100.0, 100.0 + seconds)
    async with stage_.store.transaction() as tx:
        await numbers.steps_done(tx, [record])
        await numbers.steps_done(tx, [record, record])
    (steps,) = (await read(stage_)).steps
    assert len(steps.buckets) == len(BOUNDS) + 1
    assert [at for at, count in enumerate(steps.buckets) if count] == [bucket]
    assert steps.buckets[bucket] == 3
    assert steps.seconds == pytest.approx(3 * max(0.0, seconds))


async def test_a_whole_delivery_leaves_as_many_steps_as_records(stage_: Stage) -> None:
    engine = FakeEngine(fails={"build": [Unavailable("away")]})
    await stage_.queue("shop-1")
    async with running(await stage_.worker("w", engine)):
        await stage_.ended("shop-1")
    found = await read(stage_)
    records = (await stage_.find("shop-1")).records
    assert sum(sum(steps.buckets) for steps in found.steps) == len(records) > 5
    assert found.failed_attempts == {"build": 1}
    assert found.deliveries["success"] == 1


async def test_places_are_those_of_the_newest_deliveries_each_once(stage_: Stage) -> None:
    for delivery, service in (("a-1", "a"), ("b-1", "b"), ("c-1", "c"), ("c-2", "c")):
        await stage_.queue(delivery, service)
    async with stage_.store.transaction(write=False) as tx:
        assert await numbers.places(tx, 3) == {("b", "production"), ("c", "production")}
