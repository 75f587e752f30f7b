"""The store contract on SQLite and on PostgreSQL, and what only a file or only a server can suffer."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
import stat
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts.store import INSERT, SECONDS, TABLE, StoreContract, Subject, names
from fakes.postgres import PostgresServer
from penstock.adapters.postgres import PostgresStore
from penstock.adapters.postgres.store import READERS
from penstock.adapters.sqlite import SqliteStore
from penstock.errors import Broken, Conflict, Invalid, PenstockError, Refused, Unavailable
from penstock.ports import Store


class TestSqlite(StoreContract):
    @pytest.fixture
    async def subject(self, short_tmp: Path) -> AsyncIterator[Subject]:
        async with contextlib.AsyncExitStack() as stack:

            async def open_at(path: Path) -> Store:
                store = SqliteStore(path)
                stack.push_async_callback(store.close)
                return store

            path = short_tmp / "penstock.db"
            yield Subject(await open_at(path), lambda: open_at(path), open_at)

    async def test_the_file_and_those_beside_it_are_the_owners_alone(
        self, subject: Subject, short_tmp: Path
    ) -> None:
        await subject.add("a")
        await subject.store.backup(short_tmp / "backup.db")
        files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in short_tmp.iterdir()}
        assert {"penstock.db", "penstock.db-wal", "backup.db"} <= set(files)
        assert set(files.values()) == {0o600}

    async def test_a_commit_is_on_the_disk_when_it_is_done(self, subject: Subject) -> None:
        async with subject.store.transaction() as tx:
            assert await tx.execute("PRAGMA journal_mode") == [("wal",)]
            assert await tx.execute("PRAGMA synchronous") == [(2,)]

    async def test_time_does_not_go_back_although_the_clock_does(
        self, subject: Subject, short_tmp: Path
    ) -> None:
        with contextlib.closing(sqlite3.connect(short_tmp / "penstock.db")) as behind:
            behind.execute("INSERT OR REPLACE INTO clock (id, at) VALUES (1, 9e9)")
            behind.commit()
        async with subject.store.transaction() as tx:
            assert await tx.now() == 9e9
        await goes_on(subject.store)

    async def test_a_full_disk_is_unavailable_and_loses_nothing(self, subject: Subject) -> None:
        await subject.add("a")
        async with subject.store.transaction() as tx:
            ((pages,),) = await tx.execute("PRAGMA page_count")

        async def fill() -> None:
            async with subject.store.transaction() as tx:
                await tx.execute(f"PRAGMA max_page_count = {pages}")
                await tx.execute(INSERT, ("b" * 100_000, 1))

        with pytest.raises(Unavailable) as caught:
            await fill()
        assert "free some space" in caught.value.next_move
        assert await names(subject.store) == ["a"]

    async def test_a_damaged_file_is_broken_and_names_the_way_back(self, short_tmp: Path) -> None:
        path = short_tmp / "damaged.db"
        path.write_bytes(b"not a database " * 1000)
        with pytest.raises(Broken) as caught:
            SqliteStore(path)
        assert "backup" in caught.value.next_move

    async def test_a_folder_that_is_not_there_is_unavailable(self, subject: Subject, short_tmp: Path) -> None:
        with pytest.raises(Unavailable):
            SqliteStore(short_tmp / "nowhere" / "penstock.db")
        with pytest.raises(Unavailable):
            await subject.store.backup(short_tmp / "nowhere" / "backup.db")

    async def test_a_place_that_cannot_be_written_is_unavailable(self) -> None:
        with pytest.raises(Unavailable):
            SqliteStore(Path("/proc/penstock.db"))  # not even root may

    async def test_somebody_who_never_lets_go_is_unavailable(self, subject: Subject, short_tmp: Path) -> None:
        impatient = SqliteStore(short_tmp / "penstock.db", busy_seconds=0.05)
        with contextlib.closing(sqlite3.connect(short_tmp / "penstock.db")) as greedy:
            greedy.execute("BEGIN IMMEDIATE")
            with pytest.raises(Unavailable, match="locked"):
                await impatient.migrate("items", TABLE)
        await impatient.close()
        await subject.add("b")
        assert await names(subject.store) == ["b"]


class TestPostgres(StoreContract):
    @pytest.fixture
    def schema(self, postgres: PostgresServer) -> str:
        return postgres.schema()

    @pytest.fixture
    async def subject(self, postgres: PostgresServer, schema: str) -> AsyncIterator[Subject]:
        async with contextlib.AsyncExitStack() as stack:

            async def open_at(url: str) -> Store:
                store = PostgresStore(url, poll_seconds=0.2, pg_dump=str(postgres.bin / "pg_dump"))
                stack.push_async_callback(store.close)
                return store

            async def copy(archive: Path) -> Store:
                postgres.run(f"CREATE DATABASE copy_of_{schema}")
                to = f"--dbname={postgres.url(database=f'copy_of_{schema}')}"
                subprocess.run([postgres.bin / "pg_restore", "--exit-on-error", to, archive], check=True)
                return await open_at(postgres.url(schema, f"copy_of_{schema}"))

            async def again() -> Store:
                return await open_at(postgres.url(schema))

            yield Subject(await again(), again, copy)

    async def test_a_lost_connection_is_unavailable_and_the_next_call_has_another(
        self, subject: Subject, postgres: PostgresServer
    ) -> None:
        async def lose() -> None:
            async with subject.store.transaction() as tx:
                await tx.execute(INSERT, ("a", 1))
                ((pid,),) = await tx.execute("SELECT pg_backend_pid()")
                postgres.run("SELECT pg_terminate_backend(%s)", pid)
                await tx.execute(INSERT, ("b", 1))

        with pytest.raises(Unavailable):
            await lose()
        await subject.add("c")
        assert await names(subject.store) == ["c"]

    @pytest.mark.parametrize("way", [signal.SIGINT, signal.SIGQUIT])
    async def test_a_server_that_came_back_is_not_noticed(
        self, subject: Subject, postgres: PostgresServer, way: signal.Signals
    ) -> None:
        await subject.add("a")
        assert await names(subject.store) == ["a"]
        postgres.stop(way)
        postgres.start()
        assert await names(subject.store) == ["a"]
        await subject.add("b")
        assert await names(subject.store) == ["a", "b"]

    async def test_a_server_that_is_down_is_unavailable_until_it_is_up(
        self, subject: Subject, postgres: PostgresServer
    ) -> None:
        await subject.add("a")
        waiting = asyncio.create_task(subject.store.wake(SECONDS * 10))
        postgres.stop()
        try:
            for _ in range(2):
                with pytest.raises(Unavailable) as caught:
                    await subject.add("b")
                assert "PENSTOCK_STORE" in caught.value.next_move
                with pytest.raises(Unavailable):
                    await names(subject.store)
            await asyncio.wait_for(subject.store.wake(0.05), SECONDS)
        finally:
            postgres.start()
        await subject.add("c")
        assert await names(subject.store) == ["a", "c"]
        await asyncio.wait_for(waiting, SECONDS)

    async def test_cancelled_within_a_statement_it_keeps_nothing(self, subject: Subject) -> None:
        other = await subject.again()
        inside = asyncio.Event()

        async def write() -> None:
            async with subject.store.transaction() as tx:
                await tx.execute(INSERT, ("a", 1))
                inside.set()
                await tx.execute("SELECT pg_sleep(600)")

        writer = asyncio.create_task(write())
        await asyncio.wait_for(inside.wait(), SECONDS)
        await asyncio.sleep(0.01)
        writer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(writer, SECONDS)
        for number, store in enumerate((subject.store, other)):
            async with asyncio.timeout(SECONDS), store.transaction() as tx:
                await tx.execute(INSERT, ("b", number)) if store is other else await tx.execute("SELECT 1")
        assert await names(subject.store) == ["b"]

    async def test_cancelled_anywhere_it_keeps_all_or_nothing(self, subject: Subject) -> None:
        """After every number of steps of the event loop in turn, the commit's among them."""

        async def write(name: str) -> None:
            async with subject.store.transaction() as tx:
                for part in "12":
                    await tx.execute(INSERT, (f"{name}/{part}", 1))

        await write("first")
        for steps in range(40):
            writer = asyncio.create_task(write(f"{steps}"))
            for _ in range(steps):
                await asyncio.sleep(0.0001)
            writer.cancel()
            await asyncio.wait_for(asyncio.gather(writer, return_exceptions=True), SECONDS)
        await write("last")
        found = await names(subject.store)
        assert {"first/1", "last/1"} <= set(found)
        assert all(name[:-1] + other in found for name in found for other in "12")

    async def test_a_failed_statement_cannot_be_passed_over(self, subject: Subject) -> None:
        async def write() -> None:
            async with subject.store.transaction() as tx:
                await tx.execute(INSERT, ("a", 1))
                with contextlib.suppress(Broken):
                    await tx.execute("SELEKT 1")

        with pytest.raises(Broken):
            await write()
        assert await names(subject.store) == []

    async def test_a_reader_cannot_write(self, subject: Subject) -> None:
        with pytest.raises(Broken):
            async with subject.store.transaction(write=False) as tx:
                await tx.execute(INSERT, ("a", 1))
        assert await names(subject.store) == []

    @pytest.mark.parametrize(
        ("code", "word", "move"),
        [
            ("53100", Unavailable, "free some space"),
            ("53300", Unavailable, ""),
            ("57014", Unavailable, ""),
            ("58030", Unavailable, ""),
            ("40001", Conflict, ""),
            ("40P01", Conflict, ""),
            ("22003", Invalid, ""),
            ("54000", Invalid, ""),
            ("23505", Broken, ""),
            ("XX001", Broken, "restore the last backup"),
        ],
    )
    async def test_every_error_is_one_of_our_words(
        self, subject: Subject, code: str, word: type[PenstockError], move: str
    ) -> None:
        async def fail() -> None:
            async with subject.store.transaction() as tx:
                await tx.execute(INSERT, ("a", 1))
                await tx.execute(f"DO $$ BEGIN RAISE EXCEPTION 'so' USING ERRCODE = '{code}'; END $$")

        with pytest.raises(word) as caught:
            await fail()
        assert move in caught.value.next_move
        assert "so" in str(caught.value)
        await subject.add("b")
        assert await names(subject.store) == ["b"]

    async def test_somebody_who_never_lets_go_is_unavailable(
        self, subject: Subject, postgres: PostgresServer, schema: str
    ) -> None:
        impatient = PostgresStore(postgres.url(schema), busy_seconds=0.05)
        async with subject.store.transaction():
            with pytest.raises(Unavailable, match="lock"):
                await impatient.migrate("items", TABLE)
        await impatient.migrate("items", TABLE)
        await impatient.close()

    async def test_too_many_readers_wait_and_are_told(
        self, subject: Subject, postgres: PostgresServer, schema: str
    ) -> None:
        impatient = PostgresStore(postgres.url(schema), busy_seconds=0.05)
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(READERS):
                await stack.enter_async_context(impatient.transaction(write=False))
            with pytest.raises(Unavailable, match="readers"):
                await names(impatient)
        assert await names(impatient) == []
        await impatient.close()

    async def test_time_does_not_go_back_although_the_clock_does(self, subject: Subject) -> None:
        async with subject.store.transaction() as tx:
            await tx.execute("INSERT INTO clock (id, at) VALUES (2, 9e9)")
        await goes_on(subject.store)

    async def test_a_commit_is_on_the_disk_when_it_is_done(
        self, postgres: PostgresServer, schema: str
    ) -> None:
        store = PostgresStore(postgres.url(schema) + "%20-csynchronous_commit%3Doff")
        async with store.transaction() as tx:
            assert await tx.execute("SHOW synchronous_commit") == [("on",)]
            assert await tx.execute("SHOW fsync") == [("on",)]
        await store.close()

    async def test_a_commit_between_two_waits_is_not_missed(self, subject: Subject) -> None:
        other = await subject.again()
        async with asyncio.timeout(SECONDS):
            await subject.store.wake(SECONDS)  # listening from here on
            async with other.transaction() as tx:
                await tx.execute(INSERT, ("a", 1))
            await subject.store.wake(SECONDS * 10)

    async def test_a_lost_notification_is_made_up_for(
        self, subject: Subject, postgres: PostgresServer, schema: str
    ) -> None:
        async with asyncio.timeout(SECONDS):
            await subject.store.wake(SECONDS)
            # A commit that notified nobody, as through a pooler.
            postgres.run(f"UPDATE {schema}.clock SET at = at")
            postgres.run(f"INSERT INTO {schema}.clock (id, at) VALUES (1, 1) ON CONFLICT DO NOTHING")
            await subject.store.wake(SECONDS * 10)

    async def test_who_looked_and_wrote_nothing_wakes_nobody(self, subject: Subject) -> None:
        await subject.add("a")
        before = await _clock(subject.store)
        for _ in range(3):
            async with subject.store.transaction() as tx:
                await tx.changed("UPDATE items SET number = 1 WHERE name = 'nobody'")
        assert await _clock(subject.store) == before
        await subject.add("b")
        assert await _clock(subject.store) != before

    async def test_without_pg_dump_there_is_no_backup(
        self, subject: Subject, postgres: PostgresServer, schema: str, short_tmp: Path
    ) -> None:
        store = PostgresStore(postgres.url(schema), pg_dump="no-such-pg-dump")
        with pytest.raises(Unavailable) as caught:
            await store.backup(short_tmp / "backup")
        assert "client tools" in caught.value.next_move
        await store.close()
        with pytest.raises(Unavailable):
            await subject.store.backup(short_tmp / "nowhere" / "backup")
        assert list(short_tmp.iterdir()) == []

    async def test_a_backup_is_the_owners_alone(self, subject: Subject, short_tmp: Path) -> None:
        await subject.store.backup(short_tmp / "backup")
        assert stat.S_IMODE((short_tmp / "backup").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("url", "word", "said"),
    [
        ("postgresql://h/d?no_such_option=1", Invalid, "no_such_option"),
        ("postgresql://u:hidden@127.0.0.1:1/d", Unavailable, "cannot connect"),
        ("postgresql:///d?host=/nowhere", Unavailable, "cannot connect"),
        ("{server}", Invalid, "schema"),
        ("{ascii}", Invalid, "SQL_ASCII"),
        ("{nobody}", Refused, "permission denied"),
    ],
)
async def test_a_place_that_cannot_be_used_says_why(
    postgres: PostgresServer, url: str, word: type[PenstockError], said: str
) -> None:
    schema = postgres.schema()
    if url == "{ascii}":
        postgres.run(f"CREATE DATABASE {schema} ENCODING 'SQL_ASCII' TEMPLATE template0")
    if url == "{nobody}":
        postgres.run(
            f"CREATE ROLE {schema}; GRANT USAGE ON SCHEMA {schema} TO {schema}; ALTER ROLE {schema} LOGIN"
        )
    places = {
        "{server}": postgres.url("no_such_schema"),
        "{ascii}": postgres.url(database=schema),
        "{nobody}": postgres.url(schema).replace("postgres@", f"{schema}@"),
    }

    async def use() -> None:
        async with contextlib.AsyncExitStack() as stack:
            store = PostgresStore(places.get(url, url))
            stack.push_async_callback(store.close)
            await store.migrate("items", TABLE)

    with pytest.raises(word) as caught:
        await use()
    assert said in str(caught.value)
    assert caught.value.next_move
    assert "hidden" not in str(caught.value)


async def goes_on(store: Store) -> None:
    """Time passes though the clock is far behind, from a commit on, even of nothing."""
    moments = []
    for write in (True, False, False):
        async with store.transaction(write=write) as tx:
            await asyncio.sleep(0.05)
            moments.append(await tx.now())
    assert 9e9 <= moments[0] < moments[1] < moments[2] < 9e9 + 60


async def _clock(store: Store) -> object:
    async with store.transaction(write=False) as tx:
        return await tx.execute("SELECT xmin::text, at FROM clock")
