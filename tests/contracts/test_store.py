"""The store contract on SQLite, and what only a file can suffer."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts.store import INSERT, TABLE, StoreContract, Subject, names
from penstock.adapters.sqlite import SqliteStore
from penstock.errors import Broken, Unavailable
from penstock.ports import Store


@pytest.fixture
async def subject(short_tmp: Path) -> AsyncIterator[Subject]:
    async with contextlib.AsyncExitStack() as stack:

        async def open_at(path: Path) -> Store:
            store = SqliteStore(path)
            stack.push_async_callback(store.close)
            return store

        path = short_tmp / "penstock.db"
        yield Subject(await open_at(path), lambda: open_at(path), open_at)


class TestSqlite(StoreContract):
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
