"""The journal: execution state of deliveries. Leases, records, attempts, wake-ups; prunable.

Called by the worker, and by the server to create deliveries and to pass requests on. It must not be
used for dashboards or proofs: facts are in the ledger, and each record here is committed in the same
transaction as its evidence there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from penstock.config import ServiceConfig
from penstock.core.codec import decode, encode
from penstock.core.decide import Finish
from penstock.core.pipeline import ENDED, Facts, Intent, Record, State
from penstock.core.release import Artifact, Change, EnvironmentData
from penstock.engine import numbers
from penstock.errors import Conflict, Invalid
from penstock.ports import Row, SourceRevision, Store, Transaction

SCHEMA = (
    """
    CREATE TABLE deliveries (
        seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, scope TEXT NOT NULL, urgent INTEGER NOT NULL,
        header TEXT NOT NULL, state TEXT NOT NULL, outcome TEXT NOT NULL DEFAULT '',
        reason TEXT NOT NULL DEFAULT '', request TEXT NOT NULL DEFAULT '', owner TEXT NOT NULL DEFAULT '',
        fence INTEGER NOT NULL DEFAULT 0, lease REAL NOT NULL DEFAULT 0, wake REAL NOT NULL DEFAULT 0,
        created REAL NOT NULL, ended REAL NOT NULL DEFAULT 0);
    CREATE INDEX deliveries_open ON deliveries (state, scope);
    CREATE TABLE records (
        delivery TEXT NOT NULL, seq INTEGER NOT NULL, key TEXT NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (delivery, key));
    CREATE TABLE attempts (
        delivery TEXT NOT NULL, key TEXT NOT NULL, count INTEGER NOT NULL, error TEXT NOT NULL,
        PRIMARY KEY (delivery, key));
    CREATE TABLE fences (scope TEXT PRIMARY KEY, number INTEGER NOT NULL);
    CREATE TABLE tokens (hash TEXT PRIMARY KEY, identity TEXT NOT NULL)
    """,
    """
    ALTER TABLE deliveries ADD COLUMN waits INTEGER NOT NULL DEFAULT 0
    """,
)

RequestWord = Literal["", "abort", "promote"]
#: How often an intent is tried again after `Unavailable` before the delivery ends in an error.
MAX_ATTEMPTS = 6
#: An undo is hardly ever given up: a bad release would keep its users.
UNDO_ATTEMPTS = 500


@dataclass(frozen=True)
class Header:
    """What a delivery was started with; never changes. Version 1.

    *artifact* and *data* are the given halves of the pair: both for a rollback, *data* alone for a
    configuration change, none for a code change (the data that is live stays).
    """

    change: Change
    config: ServiceConfig
    source: SourceRevision | None = None
    artifact: Artifact | None = None
    data: EnvironmentData | None = None
    version: int = 1


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

    @property
    def scope(self) -> str:
        return f"{self.header.change.service}/{self.header.change.environment}"

    @property
    def facts(self) -> Facts:
        change = self.header.change
        return Facts(change.service, change.environment, self.records, self.request)


COLUMNS = "id, header, state, outcome, reason, request, fence, created, ended"


class Journal:
    def __init__(self, store: Store, lease_seconds: float = 10.0) -> None:
        self._store = store
        self.lease_seconds = lease_seconds

    async def migrate(self) -> None:
        await self._store.migrate("journal", SCHEMA)
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
        """Ask a running delivery to abort or promote. `Conflict` if it has ended; abort is final."""
        async with self._store.transaction() as tx:
            changed = await tx.changed(
                f"UPDATE deliveries SET request = ?, wake = 0 WHERE id = ? AND request <> 'abort' "
                f"AND state NOT IN ({_marks(ENDED)})",
                (word, delivery, *(state.value for state in ENDED)),
            )
            found = await self.find(tx, delivery)
        if not changed and found.request != word:
            raise Conflict(f"the delivery is {found.state} ({found.outcome})", where=delivery)

    async def find(self, tx: Transaction, delivery: str) -> Delivery:
        """One delivery with its records; *delivery* may be an unambiguous beginning of its id."""
        # A range of the index, which LIKE does not use: an exact id comes first.
        between = (delivery, delivery + "\U0010ffff")
        rows = await tx.execute(
            f"SELECT {COLUMNS} FROM deliveries WHERE id >= ? AND id < ? ORDER BY id LIMIT 2", between
        )
        exact = [row for row in rows if row[0] == delivery]
        if not delivery or len(exact or rows) != 1:
            problem = "is ambiguous" if len(rows) > 1 else "is not known"
            raise Invalid(f"delivery {delivery!r} {problem}", next_move="penstock status")
        return await self._with_records(tx, (exact or rows)[0])

    async def recent(self, tx: Transaction, limit: int = 50, scope: str = "") -> tuple[Delivery, ...]:
        """The newest deliveries, newest first, without their records."""
        rows = await tx.execute(
            f"SELECT {COLUMNS} FROM deliveries WHERE ? IN ('', scope) ORDER BY seq DESC LIMIT ?",
            (scope, limit),
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

    async def first_token(self, hashed: str, identity: str) -> bool:
        """Keep the SHA-256 of an API token if there is none yet; True if it was kept."""
        async with self._store.transaction() as tx:
            if await tx.execute("SELECT 1 FROM tokens LIMIT 1"):
                return False
            await tx.execute("INSERT INTO tokens (hash, identity) VALUES (?, ?)", (hashed, identity))
            return True

    async def add_token(self, tx: Transaction, hashed: str, identity: str) -> None:
        """Keep the SHA-256 of a further API token of somebody's."""
        await tx.execute("INSERT INTO tokens (hash, identity) VALUES (?, ?)", (hashed, identity))

    async def drop_tokens(self, tx: Transaction, identity: str) -> int:
        """Forget every token of somebody's; returns how many there were."""
        return await tx.changed("DELETE FROM tokens WHERE identity = ?", (identity,))

    async def nudge(self, tx: Transaction) -> None:
        """Somebody said something: deliveries that wait look at once whether it is what they wait for."""
        await tx.execute("UPDATE deliveries SET wake = 0 WHERE state = 'executing' AND waits = 1")

    async def identity_of(self, hashed: str) -> str | None:
        """Whose token has this SHA-256; None if nobody's."""
        async with self._store.transaction(write=False) as tx:
            rows = await tx.execute("SELECT identity FROM tokens WHERE hash = ?", (hashed,))
            return str(rows[0][0]) if rows else None

    # --- the worker -------------------------------------------------------------------------------

    async def claim(self, owner: str) -> Delivery | None:
        """Lease the next delivery that has something to do, with a fence higher than any before.

        One delivery at a time is executing for a scope; a pending one waits for it.
        """
        async with self._store.transaction() as tx:
            now = await tx.now()
            rows = await tx.execute(_CLAIMABLE, (now, now))
            if not rows:
                return None
            delivery, scope = str(rows[0][0]), str(rows[0][1])
            await numbers.claimed(tx, delivery)
            await tx.execute(
                "INSERT INTO fences (scope, number) VALUES (?, 1) "
                "ON CONFLICT (scope) DO UPDATE SET number = fences.number + 1",
                (scope,),
            )
            ((fence,),) = await tx.execute("SELECT number FROM fences WHERE scope = ?", (scope,))
            await tx.execute(
                "UPDATE deliveries SET state = 'executing', owner = ?, fence = ?, lease = ?, waits = 0 "
                "WHERE id = ?",
                (owner, fence, now + self.lease_seconds, delivery),
            )
            return await self.find(tx, delivery)

    async def next_wake(self) -> float | None:
        """Seconds until the next wake-up or lease end of any open delivery; None if there is none."""
        async with self._store.transaction(write=False) as tx:
            ((at,),) = await tx.execute(
                "SELECT min(CASE WHEN wake > lease THEN wake ELSE lease END) FROM deliveries d "
                "WHERE state = 'executing' OR (state = 'pending' AND NOT EXISTS (SELECT 1 FROM deliveries o "
                "WHERE o.scope = d.scope AND o.state = 'executing'))"
            )
            return None if at is None else max(0.0, float(str(at)) - await tx.now())

    async def renew(self, delivery: Delivery, owner: str) -> RequestWord:
        """Keep the lease and return the request so far. `Conflict` if the lease was lost."""
        async with self._store.transaction() as tx:
            lease = await tx.now() + self.lease_seconds
            await self._hold(tx, delivery, owner, "lease = ?", lease)
            ((word,),) = await tx.execute("SELECT request FROM deliveries WHERE id = ?", (delivery.id,))
            return decode(RequestWord, word)  # type: ignore[arg-type]

    async def hold(self, tx: Transaction, delivery: Delivery, owner: str) -> None:
        """`Conflict` unless the lease is still ours; it then stays ours until *tx* ends."""
        await self._hold(tx, delivery, owner, "wake = ?", 0.0)

    async def record(self, tx: Transaction, delivery: Delivery, record: Record) -> None:
        """Keep a record, in the transaction of a caller that holds the lease (`hold`)."""
        body = json.dumps(encode(record))
        await tx.execute(
            "INSERT INTO records (delivery, seq, key, body) "
            "VALUES (?, (SELECT count(*) FROM records WHERE delivery = ?), ?, ?)",
            (delivery.id, delivery.id, record.intent.key, body),
        )
        await numbers.step_done(tx, record)

    async def postpone(self, delivery: Delivery, owner: str, intent: Intent, error: str) -> int:
        """Count a failed attempt, give the lease back and wake up later. Returns the count."""
        async with self._store.transaction() as tx:
            await numbers.attempt_failed(tx, intent.verb)
            await tx.execute(
                "INSERT INTO attempts (delivery, key, count, error) VALUES (?, ?, 1, ?) "
                "ON CONFLICT (delivery, key) DO UPDATE "
                "SET count = attempts.count + 1, error = excluded.error",
                (delivery.id, intent.key, error),
            )
            ((count,),) = await tx.execute(
                "SELECT count FROM attempts WHERE delivery = ? AND key = ?", (delivery.id, intent.key)
            )
            later = await tx.now() + min(30.0, 0.5 * 2 ** int(str(count)))
            await self._hold(tx, delivery, owner, "lease = 0, wake = ?", later)
            return int(str(count))

    async def release(self, delivery: Delivery, owner: str, until: float) -> None:
        """Give the lease back; nobody needs to look before *until*."""
        async with self._store.transaction() as tx:
            # A request that came in meanwhile must not sleep until then.
            change = "lease = 0, waits = 1, wake = CASE WHEN request = ? THEN ? ELSE 0 END"
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
            await tx.execute(
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
        return _delivery(row, tuple(decode(Record, json.loads(str(body))) for (body,) in rows))


_CLAIMABLE = """
    SELECT id, scope FROM deliveries AS d
    WHERE lease < ? AND (
        (state = 'executing' AND wake <= ?)
        OR (state = 'pending' AND NOT EXISTS (
            SELECT 1 FROM deliveries AS o WHERE o.scope = d.scope AND (
                o.state = 'executing'
                OR (o.state = 'pending'
                    AND (o.urgent > d.urgent OR (o.urgent = d.urgent AND o.seq < d.seq)))))))
    ORDER BY urgent DESC, seq LIMIT 1
"""


def _delivery(row: Row, records: tuple[Record, ...] = ()) -> Delivery:
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
        records=records,
    )


def _marks(values: Iterable[object]) -> str:
    return ", ".join("?" for _ in values)
