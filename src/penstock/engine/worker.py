"""The worker: claims deliveries and drives them, until there is nothing to do; then it sleeps.

Started by bootstrap, one or more to a store. Level-triggered: it holds nothing in memory that a
restart would lose, and whoever claims a delivery next goes on from its records.
"""

from __future__ import annotations

import asyncio
import logging

from penstock.engine.commit import Means
from penstock.engine.drive import Drive
from penstock.engine.journal import Delivery, Journal
from penstock.engine.performer import Engine
from penstock.errors import Conflict, Unavailable
from penstock.ledger.log import Ledger
from penstock.ports import Signer, Store

log = logging.getLogger(__name__)

#: How many deliveries a worker has at a time.
SLOTS = 4
#: How long a sleeping worker trusts its last look at the journal.
IDLE_SECONDS = 1.0


class Worker:
    """One worker; up to *slots* deliveries at a time, each in a task of its own."""

    def __init__(
        self,
        store: Store,
        journal: Journal,
        ledger: Ledger,
        engine: Engine,
        signer: Signer,
        *,
        slots: int = SLOTS,
    ) -> None:
        self._means = Means(store, journal, ledger, engine, signer)
        self._slots = slots
        self._running: set[asyncio.Task[None]] = set()

    @property
    def owner(self) -> str:
        return self._means.signer.keyid

    async def run(self) -> None:
        """Work until cancelled; then let go of what is held, for the next worker."""
        try:
            while True:
                try:
                    await self._fill()
                    await self._rest()
                    await asyncio.sleep(0)  # a step that begins now runs beside our look for more
                except Exception:  # whatever it is, nobody else would deliver instead
                    log.exception("the worker goes on")
                    await asyncio.sleep(IDLE_SECONDS)
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def _fill(self) -> None:
        while len(self._running) < self._slots:
            delivery = await self._claim()
            if delivery is None:
                return
            task = asyncio.create_task(self._drive(delivery))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _claim(self) -> Delivery | None:
        try:
            return await self._means.journal.claim(self.owner)
        except Unavailable as error:
            log.warning("cannot claim: %s", error)
            await asyncio.sleep(IDLE_SECONDS)
            return None

    async def _rest(self) -> None:
        if len(self._running) >= self._slots:
            await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            return
        due = self._means.journal.due
        await self._means.store.wake(min(IDLE_SECONDS, IDLE_SECONDS if due is None else max(due, 0.01)))

    async def _drive(self, delivery: Delivery) -> None:
        try:
            await Drive(self._means, delivery).run()
        except Conflict as error:
            log.info("let go: %s", error)
        except Unavailable as error:
            log.warning("%s: %s", delivery.id, error)
        except Exception:
            log.exception("delivery %s stopped; its lease will end", delivery.id)
