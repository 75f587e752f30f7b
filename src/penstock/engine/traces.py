"""Exports deliveries as traces, in the background: a span for each recorded step, at least once.

Started by bootstrap in the one process that holds the server's lock, if a collector is named. Spans are made
from what was committed, never from what is going on: a follower of the ledger says which deliveries moved,
and their records are read from the journal. A collector that is down stops nothing, and nothing is kept for
it in memory: the follower's place stays where it is until it is back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from penstock.core import otlp
from penstock.core.evidence import Entry
from penstock.core.otlp import Run, Span
from penstock.core.predicates import Ended
from penstock.engine import moments
from penstock.engine.insist import insist
from penstock.engine.journal import Delivery, Journal
from penstock.engine.worker import plan
from penstock.errors import Unavailable
from penstock.ledger import follow
from penstock.ledger.log import Ledger
from penstock.ports import Receiver, Store, Transaction

log = logging.getLogger(__name__)

FOLLOWER = "traces"
#: Entries read at a time.
PAGE = 100
#: Open deliveries of which it is remembered how far they were exported; the others are exported again.
REMEMBERED = 1000
#: The collector can never take this; asking again would only hold up the rest.
HOPELESS = (400, 413, 422)


@dataclass(frozen=True)
class Collector:
    """Where spans go. *open* makes the way there, *pages* is where people see deliveries."""

    open: Callable[[], Receiver]
    pages: str
    version: str
    headers: Mapping[str, str] = field(default_factory=dict)
    resource: Mapping[str, str] = field(default_factory=dict)


class Traces:
    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        journal: Journal,
        collector: Collector | None,
        pause: float = 0.5,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._journal = journal
        self._collector = collector
        self._pause = pause
        self._seen = 0
        #: How many records of an open delivery were exported. Lost in a crash: then they are exported again.
        self._exported: dict[str, int] = {}
        #: How often sending failed since this process started.
        self.failures = 0

    async def run(self) -> None:
        """Export until cancelled; return at once if there is no collector."""
        collector = self._collector
        if collector is None:
            return
        receiver = collector.open()

        async def turn() -> bool:
            return await self._turn(collector, receiver)

        try:
            await insist(self._store, "traces", turn, self._failed, self._pause)
        finally:
            await receiver.close()

    async def behind(self, tx: Transaction) -> int | None:
        """How many entries were not looked at yet; None if there is no collector."""
        if self._collector is None:
            return None
        return await self._ledger.size(tx) - max(self._seen, await follow.place(tx, FOLLOWER))

    def _failed(self, error: Exception) -> None:
        self.failures += 1

    async def _turn(self, collector: Collector, receiver: Receiver) -> bool:
        async with self._store.transaction(write=False) as tx:
            kept = await follow.place(tx, FOLLOWER)
            size = await self._ledger.size(tx)
            entries = await self._ledger.entries(tx, max(self._seen, kept), PAGE)
            moved = await self._moved(tx, entries)
        if kept == 0:  # a new follower: what has happened before it is history
            await self._done(size)
            return True
        if not entries:
            return False
        spans = [span for delivery, ended in moved for span in self._spans(collector, delivery, ended)]
        if spans:
            await self._send(collector, receiver, spans)
            self._remember(moved)
        if spans or len(entries) == PAGE:
            await self._done(entries[-1].index + 1)
        self._seen = entries[-1].index + 1
        return True

    async def _moved(self, tx: Transaction, entries: Sequence[Entry]) -> list[tuple[Delivery, bool]]:
        """The deliveries that the entries are of, each once, and whether one of them is its end."""
        ended: dict[str, bool] = {}
        for entry in entries:
            if named := moments.delivery_named(entry):
                ended[named] = ended.get(named, False) or isinstance(entry.statement.predicate, Ended)
        found = [(await moments.known(self._journal, tx, named), end) for named, end in ended.items()]
        return [(delivery, end) for delivery, end in found if delivery is not None]

    def _spans(self, collector: Collector, delivery: Delivery, ended: bool) -> list[Span]:
        run = _run(delivery, collector.pages)
        done = self._exported.get(delivery.id, 0)
        spans = [otlp.step_span(run, record) for record in delivery.records[done:]]
        if done == 0 and delivery.records:
            spans.insert(0, otlp.pending_span(run, delivery.records[0].began))
        return [*spans, otlp.run_span(run)] if ended else spans

    def _remember(self, moved: Sequence[tuple[Delivery, bool]]) -> None:
        for delivery, ended in moved:
            if ended:
                self._exported.pop(delivery.id, None)
            else:
                self._exported[delivery.id] = len(delivery.records)
        while len(self._exported) > REMEMBERED:
            del self._exported[next(iter(self._exported))]

    async def _done(self, to: int) -> None:
        async with self._store.transaction() as tx:
            await follow.advance(self._ledger, tx, FOLLOWER, to)

    async def _send(self, collector: Collector, receiver: Receiver, spans: Sequence[Span]) -> None:
        body = otlp.request(collector.resource, collector.version, spans)
        status = await receiver.post(body, {"content-type": otlp.CONTENT_TYPE, **collector.headers})
        if status in HOPELESS:
            self.failures += 1
            log.error("the collector answered %s: %s spans are lost to it", status, len(spans))
        elif not 200 <= status < 300:
            raise Unavailable(f"the collector answered {status}")


def _run(delivery: Delivery, pages: str) -> Run:
    return Run(
        delivery=delivery.id,
        pipeline=plan(delivery).name,
        url=f"{pages}/deliveries/{delivery.id}",
        change=delivery.header.change,
        state=delivery.state,
        outcome=delivery.outcome,
        created=delivery.created,
        ended=delivery.ended,
    )
