"""How the output of one stage is kept: its beginning, its end, and a line about what is not.

Called by whoever writes such a log (an adapter) and whoever reads it (the engine). Pure: the shapes and the
arithmetic, no files. An offset counts the bytes of the whole output, kept or not: its meaning never changes.

While a stage runs: ``build.log`` holds the first `Bounds.head` bytes; the folder ``build.log.tail`` holds the
rest in files of `Bounds.segment` bytes, each named by its offset, the oldest removed so that `Bounds.tail`
bytes stay.

When it has finished: ``build.log.gz``, an ordinary gzip file of many members. Each holds `BLOCK` bytes, so a
range costs at most one block more than itself; the first is empty and holds the index in its extra field.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from penstock.errors import Broken

BLOCK = 256 * 1024
#: How many digits of its offset name a segment, so that names sort like numbers.
DIGITS = 20
#: Below this a compressed file takes no less of the disk.
WORTH_COMPRESSING = 4096

_MEMBER = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff"
_EMPTY = b"\x03\0" + bytes(8)
_EXTENT, _BLOCK = struct.Struct("<QQQI"), struct.Struct("<QQ")


@dataclass(frozen=True)
class Bounds:
    """How much is kept of one stage's output: of its beginning and of its end, and in pieces of what size."""

    head: int = 16 * 1024**2
    tail: int = 16 * 1024**2
    segment: int = 1024**2


KEPT = Bounds()


@dataclass(frozen=True)
class Extent:
    """What is kept of *total* bytes: all but those from *gap_begin* to *gap_end*."""

    total: int
    gap_begin: int = 0
    gap_end: int = 0


@dataclass(frozen=True)
class Range:
    """One answer: it stands for the bytes from *begin* to *next*. *before* and *after* are what is kept of
    them (begin, end); *note* stands in between for what is not."""

    begin: int
    next: int
    before: tuple[int, int]
    note: str = ""
    after: tuple[int, int] = (0, 0)


def cut(extent: Extent, offset: int, limit: int) -> Range:
    """The *limit* bytes from *offset*. The gap is said once: at its first byte, or wherever one enters it."""
    begin = min(offset, extent.total)
    end = min(begin + limit, extent.total)
    low, high = extent.gap_begin, extent.gap_end
    if low == high or end <= low or begin >= high:
        return Range(begin, end, (begin, end))
    note = left_out(extent)
    end = max(end, high)
    if begin >= low:
        return Range(low, end, (low, low), note, (high, end))
    return Range(begin, end, (begin, low), note, (high, end))


def left_out(extent: Extent) -> str:
    """The one line about what is not kept."""
    low, high = extent.gap_begin, extent.gap_end
    return f"\n--- {high - low:,} bytes of output are not kept: from byte {low:,} to byte {high:,} ---\n"


def blocks_of(extent: Extent) -> list[tuple[int, int]]:
    """What is kept, in blocks (begin, end); none goes over the gap."""
    low = extent.gap_begin if extent.gap_end else extent.total
    kept = [*range(0, low, BLOCK)], [*range(extent.gap_end or extent.total, extent.total, BLOCK)]
    return [
        (at, min(at + BLOCK, end))
        for starts, end in zip(kept, (low, extent.total), strict=True)
        for at in starts
    ]


def segment_name(offset: int) -> str:
    return f"{offset:0{DIGITS}}"


@dataclass(frozen=True)
class Index:
    """Where the blocks of a finished log are: (offset in the output, offset in the file), rising."""

    extent: Extent
    blocks: tuple[tuple[int, int], ...]


def index_bytes(count: int) -> int:
    """How long the first member is for so many blocks."""
    return len(_MEMBER) + 6 + _EXTENT.size + count * _BLOCK.size + len(_EMPTY)


def write_index(index: Index) -> bytes:
    """The first member."""
    extent = index.extent
    packed = _EXTENT.pack(extent.total, extent.gap_begin, extent.gap_end, len(index.blocks))
    packed += b"".join(_BLOCK.pack(*block) for block in index.blocks)
    return _MEMBER + struct.pack("<H2sH", len(packed) + 4, b"PS", len(packed)) + packed + _EMPTY


def read_index(start: bytes) -> Index:
    """The index in a file's first bytes (64 KiB hold every one). `Broken` if this is no log of ours."""
    try:
        total, low, high, count = _EXTENT.unpack_from(start, 16)
        blocks = tuple(_BLOCK.unpack_from(start, 16 + _EXTENT.size + n * _BLOCK.size) for n in range(count))
        index = Index(Extent(total, low, high), tuple((at, where) for at, where in blocks))
    except struct.error as error:
        raise Broken(f"the index of a finished log is damaged: {error}") from error
    if not start.startswith(write_index(index)):
        raise Broken("the index of a finished log is damaged")
    return index


def compress(block: bytes) -> bytes:
    """One member."""
    made = zlib.compressobj(6, zlib.DEFLATED, 31)
    return made.compress(block) + made.flush()


def decompress(member: bytes) -> bytes:
    """The first member of some bytes; `Broken` if it is damaged."""
    try:
        return zlib.decompressobj(31).decompress(member, BLOCK)
    except zlib.error as error:
        raise Broken(f"a finished log is damaged: {error}") from error
