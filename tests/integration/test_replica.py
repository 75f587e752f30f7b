"""While one of several control planes starts it is alone, however long that takes; or it goes no further."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from penstock.bootstrap.replica import Replica
from penstock.engine import seats
from penstock.engine.seats import Seat
from penstock.errors import Conflict, Invalid
from penstock.ports import Store

LONG, SHORT = 60.0, 0.3
SECONDS = 20.0


@pytest.fixture
async def replica(store: Store) -> AsyncIterator[Replica]:
    await seats.migrate(store)
    held = [Seat(store, name, SHORT) for name in ("replica-1", "starting")]
    for seat in held:
        assert await seat.take()
    made = Replica(store, *held)
    yield made
    await made.leave()


async def test_nobody_else_starts_or_has_its_name_until_it_is_done(store: Store, replica: Replica) -> None:
    starting, named = Seat(store, "starting", LONG), Seat(store, "replica-1", LONG)

    async def opening() -> str:
        for _ in range(20):
            assert not await starting.take()
            assert not await named.take()
            await asyncio.sleep(SHORT / 10)
        return "opened"

    assert await replica.start(opening()) == "opened"
    assert await starting.take()
    assert not await named.take()


@pytest.mark.parametrize("seat", ["starting", "replica-1"])
async def test_whoever_was_taken_for_dead_goes_no_further(store: Store, replica: Replica, seat: str) -> None:
    gone = asyncio.Event()

    async def opening() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()

    async with store.transaction() as tx:
        await tx.execute("UPDATE seats SET holder = 'other', until = until + 60 WHERE name = ?", (seat,))
    with pytest.raises(Conflict, match="not heard of"):
        await asyncio.wait_for(replica.start(opening()), SECONDS)
    assert gone.is_set()


async def test_what_keeps_it_from_starting_is_told_and_the_next_may_try(
    store: Store, replica: Replica
) -> None:
    async def opening() -> None:
        raise Invalid("no such cluster")

    with pytest.raises(Invalid, match="no such cluster"):
        await replica.start(opening())
    assert await Seat(store, "starting", LONG).take()
