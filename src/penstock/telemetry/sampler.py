"""Reads the data plane's counters at intervals, for services that have objectives, and keeps the increase.

Every process with a worker runs it, and the first to come reads; `rollups.add` counts each reading once. So
sampling goes on while any of these processes lives, without a lease. Must not judge anything.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Sequence

from penstock.core.traffic import Counters
from penstock.errors import PenstockError
from penstock.ports import Metrics, Store, Transaction
from penstock.telemetry import rollups
from penstock.telemetry.rollups import Place

log = logging.getLogger(__name__)

#: Seconds between two readings of a service.
EVERY = 15.0
#: So many services are read side by side, which the data plane may answer together, and kept in one
#: transaction.
AT_ONCE = 64
#: So many are folded and pruned in one transaction.
FOLDED = 8
#: Of all the time, one part in so many is spent on reading at most: more services are read more seldom.
SHARE = 5
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

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            began = time.monotonic()
            try:
                await self.tick()
            except Exception:  # whatever it is, the next reading spreads over this time
                log.exception("counting goes on")
            took = time.monotonic() - began
            await asyncio.sleep(max(self._every / 3, (SHARE - 1) * took))

    async def tick(self) -> int:
        """Read every service whose last reading is old enough; returns how many readings were kept."""
        async with self._store.transaction(write=False) as tx:
            places = await self._watched(tx)
            last = await rollups.last_read(tx) if places else {}
            now = await tx.now()
        due = sorted((last.get(place, 0.0), place) for place in places)
        due = [(seen, place) for seen, place in due if now - seen >= self._every]
        kept = 0
        for start in range(0, len(due), AT_ONCE):
            kept += await self._keep(due[start : start + AT_ONCE])
        if due and now - self._kept_up >= UPKEEP_EVERY:
            await self._keep_up(sorted(last), now)
        return kept

    async def _keep_up(self, places: Sequence[Place], now: float) -> None:
        for start in range(0, len(places), FOLDED):  # others write between these
            async with self._store.transaction() as tx:
                for place in places[start : start + FOLDED]:
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
        try:
            return await self._metrics.counters(*place)
        except PenstockError as error:
            log.info("%s is not counted: %s", place[0], error)
            return None
