"""The worker: claim → decide → perform → commit, until there is nothing to do; then it sleeps.

Started by bootstrap, one or more to a store. Level-triggered: it holds nothing in memory that a
restart would lose, and whoever claims a delivery next goes on from its records. A record and its
evidence are committed in one transaction; if the lease was lost meanwhile, neither is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable
from dataclasses import replace

from penstock.core.decide import UNDO, Finish, Perform, Wait, decide
from penstock.core.digest import digest
from penstock.core.evidence import Statement, Subject
from penstock.core.pipeline import (
    GOOD,
    Canary,
    Gated,
    Intent,
    Pipeline,
    Record,
    State,
    pipeline_for,
    thousandths,
)
from penstock.core.predicates import Ended
from penstock.engine import gate
from penstock.engine.journal import MAX_ATTEMPTS, UNDO_ATTEMPTS, Delivery, Journal
from penstock.engine.performer import Engine
from penstock.errors import Conflict, PenstockError, Unavailable
from penstock.ledger.log import Ledger, attest
from penstock.ports import Outcome, Signer, Store, Transaction

log = logging.getLogger(__name__)

#: How many deliveries a worker has at a time.
SLOTS = 4
#: How long a sleeping worker trusts its last look at the journal.
IDLE_SECONDS = 1.0
#: Actions whose evidence says when they began: their sign-offs must have held then.
BEGINNINGS = ("deploy", "shift", "promote", "restore")


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
        self._store = store
        self._journal = journal
        self._ledger = ledger
        self._engine = engine
        self._signer = signer
        self._slots = slots
        self._running: set[asyncio.Task[None]] = set()

    @property
    def owner(self) -> str:
        return self._signer.keyid

    async def run(self) -> None:
        """Work until cancelled; then let go of what is held, for the next worker."""
        try:
            while True:
                try:
                    await self._fill()
                    await self._rest()
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
            return await self._journal.claim(self.owner)
        except Unavailable as error:
            log.warning("cannot claim: %s", error)
            await asyncio.sleep(IDLE_SECONDS)
            return None

    async def _rest(self) -> None:
        try:
            due = await self._journal.next_wake()
        except Unavailable:
            due = None
        await self._store.wake(min(IDLE_SECONDS, IDLE_SECONDS if due is None else max(due, 0.01)))

    async def _drive(self, delivery: Delivery) -> None:
        """Take a claimed delivery as far as it goes now."""
        try:
            while await self._advance(delivery):
                async with self._store.transaction(write=False) as tx:
                    delivery = await self._journal.find(tx, delivery.id)
        except Conflict as error:
            log.info("let go: %s", error)
        except Unavailable as error:
            log.warning("%s: %s", delivery.id, error)
        except Exception:
            log.exception("delivery %s stopped; its lease will end", delivery.id)

    async def _advance(self, delivery: Delivery) -> bool:
        """One turn of the loop. True if there may be more to do at once."""
        pipeline = plan(delivery)
        async with self._store.transaction(write=False) as tx:
            now = await tx.now()
            lapsed = await self._lapsed(tx, delivery, pipeline)
        following = decide(pipeline, replace(delivery.facts, lapsed=lapsed), now)
        match following:
            case Perform(intent):
                return await self._perform(delivery, pipeline, intent)
            case Wait(until):
                await self._journal.release(delivery, self.owner, until)
                return False
            case Finish():
                await self._finish(delivery, following)
                return False

    async def _lapsed(self, tx: Transaction, delivery: Delivery, pipeline: Pipeline) -> bool:
        """Whether the last gate's answer might be another one now, and what it guards has not begun."""
        last = delivery.facts.open_gate
        if last is None or not isinstance(last.detail, Gated):
            return False
        question = gate.question_of(self._engine.task(delivery, pipeline, last.intent))
        return await gate.lapsed(self._ledger, tx, replace(question, size=last.detail.size))

    async def _perform(self, delivery: Delivery, pipeline: Pipeline, intent: Intent) -> bool:
        async with self._store.transaction(write=False) as tx:
            began = await tx.now()
        try:
            outcome = await self._interruptible(delivery, self._engine.perform(delivery, pipeline, intent))
        except Unavailable as error:
            count = await self._journal.postpone(delivery, self.owner, intent, str(error))
            if count < (UNDO_ATTEMPTS if intent == UNDO else MAX_ATTEMPTS):
                return False
            return await self._give_up(delivery, intent, began, str(error))
        except Conflict:
            raise
        except PenstockError as error:
            outcome = Outcome(State.ERROR, str(error))
        except Exception as error:  # a fault of ours: it would be the same next time, so it ends here
            log.exception("%s %s", delivery.id, intent.key)
            outcome = Outcome(State.ERROR, f"{type(error).__name__}: {error} (a fault of Penstock's own)")
        if outcome is None:
            return True  # interrupted by a request: decide again
        await self._commit(delivery, intent, began, outcome)
        return True

    async def _give_up(self, delivery: Delivery, intent: Intent, began: float, error: str) -> bool:
        reason = f"gave up after {MAX_ATTEMPTS} attempts: {error}"
        await self._commit(delivery, intent, began, Outcome(State.ERROR, reason))
        return False  # the lease was given back with the last attempt

    async def _interruptible(self, delivery: Delivery, work: Awaitable[Outcome]) -> Outcome | None:
        """Await *work* while keeping the lease; None if an abort request cancelled it."""
        task = asyncio.ensure_future(work)
        try:
            while True:
                done, _ = await asyncio.wait({task}, timeout=min(1.0, self._journal.lease_seconds / 4))
                if done:
                    return task.result()
                word = await self._journal.renew(delivery, self.owner)
                if word == "abort" and delivery.request != "abort":
                    return None
        finally:
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, PenstockError):
                    await task

    async def _commit(self, delivery: Delivery, intent: Intent, began: float, outcome: Outcome) -> None:
        async with self._store.transaction() as tx:
            ended = await tx.now()
            # The lease is checked before the ledger's head is locked, and again when the record is kept.
            await self._journal.hold(tx, delivery, self.owner)
            if outcome.rests_on is not None and await gate.lapsed(self._ledger, tx, outcome.rests_on):
                return  # a role lost, or evidence come, since the policies were asked: they are asked again
            at = began if intent.verb in BEGINNINGS else ended
            envelopes = [attest(self._signer, _stamped(statement, at)) for statement in outcome.statements]
            entries = await self._ledger.append(tx, envelopes)
            indices = tuple(entry.index for entry in entries)
            record = Record(intent, outcome.state, began, ended, outcome.reason, indices, outcome.detail)
            await self._journal.record(tx, delivery, record)
        log.info("%s %s: %s %s", delivery.id, intent.key, outcome.state, outcome.reason)

    async def _finish(self, delivery: Delivery, end: Finish) -> None:
        subject = Subject(delivery.id, digest(delivery.id.encode()))
        ended = Ended(delivery.id, end.state.value, end.outcome, end.reason)
        envelope = attest(self._signer, Statement((subject,), ended))
        async with self._store.transaction() as tx:
            await self._journal.finish(tx, delivery, self.owner, end)
            await self._ledger.append(tx, [envelope])
        await asyncio.to_thread(self._engine.forget, delivery.id, failed=end.state not in GOOD)
        log.info("%s ended: %s %s %s", delivery.id, end.state, end.outcome, end.reason)


def _stamped(statement: Statement, at: float) -> Statement:
    """The statement with its time, where its kind has one."""
    if getattr(statement.predicate, "at", 0.0) is not None:
        return statement
    return replace(statement, predicate=replace(statement.predicate, at=at))  # type: ignore[arg-type]


def plan(delivery: Delivery) -> Pipeline:
    """The pipeline of a delivery: a pure function of its header."""
    given = delivery.header.config.canary
    canary = Canary(
        tuple(thousandths(step) for step in given.steps),
        given.seconds_per_step,
        given.look_every,
        given.patience,
    )
    return pipeline_for(delivery.header.change.kind, canary)
