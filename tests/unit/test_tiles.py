"""Tile paths and entry bundles: one path for each tile, and nothing lost in a bundle."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.tiles import MAX_ENTRY, WIDTH, Tile, decode_bundle, encode_bundle, tiles
from penstock.errors import Invalid

LEVELS = st.none() | st.integers(0, 63)
WIDTHS = st.integers(1, WIDTH)


@pytest.mark.parametrize(
    ("path", "tile"),
    [
        ("tile/0/000", Tile(0, 0)),
        ("tile/1/x001/x234/067", Tile(1, 1234067)),
        ("tile/63/999.p/255", Tile(63, 999, 255)),
        ("tile/entries/x001/000.p/1", Tile(None, 1000, 1)),
        ("tile/entries/255", Tile(None, 255)),
    ],
)
def test_the_specifications_paths(path: str, tile: Tile) -> None:
    assert Tile.parse(path) == tile
    assert tile.path == path


@given(level=LEVELS, index=st.integers(0, 10**21 - 1), width=WIDTHS)
def test_every_tile_has_one_path(level: int | None, index: int, width: int) -> None:
    assert Tile.parse(Tile(level, index, width).path) == Tile(level, index, width)


@given(st.from_regex(r"tile/(entries|[0-9]{1,3})/([x0-9/]{0,12})(\.p/[0-9]{0,4})?", fullmatch=True))
def test_what_is_parsed_is_that_path_and_no_other(path: str) -> None:
    try:
        found = Tile.parse(path)
    except Invalid:
        return
    assert found.path == path
    assert 1 <= found.width <= WIDTH


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile/0/0",
        "tile/00/000",
        "tile/64/000",
        "tile/0/0000",
        "tile/0/x000/001",
        "tile/0/001/001",
        "tile/0/x001",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/999",
        "tile/0/000.p/",
        "tile/0/000/",
        "/tile/0/000",
        "tile/entry/000",
        "tile/-1/000",
        "tile/0/٠٠٠",
        "tile/0/000\n",
        "tile/0/../000",
        "tile/0/" + "x001/" * 7 + "001",
    ],
)
def test_another_path_is_refused(path: str) -> None:
    with pytest.raises(Invalid):
        Tile.parse(path)


def test_the_tiles_of_the_specifications_example() -> None:
    found = list(tiles(70_000))
    count = {level: [t.width for t in found if t.level == level] for level in (None, 0, 1, 2, 3)}
    assert count[0] == count[None] == [WIDTH] * 273 + [112]
    assert count[1] == [WIDTH, 17]
    assert count[2] == [1]
    assert count[3] == []
    assert list(tiles(256)) == [Tile(None, 0), Tile(0, 0), Tile(1, 0, 1)]
    assert list(tiles(0)) == []


@given(st.integers(0, 200_000), st.integers(0, 200_000))
def test_a_tree_has_the_tiles_that_it_lists_and_those_of_every_earlier_one(size: int, earlier: int) -> None:
    earlier = min(size, earlier)
    assert all(tile.within(size) for tile in [*tiles(size), *tiles(earlier)][-50:])
    for tile in {tile.level: tile for tile in tiles(size)}.values():  # the last of each level
        if tile.width < WIDTH:
            assert not Tile(tile.level, tile.index, tile.width + 1).within(size)
        assert not Tile(tile.level, tile.index + 1, 1).within(size)


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_a_bundle_gives_its_entries_back(entries: list[bytes]) -> None:
    assert decode_bundle(encode_bundle(entries)) == entries


def test_a_bundle_holds_entries_of_two_bytes_length_and_no_larger_ones() -> None:
    assert encode_bundle([b"", b"ab"]) == b"\x00\x00\x00\x02ab"
    assert decode_bundle(encode_bundle([bytes(MAX_ENTRY)])) == [bytes(MAX_ENTRY)]
    with pytest.raises(Invalid, match="65536 bytes"):
        encode_bundle([bytes(MAX_ENTRY + 1)])


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5])
def test_a_bundle_that_was_cut_is_refused(cut: int) -> None:
    whole = encode_bundle([b"abc", b"de"])
    with pytest.raises(Invalid, match="ends within"):
        decode_bundle(whole[:-cut] if cut != 4 else whole[:1])
