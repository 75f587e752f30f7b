"""Store: one SQLite file (WAL, synchronous FULL) for one machine.

Found as ``penstock.store: sqlite``. Statements are short, so SQLite is called directly from async code:
a thread hop costs more than most of them. Writers of this process take turns by a lock; writers of other
processes by SQLite's own, waited for in small sleeps.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from penstock.errors import Broken, Conflict, Invalid, Unavailable
from penstock.ports import Row, Transaction

BUSY_SECONDS = 15.0
#: The log of writes is moved into the file when it has so many pages (8 MB): a page of an index that every
#: transaction changes is then moved once for many of them. From then on it is written over, which makes a
#: commit cheaper than one that has it grow.
LOG_PAGES = 2000
#: So many connections are kept for readers: opening one, which reads the schema, costs more than most reads.
SPARE_READERS = 4
#: Of pages, each: a reader's are of no use to it once anybody has committed, and the system keeps them too.
READER_KIB = 256
#: Another process's commits are noticed at this pace.
POLL_SECONDS = 0.2

#: Of the store itself.
OWN_TABLES = ("clock", "schema_version")
#: What the system's clock says, in seconds since 1970.
RAW = "(julianday('now') - 2440587.5) * 86400.0"


def _clock(raw: str) -> str:
    """The later of what the clock says (*raw*) and of the time that has come since the last commit. Where the
    clock was set back, time goes on from there, a little slower than it, until the clock has caught up."""
    return (
        f"WITH system(raw) AS (SELECT {raw}) SELECT max(raw, coalesce((SELECT max(at + 0.9 * max(0.0, "
        "system.raw - coalesce(clock.raw, at))) FROM clock), 0.0)) FROM system"
    )


class SqliteStore:
    """*raw_clock* is the SQL expression of the system's time; tests set it to one that is off."""

    raw_clock = RAW

    def __init__(self, path: Path, busy_seconds: float = BUSY_SECONDS) -> None:
        self._path = path
        self._busy_seconds = busy_seconds
        self._lock = asyncio.Lock()
        self._committed = asyncio.Condition()
        self._spare: list[sqlite3.Connection] = []
        self._closed = False
        with _Translated(path):
            # Made before SQLite opens it: the files beside it take over its permissions.
            path.touch(mode=0o600)
            path.chmod(0o600)
            self._writer = self._connect()
            self._reader = self._connect()
            self._writer.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
            self._writer.execute(
                "CREATE TABLE IF NOT EXISTS clock (id INTEGER PRIMARY KEY, at REAL NOT NULL, raw REAL)"
            )
            if "raw" not in [column[1] for column in self._writer.execute("PRAGMA table_info(clock)")]:
                self._writer.execute("ALTER TABLE clock ADD COLUMN raw REAL")
            self._writer.execute(
                "CREATE TABLE IF NOT EXISTS schema_version "
                "(component TEXT PRIMARY KEY, version INTEGER NOT NULL)"
            )

    def _connect(self) -> sqlite3.Connection:
        # A kept reader has one user at a time, who may be in another thread than the one before.
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=0.0, check_same_thread=False)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            for _ in range(100):
                try:
                    connection.execute(f"PRAGMA {pragma}")
                    break
                except sqlite3.OperationalError as error:
                    if "locked" not in str(error):
                        raise
                    time.sleep(0.02)
        return connection

    def _new_reader(self) -> sqlite3.Connection:
        reader = self._connect()
        reader.execute(f"PRAGMA cache_size = -{READER_KIB}")
        return reader

    @contextlib.asynccontextmanager
    async def transaction(self, *, write: bool = True) -> AsyncIterator[Transaction]:
        if not write:
            with self._snapshot() as reader:
                yield _SqliteTransaction(reader, self._path, _clock(self.raw_clock))
            return
        async with self._lock:
            await self._begin()
            clock = _clock(self.raw_clock)
            transaction = _SqliteTransaction(self._writer, self._path, clock)
            try:
                yield transaction
                with _Translated(self._path):
                    moved = f"INSERT OR REPLACE INTO clock SELECT 1, ({clock}), {self.raw_clock}"
                    self._writer.execute(moved)
                    self._writer.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._writer.execute("ROLLBACK")
                raise
        async with self._committed:
            self._committed.notify_all()

    @contextlib.contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own for a reader, in a transaction: one that awaits must not see half of
        somebody's. Kept for the next reader if it can be."""
        with _Translated(self._path):
            reader = self._spare.pop() if self._spare else self._new_reader()
        try:
            with _Translated(self._path):
                reader.execute("BEGIN")
            yield reader
            with _Translated(self._path):
                reader.execute("ROLLBACK")
            if not self._closed and len(self._spare) < SPARE_READERS:
                self._spare.append(reader)
                return
        except BaseException:
            reader.close()  # whatever state it was left in
            raise
        reader.close()

    async def _begin(self) -> None:
        deadline = time.monotonic() + self._busy_seconds
        while True:
            try:
                with _Translated(self._path):
                    self._writer.execute("BEGIN IMMEDIATE")
                return
            except Unavailable as error:
                if "locked" not in error.what or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.01)

    async def migrate(self, component: str, steps: Sequence[str]) -> None:
        async with self.transaction() as tx:
            rows = await tx.execute("SELECT version FROM schema_version WHERE component = ?", (component,))
            version = int(str(rows[0][0])) if rows else 0
            if version > len(steps):
                raise Conflict(
                    f"the {component} tables have version {version}; this release knows {len(steps)}",
                    where=str(self._path),
                    next_move="run the newer release that wrote them: going back would lose data",
                )
            for script in steps[version:]:
                for statement in filter(str.strip, script.split(";")):
                    await tx.execute(statement)
            await tx.execute(
                "INSERT OR REPLACE INTO schema_version (component, version) VALUES (?, ?)",
                (component, len(steps)),
            )

    async def backup(self, destination: Path) -> None:
        await asyncio.to_thread(self._backup, destination)

    def _backup(self, destination: Path) -> None:
        with _Translated(destination):
            destination.touch(mode=0o600)
            source, copy = sqlite3.connect(self._path), sqlite3.connect(destination)
            try:
                source.backup(copy)
            finally:
                source.close()
                copy.close()

    async def wake(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        version = self._data_version()
        while (left := deadline - time.monotonic()) > 0:
            async with self._committed:
                # Not `wait_for`: before Python 3.12 it can swallow a cancellation that races with its end.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left, POLL_SECONDS)):
                        await self._committed.wait()
                        return
            if self._data_version() != version:
                return

    def _data_version(self) -> int:
        with _Translated(self._path):
            (version,) = self._reader.execute("PRAGMA data_version").fetchone()
        return int(version)

    async def close(self) -> None:
        async with self._lock:
            self._closed = True
            for connection in (*self._spare, self._reader, self._writer):
                connection.close()
            self._spare.clear()


class SqliteRestorer:
    """A copy is a file: found as ``penstock.restorer: sqlite``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def vacant(self) -> None:
        if not self._path.exists() or not self._path.stat().st_size:
            return
        with _Translated(self._path), contextlib.closing(sqlite3.connect(self._path)) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            names = [name for (name,) in tables if name not in OWN_TABLES]
            full = [n for n in names if connection.execute(f'SELECT 1 FROM "{n}" LIMIT 1').fetchone()]
        if full:
            raise Conflict(
                "there is a store with something in it already",
                where=str(self._path),
                next_move="restore into an empty data folder: set PENSTOCK_HOME",
            )

    async def restore(self, copy: Path) -> None:
        await self.clear()
        await asyncio.to_thread(self._put, copy)

    def _put(self, copy: Path) -> None:
        part = self._path.with_name(f"{self._path.name}.part")
        try:
            with _Translated(self._path):
                part.touch(mode=0o600)
                shutil.copyfile(copy, part)
                with part.open("rb+") as file:
                    os.fsync(file.fileno())
                part.replace(self._path)
        finally:
            part.unlink(missing_ok=True)

    async def clear(self) -> None:
        # The log of writes of another file would be applied to the next one of its name.
        for end in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + end).unlink(missing_ok=True)


class _SqliteTransaction:
    def __init__(self, connection: sqlite3.Connection, path: Path, clock: str) -> None:
        self._connection = connection
        self._path = path
        self._clock = clock
        self._now: float | None = None

    async def execute(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        with _Translated(self._path):
            return self._connection.execute(sql, tuple(parameters)).fetchall()

    async def changed(self, sql: str, parameters: Sequence[object] = ()) -> int:
        with _Translated(self._path):
            return self._connection.execute(sql, tuple(parameters)).rowcount

    async def now(self) -> float:
        if self._now is None:
            with _Translated(self._path):
                (now,) = self._connection.execute(self._clock).fetchone()
            self._now = float(now)
        return self._now


class _Translated:
    """SQLite's errors in our five words. Around every statement, so without a generator."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            _raise_in_our_words(error, self._path)


def _raise_in_our_words(error: BaseException, path: Path) -> None:
    """Nothing is done if it is not SQLite's, or the words are ours already."""
    if isinstance(error, sqlite3.OperationalError):
        text = str(error)
        move = "free some space; nothing was lost" if "full" in text else "penstock doctor"
        if "no such" in text or "syntax" in text or "has no column" in text:
            raise Broken(f"SQL: {text}", where=path.name) from error
        raise Unavailable(f"the database cannot answer: {text}", where=str(path), next_move=move) from error
    if isinstance(error, OSError):
        raise Unavailable(f"the database file: {error.strerror}", where=str(path)) from error
    if isinstance(error, (OverflowError, UnicodeEncodeError)):
        raise Invalid(f"a value that the database cannot hold: {error}", where=path.name) from error
    if isinstance(error, sqlite3.DatabaseError):
        move = "restore the last backup, then penstock ledger verify"
        raise Broken(f"the database: {error}", where=str(path), next_move=move) from error
