"""What ``ledger verify`` remembers of the entries that it has seen: a few bytes each, whatever their size.

Called by `ledger.fsck`. It answers whether something was seen before and was the same. Must not read the
database, or decide what is wrong.
"""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b

from penstock.core import merkle

#: Entries whose tags are compared together.
SPAN = 1000


class Tree:
    """Every complete node, level by level: 64 bytes for each entry."""

    def __init__(self) -> None:
        self._levels: list[bytearray] = []

    def add(self, index: int, leaf: bytes) -> None:
        """The next leaf, and the nodes that it completes."""
        for level, _, value in merkle.completed_by(index, leaf, self.node):
            if level == len(self._levels):
                self._levels.append(bytearray())
            self._levels[level] += value

    def node(self, level: int, index: int) -> bytes:
        """`KeyError` if the tree has no such node."""
        if not 0 <= level < len(self._levels) or not 0 <= index < len(self._levels[level]) // 32:
            raise KeyError(f"there is no node {level}/{index}")
        return bytes(self._levels[level][index * 32 : index * 32 + 32])

    def root(self, size: int) -> bytes:
        return merkle.root(size, self.node)

    def places(self) -> Iterator[tuple[int, int]]:
        """(level, index) of every node, in this order."""
        for level, hashes in enumerate(self._levels):
            for index in range(len(hashes) // 32):
                yield level, index


class Seen:
    """Hashes that may come only once: eight bytes of each, in 256 heaps."""

    def __init__(self) -> None:
        self._heaps = [array("Q") for _ in range(256)]

    def add(self, value: bytes) -> None:
        self._heaps[value[0]].append(int.from_bytes(value[1:9]))

    def twice(self) -> Iterator[set[bytes]]:
        """For each heap, how hashes begin that may have come more than once: look closer at those."""
        for first, heap in enumerate(self._heaps):
            often = Counter(heap) if len(set(heap)) < len(heap) else {}
            yield {bytes([first]) + number.to_bytes(8) for number, times in often.items() if times > 1}


class Tags:
    """Whether two sets of (tag, index) are the same: for each span of indices, the difference of their sums.

    What is summed is a hash under a key that is drawn anew each time, so nobody can have chosen rows, before
    it was drawn, whose sums agree although the rows do not. Rows that are there twice count twice.
    """

    def __init__(self) -> None:
        self._key = os.urandom(32)
        self._sums: dict[int, int] = {}

    def add(self, tag: str, index: int, times: int) -> None:
        """Computed ones with *times* 1, stored ones with -1."""
        hashed = blake2b(b"%d %s" % (index, tag.encode()), digest_size=32, key=self._key).digest()
        span = index // SPAN
        self._sums[span] = (self._sums.get(span, 0) + times * int.from_bytes(hashed)) % 2**256

    def differing(self) -> list[range]:
        """The indices among which something differs."""
        return [range(s * SPAN, (s + 1) * SPAN) for s, difference in sorted(self._sums.items()) if difference]
