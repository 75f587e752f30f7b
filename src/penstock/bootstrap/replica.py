"""One of several control planes on one store: the name it works under, and its turn at what only one does.

Called by `serve`, for ``penstock up --foreground --replica``. They share keys, artifacts and logs by a volume
and no machine: so no lock of a file tells them apart, and the store does. There is no leader: each answers
and delivers, and takes its turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from penstock.bootstrap.control import open_store, store_place
from penstock.bootstrap.home import Home
from penstock.engine import schemas, seats
from penstock.engine.seats import Seat, wait_for
from penstock.errors import Conflict, Invalid, Unavailable
from penstock.ports import Store

#: Far more than anybody needs; each leaves a key behind, which the next one of its name goes on with.
MOST = 64
#: What only one of them does: telling witnesses, webhooks and collectors of traces.
SENDERS = "senders"


T = TypeVar("T")


@dataclass(frozen=True)
class Replica:
    """*store* is a connection of its own: the name is *kept* while the control plane's is busy. While it is
    *starting* nobody else is: of several that find an empty store and no keys, one makes them."""

    store: Store
    seat: Seat
    starting: Seat
    kept: asyncio.Task[None] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kept", asyncio.ensure_future(self.seat.keep()))

    @property
    def name(self) -> str:
        return self.seat.name

    async def start(self, opening: Coroutine[Any, Any, T]) -> T:
        """What *opening* comes to: however long it takes, nobody else starts meanwhile, or is called as it
        is. `Conflict` if that was so all the same, of a process that had stopped, say: it goes no further.
        """
        work, turn = asyncio.ensure_future(opening), asyncio.ensure_future(self.starting.keep())
        try:
            await asyncio.wait((work, turn, self.kept), return_when=asyncio.FIRST_COMPLETED)
            if turn.done() or self.kept.done():
                raise self._lost("another one starts")
            return work.result()
        finally:
            for task in (work, turn):
                task.cancel()
            await asyncio.gather(work, turn, return_exceptions=True)
            await self.starting.leave()

    async def stay(self) -> None:
        """Keep the name; `Conflict` once it is somebody else's."""
        await self.kept
        raise self._lost(f"another one is {self.name}")

    def _lost(self, since: str) -> Conflict:
        what = f"this process was not heard of, and {since} by now"
        return Conflict(what, where="--replica", next_move="start it again: it will have another name")

    async def leave(self) -> None:
        self.kept.cancel()
        await asyncio.gather(self.kept, return_exceptions=True)
        for seat in (self.starting, self.seat):
            await seat.leave()
        await self.store.close()


async def join(home: Home) -> Replica:
    """Wait until nobody else is starting, and take the first name that is free. `Invalid` where there cannot
    be several."""
    _, place = store_place(home)
    if isinstance(place, Path):
        move = "PENSTOCK_STORE=postgresql://USER@HOST:PORT/DATABASE"
        raise Invalid("several control planes need one database server", where="--replica", next_move=move)
    if home.settings.cluster is None:
        move = "penstock up --cluster FILE --foreground --replica"
        raise Invalid("releases run on this machine, which has one", where="--replica", next_move=move)
    store = open_store(home)
    try:
        schemas.refuse_newer(await schemas.versions(store), str(home.path))
        await seats.migrate(store)
        starting = Seat(store, "starting")
        await wait_for(starting)
        return Replica(store, await _first_free(store), starting)
    except BaseException:
        await store.close()
        raise


async def _first_free(store: Store) -> Seat:
    for number in range(1, MOST + 1):
        seat = Seat(store, f"replica-{number}")
        if await seat.take():
            return seat
    raise Unavailable(f"there are {MOST} already", where="--replica", next_move="start fewer")
