"""Reads the data plane's counters now and then, for the services that have objectives, and keeps what is new.

Run by every process that has a worker; whoever comes first reads, and `rollups.add` lets one reading count
once. So it goes on while any of them lives, and nobody holds a lease. Must not judge anything.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence

from penstock.core.traffic import Counters
from penstock.errors import PenstockError
from penstock.ports import Metrics, Store, Transaction
from penstock.telemetry import rollups
from penstock.telemetry.rollups import Place

log = logging.getLogger(__name__)

#: Seconds between two readings of a service.
EVERY = 15.0
#: So many services are read side by side, and kept in one transaction.
AT_ONCE = 8
IN_ONE = 64
UPKEEP_EVERY = 3600.0

#: Which services have objectives, as the ledger says.
Watched = Callable[[Transaction], Awaitable[Collection[Place]]]


class Sampler:
    def __init__(self, store: Store, metrics: Metrics, watched: Watched, every: float = EVERY) -> None:
        self._store = store
        self._metrics = metrics
        self._watched = watched
        self._every = every
        self._kept_up = 0.0
        self._room = asyncio.Semaphore(AT_ONCE)

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            try:
                await self.tick()
            except Exception:  # whatever it is, the next reading spreads over this time
                log.exception("counting goes on")
            await asyncio.sleep(self._every / 3)

    async def tick(self) -> int:
        """Read every service whose last reading is old enough; returns how many readings were kept."""
        async with self._store.transaction(write=False) as tx:
            places = await self._watched(tx)
            last = await rollups.last_read(tx) if places else {}
            now = await tx.now()
        due = sorted((last.get(place, 0.0), place) for place in places)
        due = [(seen, place) for seen, place in due if now - seen >= self._every]
        kept = 0
        for start in range(0, len(due), IN_ONE):
            kept += await self._keep(due[start : start + IN_ONE])
        if due and now - self._kept_up >= UPKEEP_EVERY:
            await self._keep_up(sorted(last), now)
        return kept

    async def _keep_up(self, places: Sequence[Place], now: float) -> None:
        for start in range(0, len(places), AT_ONCE):  # others write between these
            async with self._store.transaction() as tx:
                for place in places[start : start + AT_ONCE]:
                    await rollups.upkeep(tx, place, now)
        self._kept_up = now

    async def _keep(self, due: Sequence[tuple[float, Place]]) -> int:
        found = await asyncio.gather(*(self._read(place) for _, place in due))
        kept = 0
        async with self._store.transaction() as tx:
            now = await tx.now()
            for (seen, place), counters in zip(due, found, strict=True):
                if counters is not None:
                    kept += await rollups.add(tx, place, seen, now, counters)
        return kept

    async def _read(self, place: Place) -> tuple[Counters, ...] | None:
        async with self._room:
            try:
                return await self._metrics.counters(*place)
            except PenstockError as error:
                log.info("%s is not counted: %s", place[0], error)
                return None
