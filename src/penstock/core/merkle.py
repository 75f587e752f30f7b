"""RFC 6962 Merkle trees over hashes: roots, inclusion proofs and consistency proofs.

Called by the ledger, which stores the interior nodes, and by offline verification, which has only the
proofs. Pure. A *node* is named (level, index): the root of the complete subtree of 2^level leaves that
begins at leaf index·2^level.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from penstock.errors import Invalid

Hash = bytes
#: Looks a complete subtree's root up.
Node = Callable[[int, int], Hash]

EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> Hash:
    return hashlib.sha256(b"\x00" + data).digest()


def join(left: Hash, right: Hash) -> Hash:
    return hashlib.sha256(b"\x01" + left + right).digest()


def completed_by(index: int, leaf: Hash, node: Node) -> list[tuple[int, int, Hash]]:
    """The nodes (level, index, hash) that appending leaf number *index* completes, the leaf first."""
    made = [(0, index, leaf)]
    level, position, value = 0, index, leaf
    while position % 2 == 1:
        value = join(node(level, position - 1), value)
        level, position = level + 1, position // 2
        made.append((level, position, value))
    return made


def root(size: int, node: Node) -> Hash:
    """The root of the first *size* leaves."""
    return _range(0, size, node) if size else EMPTY_ROOT


def inclusion(index: int, size: int, node: Node) -> list[Hash]:
    """The audit path of leaf *index* in the tree of *size* leaves."""
    if not 0 <= index < size:
        raise Invalid(f"no leaf {index} in a tree of {size}")
    return _path(index, 0, size, node)


def consistency(old: int, new: int, node: Node) -> list[Hash]:
    """The proof that the tree of *new* leaves begins with the tree of *old* leaves."""
    if not 0 <= old <= new:
        raise Invalid(f"no consistency from {old} to {new}")
    return [] if old in (0, new) else _subproof(old, 0, new, True, node)


def root_from_inclusion(index: int, size: int, leaf: Hash, proof: Sequence[Hash]) -> Hash:
    """The root that an audit path leads to; `Invalid` if it has the wrong length."""
    if not 0 <= index < size:
        raise Invalid(f"no leaf {index} in a tree of {size}")
    fn, sn, value = index, size - 1, leaf
    for step in proof:
        if sn == 0:
            raise Invalid("the inclusion proof is too long")
        if fn % 2 == 1 or fn == sn:
            value = join(step, value)
            while fn % 2 == 0 and fn != 0:
                fn, sn = fn // 2, sn // 2
        else:
            value = join(value, step)
        fn, sn = fn // 2, sn // 2
    if sn != 0:
        raise Invalid("the inclusion proof is too short")
    return value


def is_consistent(old: int, new: int, old_root: Hash, new_root: Hash, proof: Sequence[Hash]) -> bool:
    """Whether *proof* shows that the new tree begins with the old one (RFC 9162, 2.1.4.2)."""
    if old == new:
        return old_root == new_root and not proof
    if old == 0:
        return not proof
    steps = list(proof)
    if old & (old - 1) == 0:
        steps.insert(0, old_root)
    if not steps:
        return False
    fn, sn = old - 1, new - 1
    while fn % 2 == 1:
        fn, sn = fn // 2, sn // 2
    first = second = steps[0]
    for step in steps[1:]:
        if sn == 0:
            return False
        if fn % 2 == 1 or fn == sn:
            first, second = join(step, first), join(step, second)
            while fn % 2 == 0 and fn != 0:
                fn, sn = fn // 2, sn // 2
        else:
            second = join(second, step)
        fn, sn = fn // 2, sn // 2
    return sn == 0 and first == old_root and second == new_root


def _split(size: int) -> int:
    """The largest power of two below *size*."""
    return 1 << (size - 1).bit_length() - 1


def _range(start: int, size: int, node: Node) -> Hash:
    if size & (size - 1) == 0:
        level = size.bit_length() - 1
        return node(level, start >> level)
    left = _split(size)
    return join(_range(start, left, node), _range(start + left, size - left, node))


def _path(index: int, start: int, size: int, node: Node) -> list[Hash]:
    if size == 1:
        return []
    left = _split(size)
    if index < left:
        return [*_path(index, start, left, node), _range(start + left, size - left, node)]
    return [*_path(index - left, start + left, size - left, node), _range(start, left, node)]


def _subproof(old: int, start: int, size: int, whole: bool, node: Node) -> list[Hash]:
    if old == size:
        return [] if whole else [_range(start, size, node)]
    left = _split(size)
    if old <= left:
        return [*_subproof(old, start, left, whole, node), _range(start + left, size - left, node)]
    return [*_subproof(old - left, start + left, size - left, False, node), _range(start, left, node)]
