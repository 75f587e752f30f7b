"""Archives from outside: what they may hold, and every way out of the folder that they may try."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from penstock.adapters._archive import unpack
from penstock.errors import Invalid


def file(name: str, data: bytes = b"x", mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    return entry, data


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry, b""


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return special(name, tarfile.SYMTYPE, target)


def unpacked(folder: Path, *entries: tuple[tarfile.TarInfo, bytes]) -> Path:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for entry, data in entries:
            archive.addfile(entry, io.BytesIO(data))
    buffer.seek(0)
    inside = folder / "inside"
    inside.mkdir()
    with tarfile.open(fileobj=buffer) as archive:
        unpack(archive, inside)
    return inside


def test_files_folders_and_links_inside_arrive(tmp_path: Path) -> None:
    inside = unpacked(
        tmp_path,
        special("bin", tarfile.DIRTYPE),
        file("bin/run", b"program", 0o4755),
        file("deep/er/data", b"data", 0o666),
        link("deep/run", "../bin/run"),
        link("latest", "deep"),
    )
    assert (inside / "deep" / "run").read_bytes() == b"program"
    assert (inside / "latest" / "er" / "data").read_bytes() == b"data"
    assert (inside / "bin" / "run").stat().st_mode & 0o7777 == 0o755
    assert (inside / "deep" / "er" / "data").stat().st_mode & 0o7777 == 0o644


ESCAPES = {
    "an absolute path": [file("/etc/planted")],
    "a path upwards": [file("../planted")],
    "a path upwards, later": [file("a/../../planted")],
    "an absolute link": [link("a", "/etc/passwd")],
    "a link upwards": [link("a/b", "../../outside")],
    "a link upwards, in a folder's name": [link("../a", "b")],
    "a file through a link": [link("a", "b"), file("a/planted")],
    "a file in the place of a link": [link("a", "b"), file("a")],
    "a folder through a link": [
        special("b", tarfile.DIRTYPE),
        link("a", "b"),
        special("a/c", tarfile.DIRTYPE),
    ],
    "a link through a link": [link("a/b/up", "../.."), link("a/b/evil", "up/../x")],
    "a link through two links": [
        link("a/b/up", "../.."),
        link("a/b/again", "up"),
        link("a/b/evil", "again/../x"),
    ],
    "a link made evil by a later one": [link("a/b/evil", "up/../x"), link("a/b/up", "../..")],
    "a link placed through a link": [link("a/b/up", "../.."), link("a/b/up/evil", "x/../..")],
    "a folder through a link through a link": [
        link("a/b/up", "../.."),
        link("a/b/evil", "up/../planted"),
        special("a/b/evil/c", tarfile.DIRTYPE),
    ],
    "a link in the place of a file": [file("a"), link("a", "b")],
    "a hard link": [file("a"), special("b", tarfile.LNKTYPE, "a")],
    "a hard link outside": [special("b", tarfile.LNKTYPE, "../../etc/passwd")],
    "a character device": [special("null", tarfile.CHRTYPE)],
    "a block device": [special("disk", tarfile.BLKTYPE)],
    "a pipe": [special("pipe", tarfile.FIFOTYPE)],
}


@pytest.mark.parametrize("entries", ESCAPES.values(), ids=ESCAPES.keys())
def test_nothing_leads_outside(tmp_path: Path, entries: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    with pytest.raises(Invalid) as raised:
        unpacked(tmp_path, *entries)
    assert raised.value.where
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]


def test_two_links_in_a_ring_are_refused_or_harmless(tmp_path: Path) -> None:
    """They lead nowhere; all that is asked is that this ends, in a word of ours or none."""
    try:
        inside = unpacked(tmp_path, link("a", "b"), link("b", "a"))
    except Invalid:
        return
    assert not (inside / "a").exists()
