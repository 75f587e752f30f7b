"""Unpacks tar archives from outside without trusting them: what git and the image store both need.

Not an adapter, and not for others. (``tarfile``'s own ``data`` filter is not in every Python 3.11.)
"""

from __future__ import annotations

import posixpath
import shutil
import tarfile
from pathlib import Path

from penstock.errors import Invalid

MAX_MEMBERS = 200_000
MAX_BYTES = 4 * 1024**3


def unpack(archive: tarfile.TarFile, destination: Path) -> None:
    """Files, folders and symbolic links that stay inside; anything else is `Invalid`."""
    members = written = 0
    links: list[tuple[str, Path]] = []
    for member in archive:
        members, written = members + 1, written + member.size
        if members > MAX_MEMBERS or written > MAX_BYTES:
            raise Invalid(f"more than {MAX_MEMBERS} files or {MAX_BYTES} bytes", where=member.name)
        target = destination / _inside(member.name, member.name)
        _check_parents(target, destination, member.name)
        if member.isdir():
            target.mkdir(parents=True, exist_ok=True)
        elif member.isfile():
            _write(archive, member, target)
        elif member.issym():
            _inside(posixpath.join(posixpath.dirname(member.name), member.linkname), member.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(member, target)
            links.append((member.name, target))
        else:
            raise Invalid("neither a file, a folder nor a link inside the tree", where=member.name)
    for name, link in links:
        # Each link alone stays inside; one through another may not.
        if not _resolved(link, name).is_relative_to(destination.resolve()):
            raise Invalid("leads out of the tree through other links", where=name)


def _check_parents(target: Path, destination: Path, name: str) -> None:
    """A link planted by an earlier member must not carry this one elsewhere."""
    for path in (target, *target.parents):
        if path == destination:
            return
        if path.is_symlink():
            raise Invalid("at or below a symbolic link", where=name)


def _resolved(link: Path, name: str) -> Path:
    try:
        return link.resolve()
    except (OSError, RuntimeError) as error:
        raise Invalid("a symbolic link that leads to itself", where=name) from error


def _link(member: tarfile.TarInfo, target: Path) -> None:
    if target.exists():
        raise Invalid("a link where something else is already", where=member.name)
    target.symlink_to(member.linkname)


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source = archive.extractfile(member)
    if source is None:
        raise Invalid("a file without content", where=member.name)
    with source, target.open("wb") as file:
        shutil.copyfileobj(source, file)
    target.chmod(0o755 if member.mode & 0o100 else 0o644)


def _inside(name: str, where: str) -> str:
    clean = posixpath.normpath(name)
    if posixpath.isabs(name) or clean == ".." or clean.startswith("../"):
        raise Invalid("leads out of the tree", where=where)
    return clean
