"""Tells webhooks what happened, in the background: at least once, in the ledger's order, one task for each.

Started by bootstrap in the one process that holds the server's lock. Nothing waits for a receiver, and no
receiver for another. How far each has come is its follower's place, which moves after the receiver said yes:
a crash in between sends the same event again, under the same id. After any answer but 2xx it is sent again,
more and more patiently; 410 Gone ends it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from penstock.core import cdevents, webhook
from penstock.core.cdevents import Circumstances, Event
from penstock.core.evidence import Entry
from penstock.core.webhook import Webhook
from penstock.engine import moments
from penstock.engine.insist import insist
from penstock.engine.journal import Journal
from penstock.engine.worker import plan
from penstock.errors import PenstockError, Unavailable
from penstock.ledger import follow, hooks
from penstock.ledger.log import Ledger
from penstock.ports import Receiver, Store, Transaction

log = logging.getLogger(__name__)

#: A new or removed webhook is noticed this late, should the wake-up be lost.
LOOK_SECONDS = 5.0
#: Entries read at a time.
PAGE = 100
GONE = 410


@dataclass(frozen=True)
class Outside:
    """The way out: *pages* is where people see deliveries, *secret* reads one by the webhook's name."""

    pages: str
    receiver: Callable[[str], Receiver]
    secret: Callable[[str], bytes]


class Webhooks:
    def __init__(self, store: Store, ledger: Ledger, journal: Journal, outside: Outside, pause: float = 0.5):
        self._store = store
        self._ledger = ledger
        self._journal = journal
        self._outside = outside
        self._pause = pause
        self._tasks: dict[Webhook, asyncio.Task[None]] = {}
        self._seen: dict[str, int] = {}
        #: What is wrong with a webhook now, and how often sending failed since this process started; by name.
        self.problems: dict[str, str] = {}
        self.failures: dict[str, int] = {}

    async def run(self) -> None:
        """Keep one task for each webhook that is not disabled, until cancelled."""
        try:
            while True:
                try:
                    await self._arrange()
                except Exception as error:  # a list that cannot be read now, may be read later
                    log.warning("webhooks: %s", error, exc_info=not isinstance(error, PenstockError))
                await self._store.wake(LOOK_SECONDS)
        finally:
            await self._end(list(self._tasks))

    async def try_out(self, name: str, number: str) -> int:
        """Send one test event now; returns the status of the answer."""
        async with self._store.transaction(write=False) as tx:
            hook = await hooks.find(tx, name)
            seen = Circumstances(await self._source(tx), self._outside.pages, await tx.now())
        receiver = self._outside.receiver(hook.url)
        try:
            return await self._post(hook, receiver, cdevents.trial_event(name, number, seen))
        finally:
            await receiver.close()

    async def behind(self, tx: Transaction) -> dict[str, int]:
        """How many entries each webhook has still to be told of, or passed over."""
        size = await self._ledger.size(tx)
        return {
            hook.name: size
            - max(await follow.place(tx, hooks.follower(hook.name)), self._seen.get(hook.name, 0))
            for hook in await hooks.every(tx)
        }

    async def _arrange(self) -> None:
        async with self._store.transaction(write=False) as tx:
            wanted = [hook for hook in await hooks.every(tx) if not hook.disabled]
        await self._end([hook for hook in self._tasks if hook not in wanted])
        for hook in wanted:
            if hook not in self._tasks:
                self._tasks[hook] = asyncio.create_task(self._tend(hook))

    async def _end(self, unwanted: list[Webhook]) -> None:
        tasks = [self._tasks.pop(hook) for hook in unwanted]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for hook in unwanted:
            self.problems.pop(hook.name, None)
            self._seen.pop(hook.name, None)

    async def _tend(self, hook: Webhook) -> None:
        receiver = self._outside.receiver(hook.url)

        def failed(error: Exception) -> None:
            self.failures[hook.name] = self.failures.get(hook.name, 0) + 1
            self.problems[hook.name] = str(error).partition("\n")[0] or type(error).__name__

        async def turn() -> bool:
            moved = await self._turn(hook, receiver)
            self.problems.pop(hook.name, None)
            return moved

        try:
            await insist(self._store, f"webhook {hook.name}", turn, failed, self._pause)
        finally:
            await receiver.close()

    async def _turn(self, hook: Webhook, receiver: Receiver) -> bool:
        """Send what the next entries mean; False if there are none."""
        name = hooks.follower(hook.name)
        async with self._store.transaction(write=False) as tx:
            if hook not in await hooks.every(tx):
                return False  # removed or disabled meanwhile: this task is about to be ended
            start = max(await follow.place(tx, name), self._seen.get(hook.name, 0))
            entries = await self._ledger.entries(tx, start, PAGE)
        for entry in entries:
            event = await self._event(entry)
            if event is not None:
                await self._send(hook, receiver, event)
                await self._done(name, entry.index + 1)
            # Entries that nobody is told of are passed over in memory: a place kept is a write to the disk.
            self._seen[hook.name] = entry.index + 1
        if len(entries) == PAGE:
            await self._done(name, entries[-1].index + 1)
        return bool(entries)

    async def _done(self, name: str, to: int) -> None:
        async with self._store.transaction() as tx:
            await follow.advance(self._ledger, tx, name, to)

    async def _event(self, entry: Entry) -> Event | None:
        async with self._store.transaction(write=False) as tx:
            seen = Circumstances(await self._source(tx), self._outside.pages, await tx.now())
            if cdevents.event_of(entry, seen) is None:
                return None
            return cdevents.event_of(entry, await self._circumstances(tx, entry, seen))

    async def _circumstances(self, tx: Transaction, entry: Entry, seen: Circumstances) -> Circumstances:
        named = await moments.delivery_of(self._ledger, tx, entry)
        found = await moments.known(self._journal, tx, named) if named else None
        at = moments.happened(entry, found)
        return Circumstances(
            source=seen.source,
            pages=seen.pages,
            at=seen.at if at is None else at,
            delivery=named,
            pipeline=plan(found).name if found else "",
            change=found.header.change if found else None,
        )

    async def _source(self, tx: Transaction) -> str:
        return await moments.source(self._ledger, tx)

    async def _send(self, hook: Webhook, receiver: Receiver, event: Event) -> None:
        status = await self._post(hook, receiver, event)
        if status == GONE:
            await self._disable(hook)
        if not 200 <= status < 300:
            raise Unavailable(f"answered {status} to {event.type}", where=hook.url)

    async def _post(self, hook: Webhook, receiver: Receiver, event: Event) -> int:
        async with self._store.transaction(write=False) as tx:
            now = int(await tx.now())
        signed = webhook.headers(self._outside.secret(hook.name), event.id, now, event.body)
        return await receiver.post(event.body, {"content-type": cdevents.CONTENT_TYPE, **signed})

    async def _disable(self, hook: Webhook) -> None:
        async with self._store.transaction() as tx:
            await hooks.disable(tx, hook.name, "the receiver answered 410 Gone")
