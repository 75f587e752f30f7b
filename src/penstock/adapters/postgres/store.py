"""The store itself: one writing connection, a few that read, migrations and backups.

Found by entry point. Writers take turns by a lock in this process and by an advisory lock across
processes, taken before the first statement: whoever holds it sees all that was committed, so that
``max(idx) + 1`` is safe. Readers have a snapshot each.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from penstock.adapters.postgres.connecting import Connection, Server, told, undo
from penstock.adapters.postgres.dialect import translated
from penstock.adapters.postgres.listening import CHANNEL, POLL_SECONDS, Listener
from penstock.adapters.postgres.tools import exactly, run
from penstock.errors import Conflict, Unavailable
from penstock.ports import Row, Transaction

BUSY_SECONDS = 15.0
READERS = 8

#: What the server's clock says, in seconds since 1970.
RAW = "extract(epoch FROM clock_timestamp())::float8"
OWN_TABLES = """
    CREATE TABLE IF NOT EXISTS clock (id BIGINT PRIMARY KEY, at DOUBLE PRECISION NOT NULL);
    DO $$ BEGIN
        IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'clock'::regclass AND attname = 'raw') THEN
            ALTER TABLE clock ADD COLUMN raw DOUBLE PRECISION;
        END IF;
    END $$;
    CREATE TABLE IF NOT EXISTS schema_version (component TEXT PRIMARY KEY, version BIGINT NOT NULL);
"""
BEGIN_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
BEGIN_WRITE = (
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; "
    "SELECT pg_advisory_xact_lock(hashtext('penstock'), hashtext(current_schema()))"
)


def _clock(raw: str) -> str:
    """The later of what the clock says (*raw*) and of the time that has come since the last commit. Where the
    clock was set back, time goes on from there, a little slower than it, until the clock has caught up."""
    return (
        f"greatest({raw}, (SELECT coalesce(max(at + 0.9 * greatest(0.0, {raw} - coalesce(raw, at))), 0) "
        "FROM clock))"
    )


def _commit(raw: str) -> bytes:
    """A writer that wrote nothing leaves no trace and wakes nobody: workers that look for work would wake
    one another for ever. After a failed statement this fails too: a mere COMMIT would only not commit."""
    return (
        f"SELECT pg_notify('{CHANNEL}', '') WHERE pg_current_xact_id_if_assigned() IS NOT NULL; "
        f"INSERT INTO clock (id, at, raw) SELECT 1, {_clock(raw)}, {raw} "
        "WHERE pg_current_xact_id_if_assigned() IS NOT NULL "
        f"OR EXISTS (SELECT 1 FROM clock WHERE coalesce(raw, at) > {raw} + 1) "  # the clock was set back
        "ON CONFLICT (id) DO UPDATE SET at = excluded.at, raw = excluded.raw; "
        "COMMIT"
    ).encode()


class PostgresStore:
    """*url* is anything libpq takes; tables live in the first schema of its search path.

    *raw_clock* is the SQL expression of the server's time; tests set it to one that is off.
    """

    raw_clock = RAW

    def __init__(
        self,
        url: str,
        busy_seconds: float = BUSY_SECONDS,
        poll_seconds: float = POLL_SECONDS,
        pg_dump: str = "pg_dump",
    ) -> None:
        self._server = Server(url)
        self._busy_seconds = busy_seconds
        self._pg_dump = pg_dump
        self._lock = asyncio.Lock()
        self._writer: Connection | None = None
        self._prepared = False
        self._idle: list[Connection] = []
        self._room = asyncio.Semaphore(READERS)
        self._listener = Listener(self._server, poll_seconds)

    @contextlib.asynccontextmanager
    async def transaction(self, *, write: bool = True) -> AsyncIterator[Transaction]:
        if write:
            async with self._lock, self._writing() as transaction:
                yield transaction
        else:
            if not self._prepared:
                async with self.transaction():
                    pass
            async with self._reading() as transaction:
                yield transaction

    @contextlib.asynccontextmanager
    async def _writing(self) -> AsyncIterator[Transaction]:
        # A writer that stops in the middle, or a machine that is gone, must not hold the lock for ever.
        settings = (
            f"; SET lock_timeout = '{self._busy_seconds * 1000:.0f}ms'"
            "; SET idle_in_transaction_session_timeout = '60s'"
        )
        connection = await self._server.begun(self._writer, BEGIN_WRITE, settings)
        self._writer = connection
        try:
            if not self._prepared:
                with told(self._server.where):
                    await connection.execute(OWN_TABLES.encode(), prepare=False)
            yield _PostgresTransaction(connection, self._server.where, _clock(self.raw_clock))
            with told(self._server.where):
                await connection.execute(_commit(self.raw_clock), prepare=False)
        except BaseException:
            await undo(connection)
            raise
        self._prepared = True

    @contextlib.asynccontextmanager
    async def _reading(self) -> AsyncIterator[Transaction]:
        try:
            async with asyncio.timeout(self._busy_seconds):
                await self._room.acquire()
        except TimeoutError:
            raise Unavailable(f"{READERS} readers are at work already", where=self._server.where) from None
        try:
            kept = self._idle.pop() if self._idle else None
            connection = await self._server.begun(kept, BEGIN_READ)
            try:
                yield _PostgresTransaction(connection, self._server.where, _clock(self.raw_clock))
            finally:
                await undo(connection)
                if not connection.closed:
                    self._idle.append(connection)
        finally:
            self._room.release()

    async def migrate(self, component: str, steps: Sequence[str]) -> None:
        async with self.transaction() as tx:
            rows = await tx.execute("SELECT version FROM schema_version WHERE component = ?", (component,))
            version = int(str(rows[0][0])) if rows else 0
            if version > len(steps):
                raise Conflict(
                    f"the {component} tables have version {version}; this release knows {len(steps)}",
                    where=self._server.where,
                    next_move="run the newer release that wrote them: going back would lose data",
                )
            for script in steps[version:]:
                for statement in filter(str.strip, script.split(";")):
                    await tx.execute(statement)
            if version < len(steps):
                await tx.execute(
                    "INSERT INTO schema_version (component, version) VALUES (?, ?) "
                    "ON CONFLICT (component) DO UPDATE SET version = excluded.version",
                    (component, len(steps)),
                )

    async def wake(self, seconds: float) -> None:
        await self._listener.wait(seconds)

    async def backup(self, destination: Path) -> None:
        """Our schema as an archive for ``pg_restore``."""
        async with self.transaction(write=False) as tx:
            ((schema,),) = await tx.execute("SELECT current_schema()::text")
        with told(str(destination)):
            part = destination.with_name(f"{destination.name}.part")
            try:
                part.touch(mode=0o600)
                wanted = ("--format=custom", f"--schema={exactly(str(schema))}", f"--file={part}")
                await run(self._pg_dump, self._server, *wanted)
                part.replace(destination)
            finally:
                part.unlink(missing_ok=True)

    async def close(self) -> None:
        await self._listener.close()
        async with self._lock:
            for connection in (*self._idle, *([self._writer] if self._writer else [])):
                await connection.close()
            self._idle.clear()


class _PostgresTransaction:
    def __init__(self, connection: Connection, where: str, clock: str) -> None:
        self._connection = connection
        self._where = where
        self._clock = clock
        self._now: float | None = None

    async def execute(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        with told(self._where):
            cursor = await self._connection.execute(translated(sql), tuple(parameters), binary=True)
            return await cursor.fetchall() if cursor.description else []

    async def changed(self, sql: str, parameters: Sequence[object] = ()) -> int:
        with told(self._where):
            cursor = await self._connection.execute(translated(sql), tuple(parameters), binary=True)
            return cursor.rowcount

    async def now(self) -> float:
        if self._now is None:
            ((now,),) = await self.execute(f"SELECT {self._clock}")
            assert isinstance(now, float)
            self._now = now
        return self._now
