"""The archive of a backup: what is whole is read back, and what is cut, changed or hostile is refused."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.bootstrap.archive import FORMAT, Contents, Manifest, Member, Writer, check
from penstock.errors import Broken, Invalid

PLAIN = Manifest(FORMAT, "0.1.0", 1.0, "penstock", 1, "00", "note", "sqlite", {"ledger": 2}, "/home/p")
FILES = {"store.db": b"rows" * 1000, "keys/log.key": b"seed", "trust.json": b"{}"}


def made(files: dict[str, bytes] | None = None, manifest: Manifest = PLAIN) -> bytes:
    stream = io.BytesIO()
    writer = Writer(stream)
    for name, data in (FILES if files is None else files).items():
        writer.add(name, data)
    writer.end(lambda members: replace(manifest, members=members))
    return stream.getvalue()


def read(data: bytes) -> Contents:
    return check(io.BytesIO(data), "backup.tar")


def test_what_was_written_is_read_back_by_us_and_by_any_tar(tmp_path: Path) -> None:
    contents = read(made())
    assert contents.names == tuple(FILES)
    for member in contents.manifest.members:
        contents.extract(member, tmp_path / member.name)
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == FILES
    assert stat.S_IMODE((tmp_path / "keys/log.key").stat().st_mode) == 0o600
    with tarfile.open(fileobj=io.BytesIO(made())) as others:
        assert others.getnames() == [*FILES, "manifest.json"]


def test_a_large_file_is_copied_in_pieces(tmp_path: Path) -> None:
    data = os.urandom(3 * 1024 * 1024 + 17)
    (tmp_path / "blob").write_bytes(data)
    stream = io.BytesIO()
    writer = Writer(stream)
    name = f"artifacts/blobs/sha256/{'a' * 64}"
    writer.add_file(name, tmp_path / "blob")
    writer.end(lambda members: replace(PLAIN, members=members))
    contents = check(stream, "backup.tar")
    contents.extract(contents.manifest.members[0], tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data


def test_cut_off_anywhere_it_is_refused() -> None:
    whole = made()
    for length in [*range(0, len(whole), 199), *range(0, len(whole), 512)]:
        with pytest.raises(Invalid):
            read(whole[:length])


def test_a_changed_byte_is_noticed_wherever_it_counts() -> None:
    whole = made()
    for place in range(0, len(whole) - 1024, 97):
        changed = bytearray(whole)
        changed[place] ^= 1
        try:
            contents = read(bytes(changed))
        except Invalid:
            continue
        # Only what no reader of ours uses may differ: padding, the release's name, the time …
        found = {member.name: member.sha256 for member in contents.manifest.members}
        assert found == {member.name: member.sha256 for member in read(whole).manifest.members}


def head(name: str, size: int = 0, **fields: object) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT)


def before(first: bytes) -> bytes:
    return first + made()


HOSTILE: dict[str, Callable[[], bytes]] = {
    "out of the folder": lambda: before(head("../keys/log.key")),
    "out of the folder, from within": lambda: before(head("keys/../../log.key")),
    "an absolute path": lambda: before(head("/etc/passwd")),
    "a hidden name": lambda: before(head("keys/.profile")),
    "a symbolic link": lambda: before(head("keys/a", type=tarfile.SYMTYPE, linkname="/etc/passwd")),
    "a hard link": lambda: before(head("keys/a", type=tarfile.LNKTYPE, linkname="store.db")),
    "a device": lambda: before(head("keys/a", type=tarfile.CHRTYPE)),
    "a pipe": lambda: before(head("keys/a", type=tarfile.FIFOTYPE)),
    "a folder": lambda: before(head("keys/a", type=tarfile.DIRTYPE)),
    "a sparse file": lambda: before(head("keys/a", type=tarfile.GNUTYPE_SPARSE)),
    "a long name": lambda: before(head("././@LongLink", 4, type=tarfile.GNUTYPE_LONGNAME)),
    "extended headers": lambda: before(head("keys/a", 1 << 40, type=tarfile.XHDTYPE)),
    "a size that is not there": lambda: before(head("store.db", 1 << 60)),
    "a size below nothing": lambda: before(head("store.db", -(1 << 40))),
    "a manifest that is too large": lambda: head("manifest.json", 1 << 27) + bytes(1 << 27),
    "the same name twice": lambda: made({"store.db": b"a"})[:1024] + made(),
    "a member that is not listed": lambda: before(head("keys/more.key")),
    "a manifest that is not JSON": lambda: head("manifest.json", 2) + b"{]".ljust(512, b"\0"),
    "a manifest of depths": lambda: head("manifest.json", 100_000) + b"[" * 100_352,
    "a name that is not text": lambda: before(b"\xff" * 512),
    "nothing": lambda: b"",
    "something else": lambda: b"PK\3\4" * 1000,
    "zeros": lambda: bytes(10240),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_archive_is_refused(what: str) -> None:
    with pytest.raises(Invalid) as caught:
        read(HOSTILE[what]())
    assert "backup.tar" in str(caught.value)


def test_another_format_names_the_way_out() -> None:
    with pytest.raises(Invalid, match="backup/v9") as caught:
        read(made(manifest=replace(PLAIN, format="penstock.backup/v9")))
    assert "the release that made it" in caught.value.next_move


def test_a_manifest_that_lists_more_is_refused() -> None:
    stream = io.BytesIO()
    writer = Writer(stream)
    writer.add("store.db", b"a")
    writer.end(lambda members: replace(PLAIN, members=(*members, Member("keys/log.key", 1, "00"))))
    with pytest.raises(Invalid, match=r"keys/log\.key"):
        check(stream, "backup.tar")


def test_what_changes_between_checking_and_writing_is_refused(tmp_path: Path) -> None:
    stream = io.BytesIO(made())
    contents = check(stream, "backup.tar")
    stream.seek(contents.starts["store.db"])
    stream.write(b"X")
    with pytest.raises(Invalid, match="changed"):
        contents.extract(contents.manifest.members[0], tmp_path / "store.db")


@pytest.mark.parametrize("name", ["../a", "keys/" + "a" * 200, "other"])
def test_only_what_can_be_read_back_is_written(name: str) -> None:
    with pytest.raises(Broken):
        Writer(io.BytesIO()).add(name, b"")
