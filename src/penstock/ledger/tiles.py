"""Tiles and entry bundles, read from the ledger's tables: two SQL statements each, however wide they are.

Called by the server for outsiders who follow the ledger. It changes nothing and checks no signature:
whoever reads tiles proves them against a checkpoint.
"""

from __future__ import annotations

from penstock.core.merkle import Hash
from penstock.core.tiles import MAX_ENTRY, Tile, encode_bundle
from penstock.errors import Broken, Invalid
from penstock.ledger.log import Ledger
from penstock.ports import Row, Transaction


async def read(ledger: Ledger, tx: Transaction, tile: Tile) -> bytes | None:
    """The bytes of a tile or entry bundle; None if the tree has not got that far.

    `Invalid` for a bundle with an entry that the format cannot hold: it says which, and where it is had.
    """
    if not tile.within(await ledger.size(tx)):
        return None
    return await (_entries if tile.level is None else _hashes)(tx, tile)


async def _hashes(tx: Transaction, tile: Tile) -> bytes:
    rows = await tx.execute(
        "SELECT hash FROM nodes WHERE level = ? AND idx >= ? AND idx < ? ORDER BY idx",
        (tile.height, tile.first, tile.end),
    )
    hashes: list[Hash] = _values(tile, rows)
    return b"".join(hashes)


async def _entries(tx: Transaction, tile: Tile) -> bytes:
    rows = await tx.execute(
        "SELECT envelope FROM entries WHERE idx >= ? AND idx < ? ORDER BY idx", (tile.first, tile.end)
    )
    entries = _values(tile, rows)
    large = [str(index) for index, entry in enumerate(entries, tile.first) if len(entry) > MAX_ENTRY]
    if large:
        raise Invalid(
            f"larger than the {MAX_ENTRY} bytes that an entry bundle can hold: entry {', '.join(large)}",
            where=tile.path,
            next_move="read the entries one by one: /ledger/entry/<index>; their hashes are in the tiles",
        )
    return encode_bundle(entries)


def _values(tile: Tile, rows: list[Row]) -> list[bytes]:
    values = [row[0] for row in rows if isinstance(row[0], bytes)]
    if len(values) != tile.width:
        raise Broken(
            f"the tree lacks {tile.width - len(values)} parts",
            where=tile.path,
            next_move="penstock ledger verify",
        )
    return values
