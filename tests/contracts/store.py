"""What every `Store` must do. Subclass `StoreContract` and give it a fixture ``subject``.

Must not know which database it tests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from penstock.errors import Broken, Conflict, Invalid
from penstock.ports import Store

TABLE = ("CREATE TABLE items (name TEXT PRIMARY KEY, number INTEGER NOT NULL)",)
INSERT = "INSERT INTO items (name, number) VALUES (?, ?)"
#: Long enough on any machine; every wait ends as soon as its reason holds.
SECONDS = 30.0


@dataclass(frozen=True)
class Subject:
    """An empty store, *again*: another one (as of another process) on the same data, *copy*: one on the
    file that `Store.backup` wrote."""

    store: Store
    again: Callable[[], Awaitable[Store]]
    copy: Callable[[Path], Awaitable[Store]]

    async def add(self, name: str, number: int = 0) -> None:
        async with self.store.transaction() as tx:
            await tx.execute(INSERT, (name, number))


async def names(store: Store) -> list[str]:
    async with store.transaction(write=False) as tx:
        return [str(name) for (name,) in await tx.execute("SELECT name FROM items ORDER BY name")]


class StoreContract:
    @pytest.fixture(autouse=True)
    async def tables(self, subject: Subject) -> None:
        await subject.store.migrate("items", TABLE)

    async def test_what_was_committed_is_there(self, subject: Subject) -> None:
        await subject.add("a", 5)
        async with subject.store.transaction(write=False) as tx:
            assert await tx.execute("SELECT name, number FROM items") == [("a", 5)]
        assert await names(await subject.again()) == ["a"]

    async def test_an_error_keeps_nothing_and_is_told(self, subject: Subject) -> None:
        async def fail() -> None:
            async with subject.store.transaction() as tx:
                await tx.execute(INSERT, ("a", 1))
                raise LookupError

        with pytest.raises(LookupError):
            await fail()
        assert await names(subject.store) == []
        await subject.add("b")
        assert await names(subject.store) == ["b"]

    async def test_a_cancelled_writer_keeps_nothing(self, subject: Subject) -> None:
        inside = asyncio.Event()

        async def write() -> None:
            async with subject.store.transaction() as tx:
                await tx.execute(INSERT, ("a", 1))
                inside.set()
                await asyncio.Event().wait()

        writer = asyncio.create_task(write())
        await asyncio.wait_for(inside.wait(), SECONDS)
        writer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writer
        await subject.add("b")
        assert await names(subject.store) == ["b"]

    async def test_nobody_sees_half_of_a_transaction(self, subject: Subject) -> None:
        async with subject.store.transaction() as tx:
            await tx.execute(INSERT, ("a", 1))
            assert await names(subject.store) == []
            assert [row[0] for row in await tx.execute("SELECT name FROM items")] == ["a"]
        assert await names(subject.store) == ["a"]

    async def test_a_reader_keeps_its_snapshot(self, subject: Subject) -> None:
        await subject.add("a")
        async with subject.store.transaction(write=False) as tx:
            assert len(await tx.execute("SELECT name FROM items")) == 1
            await subject.add("b")
            assert len(await tx.execute("SELECT name FROM items")) == 1
        assert await names(subject.store) == ["a", "b"]

    async def test_writers_exclude_one_another(self, subject: Subject) -> None:
        await subject.add("counter", 0)
        other = await subject.again()

        async def count(store: Store) -> None:
            for _ in range(20):
                async with store.transaction() as tx:
                    ((number,),) = await tx.execute("SELECT number FROM items")
                    await asyncio.sleep(0)
                    await tx.execute("UPDATE items SET number = ?", (int(str(number)) + 1,))

        async with asyncio.timeout(SECONDS):
            await asyncio.gather(count(subject.store), count(other), count(subject.store), count(other))
        async with subject.store.transaction(write=False) as tx:
            assert await tx.execute("SELECT number FROM items") == [(80,)]

    async def test_how_many_rows_changed(self, subject: Subject) -> None:
        await subject.add("a")
        await subject.add("b")
        async with subject.store.transaction() as tx:
            assert await tx.changed("UPDATE items SET number = 1") == 2
            assert await tx.changed("UPDATE items SET number = 2 WHERE name = ?", ("c",)) == 0

    async def test_values_come_back_as_they_were(self, subject: Subject) -> None:
        async with subject.store.transaction() as tx:
            await tx.execute("CREATE TABLE kinds (a BLOB, b TEXT, c INTEGER, d REAL, e TEXT)")
            row = (b"\x00\xff", "é\x00'; --", 2**63 - 1, 0.1, None)
            await tx.execute("INSERT INTO kinds (a, b, c, d, e) VALUES (?, ?, ?, ?, ?)", row)
            assert await tx.execute("SELECT a, b, c, d, e FROM kinds") == [row]

    async def test_every_text_is_itself_and_ordered_by_its_bytes(self, subject: Subject) -> None:
        texts = ["B", "a", "a\x00", "a\x1a", "a\x1a0", "a\x1a1", "é", "\uffff", "\U0001f600"]
        for text in reversed(texts):
            await subject.add(text)
        found = await names(subject.store)
        assert sorted(found) == sorted(texts)
        clear = [text for text in found if "\x1a" not in text and "\x00" not in text]
        assert clear == sorted(clear, key=str.encode)
        async with subject.store.transaction(write=False) as tx:
            for text in texts:
                assert await tx.execute("SELECT name FROM items WHERE name = ?", (text,)) == [(text,)]
                assert await tx.execute("SELECT name FROM items WHERE ? IN ('?', name)", (text,)) == [(text,)]

    async def test_an_integer_key_that_is_left_out_counts_up(self, subject: Subject) -> None:
        await subject.store.migrate("more", ("CREATE TABLE more (seq INTEGER PRIMARY KEY, name TEXT)",))
        for name in "cba":
            async with subject.store.transaction() as tx:
                await tx.execute("INSERT INTO more (name) VALUES (?)", (name,))
        async with subject.store.transaction(write=False) as tx:
            found = await tx.execute("SELECT name FROM more ORDER BY seq")
        assert [name for (name,) in found] == ["c", "b", "a"]

    @pytest.mark.parametrize("value", [2**63, "\ud800"])
    async def test_what_cannot_be_held_is_invalid(self, subject: Subject, value: object) -> None:
        with pytest.raises(Invalid):
            async with subject.store.transaction() as tx:
                await tx.execute("SELECT name FROM items WHERE number = ?", (value,))

    @pytest.mark.parametrize("sql", ["SELEKT 1", "SELECT no_such FROM items", "SELECT 1 FROM nowhere"])
    async def test_wrong_sql_is_our_own_fault(self, subject: Subject, sql: str) -> None:
        with pytest.raises(Broken):
            async with subject.store.transaction() as tx:
                await tx.execute(sql)

    async def test_the_clock_never_goes_back(self, subject: Subject) -> None:
        seen = []
        other = await subject.again()
        for store in (subject.store, other) * 5:
            async with store.transaction() as tx:
                seen.append(await tx.now())
        async with subject.store.transaction(write=False) as tx:
            seen.append(await tx.now())
        assert seen == sorted(seen)
        assert seen[0] > 1.5e9

    async def test_a_transaction_has_one_time(self, subject: Subject) -> None:
        for write in (True, False):
            async with subject.store.transaction(write=write) as tx:
                first = await tx.now()
                await asyncio.sleep(0.01)
                assert await tx.now() == first

    async def test_migrations_run_once_and_in_order(self, subject: Subject) -> None:
        more = (*TABLE, "ALTER TABLE items ADD COLUMN colour TEXT; UPDATE items SET colour = 'grey'")
        await subject.add("a")
        await subject.store.migrate("items", TABLE)
        await subject.store.migrate("items", more)
        await (await subject.again()).migrate("items", more)
        async with subject.store.transaction(write=False) as tx:
            assert await tx.execute("SELECT name, colour FROM items") == [("a", "grey")]

    async def test_a_migration_that_fails_leaves_everything_as_it_was(self, subject: Subject) -> None:
        with pytest.raises(Broken):
            await subject.store.migrate("items", (*TABLE, "CREATE TABLE more (a TEXT)", "SELEKT 1"))
        await subject.store.migrate("items", (*TABLE, "CREATE TABLE more (b TEXT)"))
        async with subject.store.transaction(write=False) as tx:
            assert await tx.execute("SELECT b FROM more") == []

    async def test_tables_of_a_newer_release_are_left_alone(self, subject: Subject) -> None:
        await subject.store.migrate("items", (*TABLE, "CREATE TABLE more (a TEXT)"))
        with pytest.raises(Conflict) as caught:
            await subject.store.migrate("items", TABLE)
        assert "newer release" in caught.value.next_move

    async def test_a_backup_is_whole_while_somebody_writes(self, subject: Subject, short_tmp: Path) -> None:
        await subject.add("a")
        async with subject.store.transaction() as tx:
            await tx.execute(INSERT, ("b", 1))
            await asyncio.wait_for(subject.store.backup(short_tmp / "backup"), SECONDS)
        assert await names(await subject.copy(short_tmp / "backup")) == ["a"]

    @pytest.mark.parametrize("elsewhere", [False, True])
    async def test_a_commit_wakes_who_waits(self, subject: Subject, elsewhere: bool) -> None:
        store = await subject.again() if elsewhere else subject.store
        waiting = asyncio.create_task(subject.store.wake(SECONDS * 10))
        done = False
        async with asyncio.timeout(SECONDS):
            # The waiter may not have begun: it is owed a commit that comes after.
            while not done:
                async with store.transaction() as tx:
                    await tx.execute("DELETE FROM items")
                done, _ = await asyncio.wait({waiting}, timeout=0.05)
        await waiting

    async def test_waiting_ends_without_a_commit(self, subject: Subject) -> None:
        await asyncio.wait_for(subject.store.wake(0.05), SECONDS)
