"""The clock is stepped under a delivery, on both stores: where it is read, in the database's own expression.

All leases, deadlines, waits and signed times come from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.adapters.postgres import PostgresStore
from penstock.adapters.sqlite import SqliteStore
from penstock.engine import journal
from penstock.engine.plans import planned
from penstock.ledger.fsck import verify
from penstock.ports import Store
from tests.integration.engine.stage import CONFIG, FakeEngine, Stage, running, stage

HOUR, DAY = 3600, 86400
Step = Callable[[int], None]


@pytest.fixture
def step(store: Store, monkeypatch: pytest.MonkeyPatch) -> Step:
    """Sets the clock of this test's store so many seconds off; other stores of the process keep theirs."""
    monkeypatch.setattr(journal, "COMMIT_SECONDS", 0.2)
    assert isinstance(store, SqliteStore | PostgresStore)
    right = store.raw_clock

    def set_off(seconds: int) -> None:
        store.raw_clock = f"({right} + ({seconds}))"

    return set_off


async def in_order(s: Stage, *deliveries: str) -> None:
    """No record is older than the one before it, and the ledger holds."""
    for delivery in deliveries:
        ended = [record.ended for record in (await s.find(delivery)).records]
        assert ended == sorted(ended)
    assert (await verify(s.store, None, {})).verified


async def test_a_clock_that_is_set_back_holds_nobody_up(tmp_path: Path, store: Store, step: Step) -> None:
    async with stage(tmp_path, store) as s:
        engine = FakeEngine()
        step(HOUR)
        engine.before = lambda intent: step(0) if intent.verb == "shift" else None  # looks are still to come
        await s.queue("d-1")
        async with running(await s.worker("w", engine)):
            await s.ended("d-1", seconds=20.0)
        assert (await s.find("d-1")).outcome == "promoted"
        assert len(engine.keys("d-1")) == len(set(engine.keys("d-1"))), "something was done twice"
        await in_order(s, "d-1")


async def test_a_dead_workers_lease_ends_though_the_clock_was_set_back(
    tmp_path: Path, store: Store, step: Step
) -> None:
    async with stage(tmp_path, store, lease_seconds=1.0) as s:
        step(HOUR)
        await s.queue("d-1")
        dead = await s.worker("dead", FakeEngine())
        assert await s.journal.claim(dead.owner) is not None
        step(0)
        async with running(await s.worker("w", FakeEngine())):
            await s.ended("d-1", seconds=20.0)
        assert (await s.find("d-1")).outcome == "promoted"
        await in_order(s, "d-1")


async def test_a_clock_that_is_set_forward_within_the_deadlines_changes_nothing(
    tmp_path: Path, store: Store, step: Step
) -> None:
    async with stage(tmp_path, store) as s:
        engine = FakeEngine()
        engine.before = lambda intent: step(HOUR // 4) if intent.verb == "acceptance" else None
        await s.queue("d-1")
        async with running(await s.worker("w", engine)):
            await s.ended("d-1")
        assert (await s.find("d-1")).outcome == "promoted"
        await in_order(s, "d-1")


async def test_what_is_over_its_deadline_by_the_clock_is_undone_and_the_next_one_goes_on(
    tmp_path: Path, store: Store, step: Step
) -> None:
    async with stage(tmp_path, store) as s:
        engine = FakeEngine()
        engine.holds["acceptance"] = asyncio.Event()
        engine.before = lambda intent: step(DAY) if intent.verb == "acceptance" else None
        await s.queue("d-1", pipeline=planned("code", CONFIG))
        async with running(await s.worker("w", engine)):
            await s.ended("d-1")
            engine.holds.clear()
            engine.before = lambda intent: step(0) if intent.verb == "build" else None  # set right again
            await s.queue("d-2", pipeline=planned("code", CONFIG))
            await s.ended("d-2", seconds=20.0)
        first, second = await s.find("d-1"), await s.find("d-2")
        assert (first.state, first.outcome) == ("timeout", "rolled-back")
        assert second.outcome == "promoted"
        await in_order(s, "d-1", "d-2")
