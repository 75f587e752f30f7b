"""The journal: execution state of deliveries. Leases, records, attempts, wake-ups; prunable.

Called by the worker, and by the server to create deliveries and to pass requests on. It must not be
used for dashboards or proofs: facts are in the ledger, and each record here is committed in the same
transaction as its evidence there.
"""

from __future__ import annotations

import functools
import itertools
import json
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from penstock.config import ServiceConfig
from penstock.core.changeset import ChangeSet
from penstock.core.codec import decode, encode
from penstock.core.decide import Finish
from penstock.core.experiment import Plan
from penstock.core.pipeline import ENDED, Attempt, Facts, Intent, Pipeline, Record, State
from penstock.core.release import Artifact, Change, EnvironmentData
from penstock.engine import numbers, tables
from penstock.engine.naming import too_late, unknown
from penstock.errors import Conflict
from penstock.ports import Row, SourceRevision, Store, Transaction

RequestWord = Literal["", "abort", "promote"]
#: How often an intent is tried again after `Unavailable` before the delivery ends in an error.
MAX_ATTEMPTS = 6
#: An undo is hardly ever given up: a bad release would keep its users.
UNDO_ATTEMPTS = 500
#: Seconds after which even nothing is committed: where a clock was set back, time goes on from a commit.
COMMIT_SECONDS = 15.0
#: A lease is twice as long after each one that was lost, so often at most: the slowest store lets somebody
#: come to an end.
DOUBLED = 6
#: Seconds between two attempts at most; the first are closer together.
LONGEST_PAUSE = 30.0


@dataclass(frozen=True)
class Header:
    """What a delivery was started with; never changes. Version 2; the first had no *pipeline*.

    *artifact* and *data* are the given halves of the pair: both for a rollback, *data* alone for a
    configuration change, none for a code change (the data that is live stays), nor for an *experiment*.
    *retries* is the delivery whose change this tries again, *changeset* its part in one. *beside* are
    deliveries with whose dark releases this one is tested.
    """

    change: Change
    config: ServiceConfig
    source: SourceRevision | None = None
    artifact: Artifact | None = None
    data: EnvironmentData | None = None
    version: int = 1
    pipeline: Pipeline | None = None
    retries: str = ""
    changeset: ChangeSet | None = None
    beside: tuple[str, ...] = ()
    experiment: Plan | None = None


@dataclass(frozen=True)
class Delivery:
    """One row, read at one moment."""

    id: str
    header: Header
    state: State
    outcome: str
    reason: str
    request: RequestWord
    fence: int
    created: float
    ended: float
    records: tuple[Record, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    newer: str = ""
    lost: int = 0

    @property
    def scope(self) -> str:
        return f"{self.header.change.service}/{self.header.change.environment}"

    @functools.cached_property
    def facts(self) -> Facts:
        change = self.header.change
        return Facts(
            change.service, change.environment, self.records, self.request, self.attempts, newer=self.newer
        )


COLUMNS = "id, header, state, outcome, reason, request, fence, created, ended, newer, lost"


class Journal:
    def __init__(self, store: Store, lease_seconds: float = 10.0) -> None:
        self._store = store
        self.lease_seconds = lease_seconds
        #: Seconds until there is something to claim, as the last `claim` saw it; None: nothing is open.
        self.due: float | None = None
        self._committed = 0.0

    async def migrate(self) -> None:
        await self._store.migrate("journal", tables.SCHEMA)
        await self._store.migrate("numbers", numbers.SCHEMA)

    # --- from outside ---------------------------------------------------------------------------

    async def create(self, tx: Transaction, delivery: str, header: Header) -> None:
        """Queue a delivery. A rollback goes before everything else that waits for its service."""
        scope = f"{header.change.service}/{header.change.environment}"
        urgent = int(header.change.kind == "rollback")
        body = json.dumps(encode(header))
        await tx.execute(
            "INSERT INTO deliveries (id, scope, urgent, header, state, created) VALUES (?, ?, ?, ?, ?, ?)",
            (delivery, scope, urgent, body, State.PENDING.value, await tx.now()),
        )

    async def request(self, delivery: str, word: RequestWord) -> None:
        """Ask a delivery to abort or promote, once or again. `Conflict` if it has ended; abort is final."""
        async with self._store.transaction() as tx:
            changed = await tx.changed(
                f"UPDATE deliveries SET request = ?, wake = 0 WHERE id = ? AND request <> 'abort' "
                f"AND state NOT IN ({_marks(ENDED)})",
                (word, delivery, *(state.value for state in ENDED)),
            )
            found = await self.find(tx, delivery)
        if not changed and (found.state in ENDED or found.request != word):
            raise too_late(found, word)

    async def supersede(self, tx: Transaction, delivery: str, by: str) -> None:
        """Tell a delivery of the newer one that makes it needless: it ends where it waits."""
        await tx.execute(
            "UPDATE deliveries SET newer = ?, wake = 0 WHERE id = ? AND newer = ''", (by, delivery)
        )

    async def find(self, tx: Transaction, delivery: str) -> Delivery:
        """One delivery with its records; *delivery* may be an unambiguous beginning of its id."""
        # A range of the index, which LIKE does not use: an exact id comes first.
        between = (delivery, delivery + "\U0010ffff")
        rows = await tx.execute(
            f"SELECT {COLUMNS} FROM deliveries WHERE id >= ? AND id < ? ORDER BY id LIMIT 2", between
        )
        exact = [row for row in rows if row[0] == delivery]
        if not delivery or len(exact or rows) != 1:
            raise unknown(delivery, [str(row[0]) for row in rows], await self.recent(tx, 500))
        return await self._with_records(tx, (exact or rows)[0])

    async def raise_fence(self, scope: str) -> int:
        """A fence that is higher than every other of its scope: who holds one of those lets go."""
        async with self._store.transaction() as tx:
            return await _raised(tx, scope)

    async def recent(
        self, tx: Transaction, limit: int = 50, service: str = "", before: str = ""
    ) -> tuple[Delivery, ...]:
        """The newest deliveries, newest first, without their records: those of *service* and those older than
        the delivery *before*, where these are not ""."""
        rows = await tx.execute(
            f"SELECT {COLUMNS} FROM deliveries WHERE (? = '' OR scope LIKE ?) AND "
            "(? = '' OR seq < (SELECT seq FROM deliveries WHERE id = ?)) ORDER BY seq DESC LIMIT ?",
            (service, f"{service}/%", before, before, limit),
        )
        return tuple(_delivery(row) for row in rows)

    async def open_in(self, tx: Transaction, scope: str) -> tuple[Delivery, ...]:
        """Deliveries of a scope that have not ended, oldest first."""
        rows = await tx.execute(
            f"SELECT {COLUMNS} FROM deliveries WHERE scope = ? "
            f"AND state NOT IN ({_marks(ENDED)}) ORDER BY seq",
            (scope, *(state.value for state in ENDED)),
        )
        return tuple(_delivery(row) for row in rows)

    async def nudge(self, tx: Transaction, deliveries: Sequence[str] = ()) -> None:
        """Something happened: those of *deliveries* that wait (none named: all) look whether it is what they
        wait for. One that is just about to wait will look again, too."""
        among = f" AND id IN ({_marks(deliveries)})" if deliveries else ""
        await tx.execute(
            f"UPDATE deliveries SET wake = 0, waits = 2 WHERE state = 'executing'{among}", deliveries
        )

    async def abort(self, tx: Transaction, deliveries: Sequence[str]) -> None:
        """Ask those of *deliveries* that have not ended to abort."""
        await tx.execute(
            f"UPDATE deliveries SET request = 'abort', wake = 0 WHERE id IN ({_marks(deliveries)}) "
            f"AND state NOT IN ({_marks(ENDED)})",
            (*deliveries, *(state.value for state in ENDED)),
        )

    # --- the worker -------------------------------------------------------------------------------

    async def claim(self, owner: str) -> Delivery | None:
        """Lease the next delivery that has something to do, with a fence higher than any before.

        One delivery at a time is executing for a scope; a pending one waits for it, unless it only has to
        end: that one's fence stays 0, so that it is nobody's business outside.
        """
        self.due = await self._next_wake()
        if self.due != 0.0 and time.monotonic() < self._committed + COMMIT_SECONDS:
            return None  # mostly so: nobody is kept waiting by a commit of nothing
        self._committed = time.monotonic()
        async with self._store.transaction() as tx:
            now = await tx.now()
            rows = await tx.execute(_CLAIMABLE, (now, now))
            if not rows:
                return None
            delivery, scope = str(rows[0][0]), str(rows[0][1])
            await numbers.claimed(tx, delivery)
            fence = 0 if rows[0][2] else await _raised(tx, scope)
            await tx.execute(
                "UPDATE deliveries SET state = 'executing', owner = ?, fence = ?, waits = 0, "
                "lost = CASE WHEN lease > 0 THEN lost + 1 ELSE 0 END WHERE id = ?",
                (owner, fence, delivery),
            )
            claimed = await self.find(tx, delivery)
            await self.hold(tx, claimed, owner)
            return claimed

    async def _next_wake(self) -> float | None:
        """Seconds until the next wake-up or lease end of any open delivery; None if there is none."""
        async with self._store.transaction(write=False) as tx:
            ((at,),) = await tx.execute(
                "SELECT min(CASE WHEN wake > lease THEN wake ELSE lease END) FROM deliveries d "
                f"WHERE state = 'executing' OR (state = 'pending' AND ({_NEEDLESS} OR NOT EXISTS ("
                "SELECT 1 FROM deliveries o WHERE o.scope = d.scope AND o.state = 'executing')))"
            )
            return None if at is None else max(0.0, float(str(at)) - await tx.now())

    async def renew(self, delivery: Delivery, owner: str) -> RequestWord:
        """`hold`, for whoever has nothing to record."""
        async with self._store.transaction() as tx:
            return await self.hold(tx, delivery, owner)

    async def hold(self, tx: Transaction, delivery: Delivery, owner: str) -> RequestWord:
        """Keep the lease, until *tx* ends in any case; the request so far. `Conflict` if it was lost."""
        lease = await tx.now() + self.lease_seconds * 2 ** min(delivery.lost, DOUBLED)
        await self._hold(tx, delivery, owner, "wake = 0, lease = ?", lease)
        ((word,),) = await tx.execute("SELECT request FROM deliveries WHERE id = ?", (delivery.id,))
        return decode(RequestWord, word)  # type: ignore[arg-type]

    async def record(self, tx: Transaction, delivery: Delivery, made: Sequence[Record]) -> None:
        """Keep the records that were just *made*, its last: for whoever holds the lease, until *tx* ends."""
        if made:
            await self.add_records(tx, delivery.id, made, len(delivery.records) - len(made))
            await numbers.steps_done(tx, made)

    async def add_records(
        self, tx: Transaction, delivery: str, records: Sequence[Record], first: int = 0
    ) -> None:
        """Give it records, its own or those of the delivery that it tries again. It has *first* already."""
        rows = [(delivery, n, r.intent.key, json.dumps(encode(r))) for n, r in enumerate(records, first)]
        marks = ", ".join(["(?, ?, ?, ?)"] * len(rows))
        await tx.execute(
            f"INSERT INTO records (delivery, seq, key, body) VALUES {marks}", tuple(itertools.chain(*rows))
        )

    async def postpone(self, delivery: Delivery, owner: str, intent: Intent, error: str) -> Attempt:
        """Count a failed attempt, and say when the next one is due."""
        async with self._store.transaction() as tx:
            await self.hold(tx, delivery, owner)
            await numbers.attempt_failed(tx, intent.verb)
            known = (attempt.count for attempt in delivery.attempts if attempt.key == intent.key)
            count = next(known, 0) + 1
            again = await tx.now() + min(LONGEST_PAUSE, 0.5 * 2**count)
            await tx.execute(
                "INSERT INTO attempts (delivery, key, count, error, again) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (delivery, key) DO UPDATE "
                "SET count = excluded.count, error = excluded.error, again = excluded.again",
                (delivery.id, intent.key, count, error, again),
            )
            return Attempt(intent.key, count, again, error)

    async def release(self, delivery: Delivery, owner: str, until: float) -> None:
        """Give the lease back; nobody needs to look before *until*."""
        async with self._store.transaction() as tx:
            # What came in meanwhile must not sleep until then.
            change = "lease = 0, wake = CASE WHEN request = ? AND waits <> 2 THEN ? ELSE 0 END, waits = 1"
            await self._hold(tx, delivery, owner, change, delivery.request, until)

    async def finish(self, tx: Transaction, delivery: Delivery, owner: str, end: Finish) -> None:
        await self._hold(
            tx,
            delivery,
            owner,
            "lease = 0, ended = ?, state = ?, outcome = ?, reason = ?",
            await tx.now(),
            end.state.value,
            end.outcome,
            end.reason,
        )

    async def orphan(self, owner: str) -> None:
        """End every lease of a worker that is known to be dead, and of no other: called before it starts."""
        async with self._store.transaction() as tx:
            await tx.changed(
                "UPDATE deliveries SET lease = 0 WHERE state = 'executing' AND owner = ?", (owner,)
            )

    async def _hold(
        self, tx: Transaction, delivery: Delivery, owner: str, change: str, *values: object
    ) -> None:
        changed = await tx.changed(
            f"UPDATE deliveries SET {change} "
            "WHERE id = ? AND owner = ? AND fence = ? AND state = 'executing'",
            (*values, delivery.id, owner, delivery.fence),
        )
        if changed != 1:
            raise Conflict("the lease was lost to another worker", where=f"delivery {delivery.id}")

    async def _with_records(self, tx: Transaction, row: Row) -> Delivery:
        rows = await tx.execute("SELECT body FROM records WHERE delivery = ? ORDER BY seq", (row[0],))
        records = tuple(decode(Record, json.loads(str(body))) for (body,) in rows)
        failed = await tx.execute(
            "SELECT key, count, again, error FROM attempts WHERE delivery = ? ORDER BY key", (row[0],)
        )
        attempts = (Attempt(str(k), int(str(n)), float(str(again)), str(e)) for k, n, again, e in failed)
        return replace(_delivery(row), records=records, attempts=tuple(attempts))


async def _raised(tx: Transaction, scope: str) -> int:
    await tx.execute(
        "INSERT INTO fences (scope, number) VALUES (?, 1) "
        "ON CONFLICT (scope) DO UPDATE SET number = fences.number + 1",
        (scope,),
    )
    ((fence,),) = await tx.execute("SELECT number FROM fences WHERE scope = ?", (scope,))
    return int(str(fence))


#: What never began, and is not to begin any more.
_NEEDLESS = "fence = 0 AND (newer <> '' OR request = 'abort')"
_CLAIMABLE = f"""
    SELECT id, scope, {_NEEDLESS} FROM deliveries AS d
    WHERE lease < ? AND (
        (state = 'executing' AND wake <= ?)
        OR (state = 'pending' AND {_NEEDLESS})
        OR (state = 'pending' AND NOT EXISTS (
            SELECT 1 FROM deliveries AS o WHERE o.scope = d.scope AND (
                o.state = 'executing'
                OR (o.state = 'pending'
                    AND (o.urgent > d.urgent OR (o.urgent = d.urgent AND o.seq < d.seq)))))))
    ORDER BY urgent DESC, seq LIMIT 1
"""


def _delivery(row: Row) -> Delivery:
    header = decode(Header, json.loads(str(row[1])))
    return Delivery(
        id=str(row[0]),
        header=header,
        state=State(str(row[2])),
        outcome=str(row[3]),
        reason=str(row[4]),
        request=decode(RequestWord, row[5]),  # type: ignore[arg-type]
        fence=int(str(row[6])),
        created=float(str(row[7])),
        ended=float(str(row[8])),
        newer=str(row[9]),
        lost=int(str(row[10])),
    )


def _marks(values: Collection[object]) -> str:
    return ", ".join("?" for _ in values)
