"""RFC 6962 trees, against the definition in the RFC written down as plainly as possible."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core import merkle
from penstock.errors import Invalid

LARGEST = 40

#: The leaves and roots that Certificate Transparency's implementations test themselves with.
CT_LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
CT_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


class Tree:
    """Grown leaf by leaf, as the ledger does it."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.nodes: dict[tuple[int, int], bytes] = {}
        self.leaves = leaves
        for index, leaf in enumerate(leaves):
            for level, place, value in merkle.completed_by(index, merkle.leaf_hash(leaf), self.node):
                assert (level, place) not in self.nodes
                self.nodes[level, place] = value

    def node(self, level: int, index: int) -> bytes:
        return self.nodes[level, index]

    def root(self, size: int) -> bytes:
        return merkle.root(size, self.node)


def defined_root(leaves: list[bytes]) -> bytes:
    """RFC 6962, 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + defined_root(leaves[:k]) + defined_root(leaves[k:])).digest()


TREE = Tree([b"leaf %d" % number for number in range(LARGEST)])
SIZES = st.integers(1, LARGEST)


def test_published_roots() -> None:
    tree = Tree(CT_LEAVES)
    assert [tree.root(size).hex() for size in range(1, 9)] == CT_ROOTS


@pytest.mark.parametrize("size", range(LARGEST + 1))
def test_every_root_is_the_one_that_the_rfc_defines(size: int) -> None:
    assert TREE.root(size) == defined_root(TREE.leaves[:size])


@pytest.mark.parametrize("size", range(1, LARGEST + 1))
def test_every_leaf_is_proven_in_every_tree(size: int) -> None:
    for index in range(size):
        proof = merkle.inclusion(index, size, TREE.node)
        leaf = merkle.leaf_hash(TREE.leaves[index])
        assert merkle.root_from_inclusion(index, size, leaf, proof) == TREE.root(size)


@given(size=SIZES, other=SIZES, data=st.data())
def test_a_proof_is_of_one_leaf_at_one_place_in_one_tree(size: int, other: int, data: st.DataObject) -> None:
    index, place = (data.draw(st.integers(0, size - 1)) for _ in range(2))
    proof = merkle.inclusion(index, size, TREE.node)
    claimed = merkle.leaf_hash(TREE.leaves[place])
    try:
        found = merkle.root_from_inclusion(place, other, claimed, proof) if place < other else b""
    except Invalid:
        found = b""
    assert (found == TREE.root(other)) == ((place, other) == (index, size))


@given(size=SIZES, data=st.data())
def test_a_changed_proof_proves_nothing(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof = merkle.inclusion(index, size, TREE.node)
    leaf = merkle.leaf_hash(TREE.leaves[index])
    with pytest.raises(Invalid):
        merkle.root_from_inclusion(index, size, leaf, [*proof, leaf])
    if proof:
        with pytest.raises(Invalid):
            merkle.root_from_inclusion(index, size, leaf, proof[:-1])
        step = data.draw(st.integers(0, len(proof) - 1))
        changed = [*proof[:step], bytes(32), *proof[step + 1 :]]
        assert merkle.root_from_inclusion(index, size, leaf, changed) != TREE.root(size)


@pytest.mark.parametrize("new", range(LARGEST + 1))
def test_every_tree_is_consistent_with_every_earlier_one(new: int) -> None:
    for old in range(new + 1):
        proof = merkle.consistency(old, new, TREE.node)
        assert merkle.is_consistent(old, new, TREE.root(old), TREE.root(new), proof)


@given(old=SIZES, new=SIZES, data=st.data())
def test_another_history_is_never_consistent(old: int, new: int, data: st.DataObject) -> None:
    old, new = sorted((old, new))
    changed = data.draw(st.integers(0, old - 1))
    leaves = [*TREE.leaves[:changed], b"another", *TREE.leaves[changed + 1 :]]
    other = Tree(leaves)
    for proof in (merkle.consistency(old, new, TREE.node), merkle.consistency(old, new, other.node)):
        assert not merkle.is_consistent(old, new, TREE.root(old), other.root(new), proof)


def test_a_padded_consistency_proof_is_refused() -> None:
    for old, new in ((0, 5), (5, 5), (3, 7), (4, 8)):
        proof = [*merkle.consistency(old, new, TREE.node), bytes(32)]
        assert not merkle.is_consistent(old, new, TREE.root(old), TREE.root(new), proof)
    assert not merkle.is_consistent(3, 7, TREE.root(3), TREE.root(7), [])


@pytest.mark.parametrize(("index", "size"), [(0, 0), (5, 5), (-1, 3)])
def test_there_is_no_proof_of_a_leaf_outside_the_tree(index: int, size: int) -> None:
    with pytest.raises(Invalid):
        merkle.inclusion(index, size, TREE.node)
    with pytest.raises(Invalid):
        merkle.root_from_inclusion(index, size, bytes(32), [])


def test_a_tree_does_not_begin_with_a_larger_one() -> None:
    with pytest.raises(Invalid):
        merkle.consistency(4, 3, TREE.node)
