"""Tiles of the ledger's tree: their paths, which nodes they hold, and how entries are bundled.

Called by `ledger.tiles`, which fills them, and by tests that read as an outsider would. Pure. The format is
c2sp.org/tlog-tiles: a tile holds up to 256 consecutive hashes of one level, a level standing for eight of
the tree's, and an entry bundle the entries under one tile of level 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from penstock.errors import Invalid

WIDTH = 256
#: Levels of the tree under one level of tiles.
HEIGHT = 8
MAX_LEVEL = 63
#: An entry's length is written in two bytes.
MAX_ENTRY = 0xFFFF

PATH = re.compile(r"tile/(entries|[0-9]{1,2})/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")


@dataclass(frozen=True)
class Tile:
    """Hashes *first* to *end* of their level, or entries if *level* is None; partial below `WIDTH`."""

    level: int | None
    index: int
    width: int = WIDTH

    @classmethod
    def parse(cls, path: str) -> Tile:
        """The tile with this path (``tile/0/x001/234.p/7``). `Invalid` unless it is the tile's one path."""
        match = PATH.fullmatch(path)
        if match is None:
            raise Invalid("not the path of a tile", where=path[:100], next_move="c2sp.org/tlog-tiles")
        level = None if match[1] == "entries" else int(match[1])
        index = int(match[2].replace("x", "").replace("/", ""))
        tile = cls(level, index, int(match[3] or WIDTH))
        if tile.path != path or tile.width > WIDTH or (level or 0) > MAX_LEVEL:
            raise Invalid("not the one path of a tile", where=path[:100], next_move="c2sp.org/tlog-tiles")
        return tile

    @property
    def path(self) -> str:
        digits = str(self.index)
        digits = digits.zfill(3 * math.ceil(len(digits) / 3))
        groups = [digits[place : place + 3] for place in range(0, len(digits), 3)]
        named = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
        kind = "entries" if self.level is None else str(self.level)
        return f"tile/{kind}/{named}" + ("" if self.width == WIDTH else f".p/{self.width}")

    @property
    def height(self) -> int:
        """The tree's level that its hashes are of."""
        return HEIGHT * (self.level or 0)

    @property
    def first(self) -> int:
        return self.index * WIDTH

    @property
    def end(self) -> int:
        return self.first + self.width

    def within(self, size: int) -> bool:
        """Whether a tree of *size* leaves has it whole."""
        return self.end <= size >> self.height


def tiles(size: int) -> Iterator[Tile]:
    """Every tile and entry bundle of the tree of *size* leaves, each once, none empty."""
    yield from _level(None, size)
    level, count = 0, size
    while count:
        yield from _level(level, count)
        level, count = level + 1, count // WIDTH


def _level(level: int | None, count: int) -> Iterator[Tile]:
    for index in range(count // WIDTH):
        yield Tile(level, index)
    if count % WIDTH:
        yield Tile(level, count // WIDTH, count % WIDTH)


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Entries one after the other, each behind its length. `Invalid` if one is too large for that."""
    return b"".join(_length(entry) + entry for entry in entries)


def decode_bundle(data: bytes) -> list[bytes]:
    """The entries of a bundle; `Invalid` if it ends within one."""
    entries, place = [], 0
    while place < len(data):
        start = place + 2
        place = start + int.from_bytes(data[place:start])
        if start > len(data) or place > len(data):
            raise Invalid("the entry bundle ends within an entry")
        entries.append(data[start:place])
    return entries


def _length(entry: bytes) -> bytes:
    if len(entry) > MAX_ENTRY:
        raise Invalid(f"an entry of {len(entry)} bytes; a bundle holds entries of at most {MAX_ENTRY}")
    return len(entry).to_bytes(2)
