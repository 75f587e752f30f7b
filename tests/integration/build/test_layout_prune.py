"""The artifact store is tidied: what is kept stays whole, what is shared stays, what is young stays."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from penstock.adapters.build import Layout
from penstock.core.image import File, Recipe, assemble
from penstock.errors import Invalid

OLD, NOW = 1_000_000.0, 2_000_000.0


def put(layout: Layout, command: str, text: bytes = b"the same") -> str:
    recipe = Recipe((command,), {}, {}, "linux/amd64", 1_700_000_000)
    return layout.put(assemble([File("program.py", text)], recipe), command)


def age(path: Path) -> None:
    for blob in (path / "blobs/sha256").iterdir():
        os.utime(blob, (OLD, OLD))


def blobs(path: Path) -> int:
    return len(list((path / "blobs/sha256").iterdir()))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


async def test_what_is_not_kept_goes_and_what_it_shares_stays(path: Path) -> None:
    layout = Layout(path)
    kept, gone, other = put(layout, "kept"), put(layout, "gone"), put(layout, "other", b"own layer")
    age(path)
    assert blobs(path) == 8  # kept and gone share a layer
    would = await layout.prune({kept}, NOW, dry=True)
    assert blobs(path) == 8
    done = await layout.prune({kept}, NOW)
    assert done == would
    assert set(done.images) == {gone, other}
    assert blobs(path) == 3
    assert layout.read(kept).command == ("kept",)
    with pytest.raises(Invalid):
        layout.read(gone)
    assert [entry["digest"] for entry in json.loads((path / "index.json").read_text())["manifests"]] == [kept]
    assert (await layout.prune({kept}, NOW)).images == ()


async def test_what_is_young_stays_although_nobody_asks_for_it(path: Path) -> None:
    layout = Layout(path)
    young = put(layout, "young")
    assert (await layout.prune((), NOW)).images == ()
    assert layout.read(young).command == ("young",)


async def test_built_again_it_is_young_again(path: Path) -> None:
    layout = Layout(path)
    again = put(layout, "again")
    age(path)
    put(layout, "again")
    assert (await layout.prune((), NOW)).images == ()
    assert layout.read(again).command == ("again",)


async def test_a_kept_image_that_the_index_does_not_list_stays_whole(path: Path) -> None:
    layout = Layout(path)
    kept = put(layout, "kept")
    (path / "index.json").unlink()
    age(path)
    await layout.prune({kept, f"sha256:{'0' * 64}"}, NOW)
    assert layout.read(kept).command == ("kept",)


async def test_an_empty_store_has_nothing_to_give(path: Path) -> None:
    assert (await Layout(path).prune((), NOW)).bytes == 0
    assert not path.exists()
