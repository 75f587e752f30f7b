"""SQLite's readers have connections that are used again: none leaves anything of itself to the next."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from penstock.adapters.sqlite import SPARE_READERS, SqliteStore
from penstock.errors import Broken

TABLE = ("CREATE TABLE items (name TEXT PRIMARY KEY)",)


@pytest.fixture
async def subject(short_tmp: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(short_tmp / "penstock.db")
    await store.migrate("items", TABLE)
    yield store
    await store.close()


async def add(store: SqliteStore, name: str) -> None:
    async with store.transaction() as tx:
        await tx.execute("INSERT INTO items (name) VALUES (?)", (name,))


async def count(store: SqliteStore) -> int:
    async with store.transaction(write=False) as tx:
        return len(await tx.execute("SELECT name FROM items"))


async def test_each_sees_every_commit_before_it(subject: SqliteStore, short_tmp: Path) -> None:
    other = SqliteStore(short_tmp / "penstock.db")
    for number in range(6):
        await add(other if number % 2 else subject, str(number))
        assert await count(subject) == await count(other) == number + 1
    await other.close()


async def test_many_at_once_keep_their_snapshots(subject: SqliteStore) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for number in range(3 * SPARE_READERS):
            tx = await stack.enter_async_context(subject.transaction(write=False))
            assert await tx.execute("SELECT count(*) FROM items") == [(number,)]
            await add(subject, str(number))
            assert await tx.execute("SELECT count(*) FROM items") == [(number,)]
    assert await count(subject) == 3 * SPARE_READERS


async def test_what_one_wrote_is_not_kept(subject: SqliteStore) -> None:
    async with subject.transaction(write=False) as tx:
        await tx.execute("INSERT INTO items (name) VALUES ('a')")
    assert await count(subject) == 0
    await add(subject, "b")


async def test_one_that_failed_leaves_nothing(subject: SqliteStore) -> None:
    async def fail() -> None:
        async with subject.transaction(write=False) as tx:
            await tx.execute("INSERT INTO items (name) VALUES ('a')")
            await tx.execute("SELECT * FROM nowhere")

    for _ in range(2 * SPARE_READERS):
        with pytest.raises(Broken):
            await fail()
    assert await count(subject) == 0
    await add(subject, "b")


async def test_a_table_made_meanwhile_is_seen(subject: SqliteStore, short_tmp: Path) -> None:
    await count(subject)
    other = SqliteStore(short_tmp / "penstock.db")
    await other.migrate("more", ("CREATE TABLE more (name TEXT)",))
    await other.close()
    async with subject.transaction(write=False) as tx:
        assert await tx.execute("SELECT name FROM more") == []


async def test_one_that_outlives_the_store_is_closed(short_tmp: Path) -> None:
    store = SqliteStore(short_tmp / "penstock.db")
    async with store.transaction(write=False) as tx:
        await tx.execute("SELECT 1")
        await store.close()
    assert sorted(path.name for path in short_tmp.iterdir()) == ["penstock.db"]
