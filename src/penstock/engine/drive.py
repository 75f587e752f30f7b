"""Takes one claimed delivery as far as it goes: decide → perform what may run side by side → commit.

Called by the worker, in a task for each delivery that it holds. What it keeps in memory is only what it
committed itself under its lease; whoever claims the delivery next reads the same from the journal. A record
and its evidence are committed in one transaction; if the lease was lost meanwhile, neither is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass, replace

from penstock.core.changeset import Fate
from penstock.core.decide import UNDO, Expire, Finish, Next, Perform, Settle, Wait, decide
from penstock.core.pipeline import GOOD, Gated, Intent, Record, State
from penstock.engine import changesets, gate
from penstock.engine.commit import Commit, Means
from penstock.engine.journal import MAX_ATTEMPTS, UNDO_ATTEMPTS, Delivery
from penstock.engine.plans import plan
from penstock.errors import Conflict, PenstockError, Unavailable
from penstock.ports import Outcome, Transaction

log = logging.getLogger(__name__)

#: Seconds after which a request of a person is noticed at the latest.
LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class _Running:
    intent: Intent
    began: float
    task: asyncio.Task[Outcome]


class Drive:
    def __init__(self, means: Means, delivery: Delivery) -> None:
        self._means = means
        self._delivery = delivery
        self._owner = means.signer.keyid
        self._pipeline = plan(delivery)
        self._running: dict[str, _Running] = {}
        #: Decided in the transaction of the last commit, and not acted on yet.
        self._next: tuple[Next, float] | None = None

    async def run(self) -> None:
        """Until the delivery has ended, or waits, or is another worker's."""
        try:
            while await self._turn():
                pass
        finally:
            await self._stop(tuple(self._running))

    async def _turn(self) -> bool:
        """Decide once, and act on it. False if there is nothing to do now."""
        if self._delivery.ended:
            return False
        (following, now), self._next = self._next or await self._decided(), None
        wanted = (
            {intent.key: intent for intent in following.intents} if isinstance(following, Perform) else {}
        )
        await self._stop([key for key in self._running if key not in wanted])
        match following:
            case Perform(until=until):
                self._start([intent for key, intent in wanted.items() if key not in self._running], now)
                await self._until_something(until - now)
                return True
            case Expire(intent, reason):
                await self._commit(intent, now, Outcome(State.TIMEOUT, reason))
                return True
            case Settle(fate, reason):
                await self._settle_set(fate, reason)
                return True
            case Wait(until):
                await self._means.journal.release(self._delivery, self._owner, until)
                return False
            case Finish():
                await self._finish(following)
                return False

    async def _decided(self) -> tuple[Next, float]:
        """What comes next, and when that was found."""
        async with self._means.store.transaction(write=False) as tx:
            now = await tx.now()
            at_work = (r.intent.stage for r in self._running.values() if r.intent.verb != "gate")
            together = await changesets.read(self._means.journal, tx, self._delivery)
            facts = replace(self._delivery.facts, running=frozenset(at_work), together=together)
            lapsed = [gate for gate in facts.open_gates if await self._lapsed(tx, gate)]
        facts = replace(facts, lapsed=frozenset(gate.intent.stage for gate in lapsed))
        return decide(self._pipeline, facts, now), now

    async def _lapsed(self, tx: Transaction, asked: Record) -> bool:
        """Whether the answer of a gate might be another one now."""
        if not isinstance(asked.detail, Gated):
            return False
        question = gate.question_of(self._means.engine.task(self._delivery, self._pipeline, asked.intent))
        size = asked.detail.size
        own = tuple(range(size, size + len(asked.entries)))
        # Its own sign-offs, if nothing came between, are no evidence: so there is less to look at.
        since = size + len(own) if asked.entries == own else size
        return await gate.lapsed(self._means.ledger, tx, replace(question, size=since))

    # --- what runs ---------------------------------------------------------------------------------

    def _start(self, intents: Collection[Intent], now: float) -> None:
        for intent in intents:
            work = self._means.engine.perform(self._delivery, self._pipeline, intent)
            self._running[intent.key] = _Running(intent, now, asyncio.ensure_future(work))

    async def _stop(self, keys: Collection[str]) -> None:
        """Cancel what is not wanted any more. What it did to the world is read back by what comes next."""
        stopped = [self._running.pop(key) for key in keys]
        for running in stopped:
            running.task.cancel()
        await asyncio.gather(*(running.task for running in stopped), return_exceptions=True)

    async def _until_something(self, seconds: float) -> None:
        """Until something that runs has ended, and is recorded; or a person may have asked for something."""
        tasks = {running.task for running in self._running.values()}
        pause = min(LOOK_SECONDS, self._means.journal.lease_seconds / 4, max(seconds, 0.0))
        done, _ = await asyncio.wait(tasks, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            request = await self._means.journal.renew(self._delivery, self._owner)
            self._delivery = replace(self._delivery, request=request)
        for key, running in tuple(self._running.items()):
            if running.task in done:
                # It stays among those that run until it is recorded: a gate must not be asked meanwhile.
                await self._settle(running)
                del self._running[key]

    async def _settle(self, running: _Running) -> None:
        """Record how something ended, or when it is tried again."""
        try:
            outcome = running.task.result()
        except Unavailable as error:
            await self._postpone(running, str(error))
            return
        except Conflict:
            raise
        except PenstockError as error:
            outcome = Outcome(State.ERROR, str(error))
        except Exception as error:  # a fault of ours: it would be the same next time, so it ends here
            log.exception("%s %s", self._delivery.id, running.intent.key)
            outcome = Outcome(State.ERROR, f"{type(error).__name__}: {error} (a fault of Penstock's own)")
        await self._commit(running.intent, running.began, outcome)

    async def _postpone(self, running: _Running, error: str) -> None:
        attempt = await self._means.journal.postpone(self._delivery, self._owner, running.intent, error)
        others = tuple(known for known in self._delivery.attempts if known.key != attempt.key)
        self._delivery = replace(self._delivery, attempts=(*others, attempt))
        if attempt.count >= (UNDO_ATTEMPTS if running.intent == UNDO else MAX_ATTEMPTS):
            reason = f"gave up after {attempt.count} attempts: {error}"
            await self._commit(running.intent, running.began, Outcome(State.ERROR, reason))

    async def _settle_set(self, fate: Fate, reason: str) -> None:
        means = self._means
        async with means.store.transaction() as tx:
            await means.journal.hold(tx, self._delivery, self._owner)
            await changesets.settle(means.journal, tx, self._delivery, fate, reason)
            request = await means.journal.hold(tx, self._delivery, self._owner)
        self._delivery = replace(self._delivery, request=request)

    # --- what is kept ------------------------------------------------------------------------------

    async def _commit(self, intent: Intent, began: float, outcome: Outcome) -> None:
        """Keep how it ended; and with it what follows from that alone: a gate's answer, or the end."""
        means = self._means
        async with means.store.transaction() as tx:
            # The lease is checked before the ledger's head is locked.
            request = await means.journal.hold(tx, self._delivery, self._owner)
            if outcome.rests_on is not None and await gate.lapsed(means.ledger, tx, outcome.rests_on):
                return  # a role lost, or evidence come, since the policies were asked: they are asked again
            delivery = replace(self._delivery, request=request)
            commit = Commit(means, tx, await means.ledger.batch(tx), delivery)
            commit.record(intent, began, outcome)
            alone = self._running.keys() <= {intent.key} and delivery.header.changeset is None
            following = await self._go_on(commit) if alone else None
            await commit.write()
        self._next = (following, commit.now) if following else None
        await self._kept(commit)

    async def _go_on(self, commit: Commit) -> Next | None:
        """Decide while nothing can come between, and record what needs no doing. None: it has to be decided
        outside, with a look at the world."""
        while True:
            facts = commit.delivery.facts
            if any(answer not in commit.made for answer in facts.open_gates):
                return None  # what was just recorded may have made it lapse
            following = decide(self._pipeline, facts, commit.now)
            if isinstance(following, Finish):
                await commit.finish(following)
            gates = (
                [i for i in following.intents if i.verb == "gate"] if isinstance(following, Perform) else []
            )
            if not gates:
                return following
            for intent in gates:
                outcome = await self._asked(commit, intent)
                if outcome is None:
                    return None
                commit.record(intent, commit.now, outcome)

    async def _asked(self, commit: Commit, intent: Intent) -> Outcome | None:
        """What a gate says at once, if it does."""
        ask = self._means.engine.ask
        try:
            return await ask(commit.delivery, self._pipeline, intent, commit.tx, commit.batch)
        except Exception:  # it must not cost what is recorded here; asked by itself, it will say the same
            return None

    async def _finish(self, end: Finish) -> None:
        means = self._means
        async with means.store.transaction() as tx:
            commit = Commit(means, tx, await means.ledger.batch(tx), self._delivery)
            await commit.finish(end)
            await commit.write()
        await self._kept(commit)

    async def _kept(self, commit: Commit) -> None:
        """Go on from what was committed."""
        self._delivery = delivery = commit.delivery
        for record in commit.made:
            log.info("%s %s: %s %s", delivery.id, record.intent.key, record.state, record.reason)
        if delivery.ended:
            failed = delivery.state not in GOOD
            await asyncio.to_thread(self._means.engine.forget, delivery.id, failed=failed)
            log.info("%s ended: %s %s %s", delivery.id, delivery.state, delivery.outcome, delivery.reason)
