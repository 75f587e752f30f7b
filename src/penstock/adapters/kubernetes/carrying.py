"""A step's files on their way to its pod and back, as tar archives. No network here.

Called by `jobs`. What comes back was written by other people's code: it never leads out of the folder that it
belongs in, through no link of theirs or ours. Only what the step has changed is changed here.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import posixpath
import shutil
import stat
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from penstock.core.workload import Step
from penstock.errors import Invalid

#: The script that is the step, beside the folders with the numbers of its mounts.
SCRIPT = "run"
CHUNK = 256 * 1024
#: What every archive ends with.
END = bytes(1024)
#: Nobody writes more than this to bring down whoever takes it in.
MOST_BACK = 4 * 1024**3


@dataclass(frozen=True)
class Bundle:
    """*file* is the archive, *sent* what each path in a writable folder was: another mark is another
    content."""

    file: IO[bytes]
    sent: Mapping[str, str]

    def chunks(self) -> Iterator[bytes]:
        self.file.seek(0)
        while data := self.file.read(CHUNK):
            yield data


def pack(step: Step, script: str, file: IO[bytes]) -> Bundle:
    """What the step's mounts hold now, and its *script*, into *file*. `Invalid` if one cannot be sent."""
    sent: dict[str, str] = {}
    # Not the pax format, whose long names the small tar of many images does not read.
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        about = tarfile.TarInfo(SCRIPT)
        data = script.encode()
        about.size, about.mode = len(data), 0o555
        archive.addfile(about, io.BytesIO(data))
        for number, mount in enumerate(step.mounts):
            source = Path(mount.source)
            if mount.writable and not source.is_dir():
                raise Invalid("only folders can be written to by a step in a cluster", where=mount.target)
            try:
                archive.add(source.resolve(), str(number))
            except OSError as error:
                raise Invalid(f"cannot be sent: {error.strerror}", where=str(error.filename)) from error
            if mount.writable:
                sent |= {posixpath.join(str(number), name): mark for name, mark in _marks(source)}
    return Bundle(file, sent)


def _marks(folder: Path) -> Iterator[tuple[str, str]]:
    for where, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(where) / name
            mode = path.lstat().st_mode
            inside = path.relative_to(folder).as_posix()
            if stat.S_ISLNK(mode):
                yield inside, f"link {path.readlink()}"
            elif stat.S_ISDIR(mode):
                yield inside, "folder"
            elif stat.S_ISREG(mode):
                with path.open("rb") as file:
                    yield inside, _mark(file, mode)


def _mark(file: BinaryIO | IO[bytes], mode: int) -> str:
    return f"file {mode & 0o111 != 0} {hashlib.file_digest(file, 'sha256').hexdigest()}"  # type: ignore[arg-type]


def unpack(step: Step, archive: IO[bytes], sent: Mapping[str, str]) -> None:
    """Make the step's writable folders what the *archive* says. `Invalid` if it lies or is damaged."""
    roots = {str(number): Path(m.source) for number, m in enumerate(step.mounts) if m.writable}
    _check_whole(archive)
    try:
        with tarfile.open(fileobj=archive, mode="r:") as opened:
            found = _unpacked(opened, roots, sent)
    except (tarfile.TarError, EOFError, KeyError, OSError) as error:
        raise Invalid(f"what the step wrote cannot be taken back: {error!r}") from error
    for name in sorted(sent, reverse=True):  # what is in a folder comes before it
        number, _, inside = name.partition("/")
        if name not in found and _is_real(roots[number], inside):
            _clear(roots[number] / inside)


def _check_whole(archive: IO[bytes]) -> None:
    """A reader takes what was cut off between two files for an archive that ends there; its mark is two empty
    blocks."""
    size = archive.seek(0, os.SEEK_END)
    archive.seek(max(0, size - len(END)))
    if archive.read() != END:
        raise Invalid("what the step wrote cannot be taken back: its end is missing")
    archive.seek(0)


def _unpacked(archive: tarfile.TarFile, roots: Mapping[str, Path], sent: Mapping[str, str]) -> set[str]:
    """The names in it. Links are made last: nothing is written through one."""
    found: set[str] = set()
    links = []
    for member in archive:
        name = posixpath.normpath(member.name)
        number, _, inside = name.partition("/")
        if number not in roots or ".." in inside.split("/"):
            raise Invalid(f"what the step wrote leads elsewhere: {member.name!r}")
        found.add(name)
        if not inside:
            continue
        if not _is_real(roots[number], inside):
            raise Invalid(f"what the step wrote leads through a link: {member.name!r}")
        path = roots[number] / inside
        if member.issym():
            links.append((path, member.linkname, sent.get(name)))
        elif member.isdir():
            _folder(path)
        elif member.isfile() or member.islnk():
            _file(archive, member, path, sent.get(name))
    for path, target, before in links:
        if before != f"link {target}":
            _clear(path)
            path.symlink_to(target)
    return found


def _is_real(root: Path, inside: str) -> bool:
    """Whether all that leads to it, below *root*, are folders and no links."""
    path = root
    for part in inside.split("/")[:-1]:
        path = path / part
        if path.is_symlink() or not path.is_dir():
            return False
    return True


def _folder(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        _clear(path)
        path.mkdir()


def _file(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path, before: str | None) -> None:
    content = archive.extractfile(member)
    if content is None:
        raise Invalid(f"what the step wrote has no content: {member.name!r}")
    if before is not None and _mark(content, member.mode) == before:
        return
    content.seek(0)
    _clear(path)
    with path.open("xb") as file:
        shutil.copyfileobj(content, file, CHUNK)
    path.chmod(0o755 if member.mode & 0o111 else 0o644)


def _clear(path: Path) -> None:
    """Nothing is there any more; a link is taken away, not what it leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
