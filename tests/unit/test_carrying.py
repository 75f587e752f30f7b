"""What comes back from a step was written by other people's code: it leads nowhere but into its folder."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.adapters.kubernetes.carrying import Bundle, pack, unpack
from penstock.core.workload import Mount, Step
from penstock.errors import Invalid


@pytest.fixture
def step(tmp_path: Path) -> Step:
    work = tmp_path / "work"
    (work / "folder").mkdir(parents=True)
    (work / "folder/file").write_text("as it was")
    (work / "program").write_text("#!/bin/sh\n")
    (work / "program").chmod(0o755)
    (work / "link").symlink_to("/etc")
    return Step(("true",), "/work", (Mount(str(work), "/work", writable=True),))


def packed(step: Step) -> Bundle:
    return pack(step, "#!/bin/sh\n", io.BytesIO())


def written(*entries: tuple[str, bytes | str]) -> io.BytesIO:
    """An archive of files (bytes) and links (text; "" is a folder)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, what in entries:
            entry = tarfile.TarInfo(name)
            if isinstance(what, bytes):
                entry.size = len(what)
                archive.addfile(entry, io.BytesIO(what))
            else:
                entry.type, entry.linkname = (tarfile.SYMTYPE, what) if what else (tarfile.DIRTYPE, "")
                archive.addfile(entry)
    return buffer


def back(step: Step, change: Callable[[Path], None]) -> None:
    """Unpack what was sent somewhere else, *change* it there, and take it back: what a pod does."""
    bundle, pod = packed(step), Path(step.mounts[0].source).parent / "pod"
    bundle.file.seek(0)
    with tarfile.open(fileobj=bundle.file, mode="r:") as archive:
        archive.extractall(pod, filter="fully_trusted")
    change(pod / "0")
    again = io.BytesIO()
    with tarfile.open(fileobj=again, mode="w") as archive:
        archive.add(pod / "0", "0")
    unpack(step, again, bundle.sent)


def test_only_what_has_changed_is_changed_here(step: Step, tmp_path: Path) -> None:
    def change(there: Path) -> None:
        (there / "folder/file").unlink()
        (there / "folder").rmdir()
        (there / "new/deep").mkdir(parents=True)
        (there / "new/deep/run").write_text("made")
        (there / "new/deep/run").chmod(0o755)
        (there / "new/same").hardlink_to(there / "new/deep/run")
        (there / "link").unlink()
        (there / "link").mkdir()
        (there / "link/passwd").write_text("mine")

    work = tmp_path / "work"
    before = (work / "program").stat().st_ino
    (tmp_path / "log").write_text("written meanwhile")
    back(step, change)
    assert sorted(str(path.relative_to(work)) for path in work.rglob("*")) == [
        *("link", "link/passwd", "new", "new/deep", "new/deep/run", "new/same", "program")
    ]
    assert (work / "link/passwd").read_text() == "mine"
    assert (work / "new/same").read_text() == "made"
    assert os.access(work / "new/deep/run", os.X_OK)
    assert (work / "program").stat().st_ino == before


def test_a_folder_that_becomes_a_link_is_that_link_and_nothing_is_written_through_it(
    step: Step, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("not theirs")

    def change(there: Path) -> None:
        (there / "folder/file").unlink()
        (there / "folder").rmdir()
        (there / "folder").symlink_to(tmp_path / "outside")

    back(step, change)
    assert (tmp_path / "work/folder").is_symlink()
    assert (tmp_path / "outside/file").read_text() == "not theirs"


@pytest.mark.parametrize(
    "entries",
    [
        [("0/../../planted", b"x")],
        [("/planted", b"x")],
        [("1/planted", b"x")],
        [("run", b"x")],
        [("0/link/planted", b"x")],
        [("0/new", "/etc"), ("0/new/planted", b"x")],
        [("0/nowhere/planted", b"x")],
    ],
    ids=["up", "absolute", "no mount", "the script", "a link of ours", "a link of theirs", "no folder"],
)
def test_what_leads_elsewhere_is_refused(
    step: Step, tmp_path: Path, entries: list[tuple[str, bytes | str]]
) -> None:
    with pytest.raises(Invalid, match="what the step wrote"):
        unpack(step, written(("0", ""), *entries), packed(step).sent)
    assert not list(tmp_path.rglob("planted"))
    assert not Path("/etc/planted").exists()
    assert not (tmp_path.parent / "planted").exists()


@pytest.mark.parametrize("keep", [0, 700, 1024, 6000])
def test_what_is_damaged_is_refused_and_nothing_is_lost(step: Step, tmp_path: Path, keep: int) -> None:
    whole = written(("0", ""), ("0/folder", ""), ("0/folder/file", b"x" * 5000)).getvalue()
    with pytest.raises(Invalid, match="cannot be taken back"):
        unpack(step, io.BytesIO(whole[:keep]), packed(step).sent)
    assert (tmp_path / "work/folder/file").read_text() == "as it was"
    assert (tmp_path / "work/program").exists()


def test_what_is_not_there_cannot_be_sent() -> None:
    with pytest.raises(Invalid, match="cannot be sent"):
        packed(Step(("true",), "/", (Mount("/no/such/file", "/file"),)))
