"""Seats: of each name one process at a time is the holder, by a lease that the store keeps.

Used by bootstrap where several control planes share one store and no machine: for the name that each of them
works under, and for what only one of them is to do. Whoever holds a seat and is not heard of loses it, and
somebody else takes it. It must not guard what a delivery does: fences do that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable

from penstock.errors import Unavailable
from penstock.ports import Store

log = logging.getLogger(__name__)

SCHEMA = ("CREATE TABLE seats (name TEXT PRIMARY KEY, holder TEXT NOT NULL, until REAL NOT NULL)",)
#: How long a holder is not heard of before somebody else may take its seat.
SECONDS = 15.0


async def migrate(store: Store) -> None:
    await store.migrate("seats", SCHEMA)


class Seat:
    """One process's claim to the seat called *name*; a lease of it lasts so many *seconds*."""

    def __init__(self, store: Store, name: str, seconds: float = SECONDS) -> None:
        self.name = name
        self.seconds = seconds
        self._store = store
        self._holder = secrets.token_hex(8)

    async def take(self) -> bool:
        """Hold it from now on, or longer; False if somebody else does."""
        async with self._store.transaction() as tx:
            now = await tx.now()
            taken = await tx.changed(
                "INSERT INTO seats (name, holder, until) VALUES (?, ?, ?) "
                "ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until "
                "WHERE seats.holder = excluded.holder OR seats.until < ?",
                (self.name, self._holder, now + self.seconds, now),
            )
        return taken == 1

    async def keep(self) -> None:
        """Go on holding it; returns once somebody else has taken it. While the store is away, nobody does."""
        while True:
            await asyncio.sleep(self.seconds / 3)
            with contextlib.suppress(Unavailable):
                if not await self.take():
                    return

    async def leave(self) -> None:
        """Let others have it at once; if the store is away, when the lease ends."""
        with contextlib.suppress(Unavailable):
            async with self._store.transaction() as tx:
                await tx.changed(
                    "UPDATE seats SET until = 0 WHERE name = ? AND holder = ?", (self.name, self._holder)
                )


async def wait_for(seat: Seat) -> None:
    """Return once it is held."""
    while not await _taken(seat):
        await asyncio.sleep(seat.seconds / 10)


async def _taken(seat: Seat) -> bool:
    try:
        return await seat.take()
    except Unavailable as error:
        log.warning("cannot take the seat %s: %s", seat.name, error)
        return False


async def taking_turns(seat: Seat, work: Callable[[], Awaitable[object]]) -> None:
    """Do *work* while the seat is held, wait for the seat while it is not: until cancelled."""
    while True:
        await wait_for(seat)
        tasks = [asyncio.ensure_future(work()), asyncio.ensure_future(seat.keep())]
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                log.warning("%s: somebody else's turn", seat.name, exc_info=task.exception())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await seat.leave()
