"""A seat has one holder at a time, on each store; who is not heard of loses it, who leaves gives it up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from penstock.engine import seats
from penstock.engine.seats import Seat, taking_turns, wait_for
from penstock.ports import Store

#: Far longer than a test; and so short that it ends in one.
LONG, SHORT = 60.0, 0.3
SECONDS = 20.0


@pytest.fixture(autouse=True)
async def migrated(store: Store) -> None:
    await seats.migrate(store)


async def test_only_one_holds_it_and_whoever_does_may_hold_it_longer(store: Store) -> None:
    mine, other = Seat(store, "senders", LONG), Seat(store, "senders", LONG)
    assert await mine.take()
    assert await mine.take()
    assert not await other.take()
    assert await Seat(store, "another", LONG).take()


async def test_of_many_that_come_at_once_one_gets_it(store: Store) -> None:
    came = [Seat(store, "senders", LONG) for _ in range(8)]
    assert sum(await asyncio.gather(*(seat.take() for seat in came))) == 1


async def test_who_leaves_gives_it_up_and_nobody_elses(store: Store) -> None:
    mine, other = Seat(store, "senders", LONG), Seat(store, "senders", LONG)
    await mine.take()
    await other.leave()
    assert not await other.take()
    await mine.leave()
    assert await other.take()


async def test_who_is_not_heard_of_loses_it_and_is_told(store: Store) -> None:
    silent = Seat(store, "senders", SHORT)
    await silent.take()
    await asyncio.wait_for(wait_for(Seat(store, "senders", LONG)), SECONDS)
    await asyncio.wait_for(silent.keep(), SECONDS)


async def test_who_is_heard_of_keeps_it(store: Store) -> None:
    mine, other = Seat(store, "senders", SHORT), Seat(store, "senders", LONG)
    await mine.take()
    async with doing(mine.keep()):
        for _ in range(20):
            assert not await other.take()
            await asyncio.sleep(SHORT / 10)


async def test_work_is_done_by_one_and_by_the_next_when_that_one_ends(store: Store) -> None:
    at_work: list[str] = []

    async def work(name: str) -> None:
        at_work.append(name)
        try:
            await asyncio.Event().wait()
        finally:
            at_work.remove(name)

    def turns(name: str) -> contextlib.AbstractAsyncContextManager[None]:
        return doing(taking_turns(Seat(store, "senders", SHORT), lambda: work(name)))

    async with turns("two"):
        await until(lambda: at_work == ["two"])
        async with contextlib.AsyncExitStack() as first:
            await first.enter_async_context(turns("one"))
            await asyncio.sleep(2 * SHORT)
            assert at_work == ["two"]
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(turns("three"))
        await until(lambda: at_work == ["three"])
        async with turns("four"):
            await stack.aclose()
            await until(lambda: at_work == ["four"])
    assert at_work == []


async def test_work_that_fails_is_tried_again(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    tried = []

    async def fail() -> None:
        tried.append(1)
        raise ValueError("no receiver")

    async with doing(taking_turns(Seat(store, "senders", SHORT), fail)):
        await until(lambda: len(tried) > 1)
    assert "no receiver" in caplog.text


@asynccontextmanager
async def doing(work: Awaitable[None]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not met():
            await asyncio.sleep(0.01)
