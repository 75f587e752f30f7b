"""What `ledger verify` remembers of entries: small, and as exact as remembering everything."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core import merkle
from penstock.ledger.tallies import SPAN, Seen, Tags, Tree

ROWS = st.lists(st.tuples(st.text(max_size=3), st.integers(0, 3 * SPAN)), max_size=12)


@given(stored=ROWS, computed=ROWS)
def test_tags_differ_exactly_in_the_spans_in_which_they_differ(
    stored: list[tuple[str, int]], computed: list[tuple[str, int]]
) -> None:
    tallied = Tags()
    for tag, index in computed:
        tallied.add(tag, index, 1)
    for tag, index in reversed(stored):
        tallied.add(tag, index, -1)
    left = Counter(computed)
    left.subtract(stored)
    spans = {index // SPAN for (_, index), times in left.items() if times}
    assert tallied.differing() == [range(s * SPAN, s * SPAN + SPAN) for s in sorted(spans)]


def test_a_tag_twice_is_not_a_tag_once_and_no_two_are_confused() -> None:
    for stored in ([("a", 1), ("a", 1)], [("a", 11)], [("1 a", 1)], [("a", 2)], []):
        tallied = Tags()
        tallied.add("a", 1, 1)
        for tag, index in stored:
            tallied.add(tag, index, -1)
        assert tallied.differing() == [range(SPAN)], stored


@given(st.lists(st.sampled_from([bytes([n % 3]) + bytes([n]) * 31 for n in range(12)])))
def test_what_came_twice_is_among_what_may_have(leaves: list[bytes]) -> None:
    seen = Seen()
    for leaf in leaves:
        seen.add(leaf)
    doubtful = set().union(*seen.twice())
    assert doubtful == {leaf[:9] for leaf, times in Counter(leaves).items() if times > 1}


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 8, 21, 64, 65])
def test_the_tree_has_every_node_and_every_root(size: int) -> None:
    tree, nodes = Tree(), dict[tuple[int, int], bytes]()
    for index in range(size):
        leaf = merkle.leaf_hash(b"%d" % index)
        tree.add(index, leaf)
        for level, place, value in merkle.completed_by(index, leaf, lambda *at: nodes[at]):
            nodes[level, place] = value
    assert list(tree.places()) == sorted(nodes)
    assert all(tree.node(*place) == value for place, value in nodes.items())
    for smaller in range(size + 1):
        assert tree.root(smaller) == merkle.root(smaller, lambda *at: nodes[at])
    for nowhere in ((0, size), (0, -1), (-1, 0), (20, 0)):
        with pytest.raises(KeyError):
            tree.node(*nowhere)
