"""What a follower of the ledger is promised: every entry, in order, at least once, whatever happens to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from integration.ledger.world import Delivery, World, artifact
from penstock.adapters.sqlite import SqliteStore
from penstock.core.evidence import Entry
from penstock.core.predicates import Ended
from penstock.errors import Invalid
from penstock.ledger.follow import advance, follow, forget, place, read
from penstock.ports import Store

SECONDS = 30.0
SOME = Delivery("d-1", artifact("a"))


@pytest.fixture
async def world(tmp_path: Path, store: Store) -> World:
    return await World.begin(tmp_path, store)


async def happen(world: World, *reasons: str) -> None:
    """One entry for each reason."""
    await world.report(SOME, *(Ended(SOME.id, "success", "promoted", reason) for reason in reasons))


async def given(world: World, name: str, limit: int = 1000) -> list[int]:
    async with world.store.transaction(write=False) as tx:
        return indices(await read(world.ledger, tx, name, limit))


async def done(world: World, name: str, to: int) -> None:
    async with world.store.transaction() as tx:
        await advance(world.ledger, tx, name, to)


async def size(world: World) -> int:
    async with world.store.transaction(write=False) as tx:
        return await world.ledger.size(tx)


def indices(entries: Sequence[Entry]) -> list[int]:
    return [entry.index for entry in entries]


async def test_a_new_follower_begins_at_the_beginning(world: World) -> None:
    assert await given(world, "a") == list(range(await size(world)))


async def test_entries_come_again_until_the_follower_advances(world: World) -> None:
    assert await given(world, "a", 2) == await given(world, "a", 2) == [0, 1]
    await done(world, "a", 1)
    assert await given(world, "a", 2) == [1, 2]


async def test_a_crash_between_reading_and_advancing_gives_them_again(world: World) -> None:
    with contextlib.suppress(LookupError):
        async with world.store.transaction() as tx:
            page = await read(world.ledger, tx, "a", 3)
            await advance(world.ledger, tx, "a", page[-1].index + 1)
            raise LookupError
    assert await given(world, "a", 3) == [0, 1, 2]


async def test_results_and_place_commit_together(world: World) -> None:
    """With its results in the same database, a follower that crashes anywhere counts each entry once."""
    await world.store.migrate("counts", ("CREATE TABLE counts (idx INTEGER PRIMARY KEY)",))
    for crash in (True, False) * 20:
        with contextlib.suppress(LookupError):
            async with world.store.transaction() as tx:
                for entry in await read(world.ledger, tx, "a", 2):
                    await tx.execute("INSERT INTO counts (idx) VALUES (?)", (entry.index,))
                    await advance(world.ledger, tx, "a", entry.index + 1)
                if crash:
                    raise LookupError
    async with world.store.transaction(write=False) as tx:
        counted = await tx.execute("SELECT idx FROM counts ORDER BY idx")
    assert [index for (index,) in counted] == list(range(await size(world)))


async def test_two_followers_do_not_know_one_another(world: World) -> None:
    await done(world, "a", 4)
    assert (await given(world, "b"))[0] == 0
    await done(world, "b", 2)
    assert (await given(world, "a"))[0] == 4
    async with world.store.transaction() as tx:
        await forget(tx, "a")
    assert (await given(world, "a"))[0] == 0
    assert (await given(world, "b"))[0] == 2


async def test_a_follower_never_goes_back(world: World) -> None:
    await done(world, "a", 4)
    await done(world, "a", 2)
    assert (await given(world, "a"))[0] == 4


async def test_a_follower_cannot_skip_what_has_not_happened_yet(world: World) -> None:
    end = await size(world)
    with pytest.raises(Invalid, match="follower a"):
        await done(world, "a", end + 1)
    await done(world, "a", end)
    assert await given(world, "a") == []
    await happen(world, "one")
    assert await given(world, "a") == [end]


async def test_it_resumes_after_a_restart(tmp_path: Path) -> None:
    world = await World.begin(tmp_path, SqliteStore(tmp_path / "ledger.db"))
    await done(world, "a", 3)
    await world.store.close()
    world.store = SqliteStore(tmp_path / "ledger.db")
    assert await given(world, "a", 1) == [3]
    await world.store.close()


async def collect(world: World, name: str, until: int, limit: int = 1000) -> list[int]:
    """What `follow` gives up to entry *until*; left without finishing the last page."""
    found: list[int] = []
    async with contextlib.aclosing(follow(world.store, world.ledger, name, limit)) as pages:
        async for page in pages:
            found += indices(page)
            if found[-1] >= until:
                break
    return found


@pytest.mark.parametrize("limit", [1, 2, 1000])
async def test_following_gives_everything_in_order_also_what_comes_later(world: World, limit: int) -> None:
    end = await size(world)
    async with asyncio.timeout(SECONDS):
        follower = asyncio.create_task(collect(world, "a", end + 4, limit))
        for number in range(5):
            await happen(world, str(number))
            await asyncio.sleep(0)
        assert await follower == list(range(end + 5))


async def test_a_page_that_was_not_finished_comes_again(world: World) -> None:
    end = await size(world)
    assert await collect(world, "a", 3, limit=2) == [0, 1, 2, 3]
    assert await collect(world, "a", end - 1, limit=2) == list(range(2, end))


async def test_a_follower_that_advances_by_itself_has_nothing_added(world: World) -> None:
    async with contextlib.aclosing(follow(world.store, world.ledger, "a", 2)) as pages:
        assert indices(await anext(pages)) == [0, 1]
        await done(world, "a", 5)
        assert indices(await anext(pages))[0] == 5
    async with world.store.transaction(write=False) as tx:
        assert await place(tx, "a") == 5


async def test_a_follower_that_waits_can_be_cancelled(world: World) -> None:
    await done(world, "a", await size(world))
    waiting = asyncio.create_task(collect(world, "a", 1000))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await happen(world, "one")
    assert len(await given(world, "a")) == 1
