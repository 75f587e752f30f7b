"""Tiles out of the ledger's tables: what they hold, what they cost, and entries too large for a bundle."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from integration.ledger.world import Delivery, World, artifact
from penstock.core import merkle
from penstock.core.predicates import Ended
from penstock.core.tiles import MAX_ENTRY, Tile, decode_bundle, tiles
from penstock.errors import Broken, Invalid
from penstock.ledger.tiles import read
from penstock.ports import Row, Transaction

SOME = Delivery("d-1", artifact("a"))


class Counting:
    """A transaction that counts its statements."""

    def __init__(self, inner: Transaction) -> None:
        self._inner = inner
        self.statements = 0

    async def execute(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        self.statements += 1
        return await self._inner.execute(sql, parameters)

    async def changed(self, sql: str, parameters: Sequence[object] = ()) -> int:
        return await self._inner.changed(sql, parameters)

    async def now(self) -> float:
        return await self._inner.now()


async def happen(world: World, *reasons: str) -> int:
    """One entry for each reason. Returns the ledger's size."""
    entries = await world.report(SOME, *(Ended("d-1", "success", "promoted", reason) for reason in reasons))
    return entries[-1].index + 1


async def fetch(world: World, tile: Tile) -> bytes | None:
    async with world.store.transaction(write=False) as tx:
        return await read(world.ledger, tx, tile)


async def test_a_tile_of_any_width_costs_two_statements(world: World) -> None:
    size = await happen(world, *map(str, range(300)))
    for tile in tiles(size):
        async with world.store.transaction(write=False) as tx:
            counting = Counting(tx)
            data = await read(world.ledger, counting, tile)
        assert counting.statements == 2
        assert data is not None
        assert len(decode_bundle(data) if tile.level is None else data) == tile.width * (
            tile.level is None or 32
        )


async def test_a_tile_that_the_tree_has_not_filled_is_not_there_yet(world: World) -> None:
    size = await happen(world, "one")
    assert await fetch(world, Tile(0, 0, size)) is not None
    for tile in (
        Tile(0, 0, size + 1),
        Tile(0, 0),
        Tile(None, 0),
        Tile(1, 0, 1),
        Tile(0, 10**20),
        Tile(63, 0, 1),
    ):
        assert await fetch(world, tile) is None


async def test_an_entry_that_no_bundle_can_hold_is_named_and_its_hash_is_in_the_tiles(world: World) -> None:
    before = await happen(world, "one")
    after = await happen(world, "x" * MAX_ENTRY, "two")
    with pytest.raises(Invalid, match=f"entry {before}\n") as caught:
        await fetch(world, Tile(None, 0, after))
    assert "/ledger/entry/" in caught.value.next_move
    assert await fetch(world, Tile(None, 0, before)) is not None
    hashes = await fetch(world, Tile(0, 0, after))
    assert hashes is not None
    async with world.store.transaction(write=False) as tx:
        large = (await world.ledger.entry(tx, before)).envelope.raw
    assert len(large) > MAX_ENTRY
    assert hashes[before * 32 :][:32] == merkle.leaf_hash(large)


@pytest.mark.parametrize("table", ["entries", "nodes"])
async def test_a_hole_in_the_tables_is_never_served(world: World, table: str) -> None:
    size = await happen(world, "one")
    async with world.store.transaction() as tx:
        await tx.execute(f"DELETE FROM {table} WHERE idx = 3")
    with pytest.raises(Broken, match="lacks 1"):
        await fetch(world, Tile(None if table == "entries" else 0, 0, size))
