"""The `Source` port over a folder's files as they are now: what nobody has committed yet.

Found as ``penstock.source: worktree``; used by ``penstock run --dirty``. Of a git repository it takes what
git would: tracked files and new ones that are not ignored. What it gives is no commit, and says so. Must
never be the source of a delivery: nobody could check it out again.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path

from penstock.adapters._archive import unpack
from penstock.errors import Invalid
from penstock.ports import SourceRevision

#: Stands where a commit's id would.
UNCOMMITTED = "uncommitted"
LIST = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")


class WorkingTree:
    """*cache* is not needed: nothing is kept."""

    def __init__(self, cache: Path) -> None:
        del cache

    async def resolve(self, location: str, revision: str) -> SourceRevision:
        """The folder as it is; it has no other revision."""
        if revision:
            raise Invalid(f"files that are not committed have no {revision!r}", where=location)
        files = await asyncio.to_thread(_files, Path(location))
        newest = max((int((Path(location) / name).lstat().st_mtime) for name in files), default=0)
        return SourceRevision(location, UNCOMMITTED, "", "", "files as they are", "", newest)

    async def checkout(self, found: SourceRevision, destination: Path) -> None:
        """Copy the files, by the same rules as a commit's (no link that leads out of the tree)."""
        await asyncio.to_thread(_copy, Path(found.location), destination)

    async def touched(self, found: SourceRevision, path: str) -> SourceRevision:
        raise Invalid("files that are not committed have no history", where=found.location)


def _copy(folder: Path, destination: Path) -> None:
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            for name in _files(folder):
                _add(archive, folder / name, name)
        file.seek(0)
        try:
            with tarfile.open(fileobj=file) as archive:
                unpack(archive, destination)
        except Invalid as error:
            raise Invalid(error.what, where=f"{folder}: {error.where}") from error


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    told = tarfile.TarInfo(name)
    if path.is_symlink():
        told.type, told.linkname = tarfile.SYMTYPE, path.readlink().as_posix()
        archive.addfile(told)
        return
    with path.open("rb") as file:
        found = os.fstat(file.fileno())
        told.size, told.mode = found.st_size, found.st_mode & 0o777
        archive.addfile(told, file)


def _files(folder: Path) -> list[str]:
    """Relative names of the files and links; not those that were deleted, nor other repositories."""
    if not folder.is_dir():
        raise Invalid("no such folder", where=str(folder))
    try:
        listed = subprocess.run(
            ("git", "-c", "core.fsmonitor=false", "-C", str(folder), *LIST), capture_output=True, check=False
        )
        names = [os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]
    except FileNotFoundError:
        names = []
    if not names:
        names = [str(path.relative_to(folder)) for path in folder.rglob("*")]
        names = [name for name in names if ".git" not in Path(name).parts]
    found = sorted(n for n in set(names) if (folder / n).is_file() or (folder / n).is_symlink())
    if not found:
        raise Invalid("there are no files here", where=str(folder))
    return found
