"""The file that a backup is: a tar of plain files, and a manifest with the SHA-256 of each as its last
member.

Called by `backup` and `restore`. Any tar program reads it. Reading it back trusts nothing: only files, only
names that a backup has, each once, all of it there and as the manifest says. (``tarfile`` itself is not asked
to read: it follows extended headers, links and sparse files, none of which a backup has.)
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from penstock.core.codec import decode, encode
from penstock.errors import Broken, Conflict, Invalid

FORMAT = "penstock.backup/v1"
MANIFEST = "manifest.json"
BLOCK = 512
PIECE = 1024 * 1024
MAX_MEMBERS = 200_000
MAX_MANIFEST = 64 * 1024 * 1024
#: What a header of a tar has room for without an extension.
MAX_NAME = 100

_FILE = r"[A-Za-z0-9][A-Za-z0-9._-]*"
NAMES = re.compile(
    rf"store\.(db|dump)|trust\.json|settings\.json|keys/{_FILE}"
    r"|artifacts/(oci-layout|index\.json|blobs/sha256/[0-9a-f]{64})"
    rf"|node/(fences|scopes)\.json|node/w/releases/{_FILE}\.json|node/envoy/(state|cds|lds|rds-{_FILE})\.json"
)


@dataclass(frozen=True)
class Member:
    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """*size*, *root* and *checkpoint* are of the ledger just before the store was copied: the copy begins
    with them. *store* names its adapter, *schema* the version of each component's tables, *home* the data
    folder that it was made of, *without* what was left out."""

    format: str
    release: str
    created: float
    origin: str
    size: int
    root: str
    checkpoint: str
    store: str
    schema: Mapping[str, int]
    home: str
    without: tuple[str, ...] = ()
    members: tuple[Member, ...] = ()


@dataclass
class Writer:
    """Adds files to an archive, counting and hashing what is really written."""

    stream: IO[bytes]
    members: list[Member] = field(default_factory=list)

    def add(self, name: str, data: bytes) -> None:
        self._head(name, len(data))
        self.stream.write(data)
        self._pad(len(data))
        self.members.append(Member(name, len(data), hashlib.sha256(data).hexdigest()))

    def add_file(self, name: str, path: Path) -> Member:
        """Add a file that nobody changes meanwhile."""
        with path.open("rb") as source:
            size, seen, hashed = os.fstat(source.fileno()).st_size, 0, hashlib.sha256()
            self._head(name, size)
            while piece := source.read(PIECE):
                seen += len(piece)
                hashed.update(piece)
                self.stream.write(piece)
        if seen != size:
            raise Conflict("changed while it was copied", where=str(path), next_move="back up again")
        self._pad(size)
        self.members.append(Member(name, size, hashed.hexdigest()))
        return self.members[-1]

    def end(self, described: Callable[[tuple[Member, ...]], Manifest]) -> None:
        """Write the manifest: an archive without one is not whole."""
        manifest = described(tuple(self.members))
        self.add(MANIFEST, json.dumps(encode(manifest), indent=1).encode())
        self.stream.write(bytes(2 * BLOCK))

    def _head(self, name: str, size: int) -> None:
        if len(name.encode()) > MAX_NAME or not (NAMES.fullmatch(name) or name == MANIFEST):
            raise Broken("a backup has no such member", where=name)
        head = tarfile.TarInfo(name)
        head.size, head.mode, head.mtime = size, 0o600, int(time.time())
        self.stream.write(head.tobuf(tarfile.GNU_FORMAT))

    def _pad(self, size: int) -> None:
        self.stream.write(bytes(-size % BLOCK))


@dataclass(frozen=True)
class Contents:
    """An archive that was checked. *starts* says where each member's bytes begin."""

    stream: IO[bytes]
    where: str
    manifest: Manifest
    starts: Mapping[str, int]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.starts)

    @property
    def bytes(self) -> int:
        return sum(member.size for member in self.manifest.members)

    def extract(self, member: Member, target: Path) -> None:
        """Write one member to a new file (0600) and check it once more: the archive may have changed
        since."""
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            self.stream.seek(self.starts[member.name])
            found = _hashed(self.stream, member.size, file.write)
            file.flush()
            os.fsync(file.fileno())
        if found != member.sha256:
            raise Invalid("changed while it was read", where=f"{self.where}: {member.name}")


def check(stream: IO[bytes], where: str) -> Contents:
    """Read a whole archive and compare it with its manifest. `Invalid` says what is wrong with it."""
    end = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    seen: dict[str, tuple[int, Member]] = {}
    while True:
        name, size = _next(stream, end, where)
        if name == MANIFEST:
            break
        if not NAMES.fullmatch(name):
            raise Invalid(f"a backup has no member {name!r}", where=where)
        if name in seen or len(seen) >= MAX_MEMBERS:
            raise Invalid(f"{name!r} is there twice, or there are too many members", where=where)
        start = stream.tell()
        seen[name] = start, Member(name, size, _hashed(stream, size))
        stream.seek(-size % BLOCK, os.SEEK_CUR)
    manifest = _manifest(stream, size, where)
    if end - stream.tell() < 2 * BLOCK + -size % BLOCK:
        raise Invalid("cut off at its very end", where=where)
    if manifest.members != tuple(member for _, member in seen.values()):
        raise _differing(manifest, {name: member for name, (_, member) in seen.items()}, where)
    return Contents(stream, where, manifest, {name: start for name, (start, _) in seen.items()})


def _next(stream: IO[bytes], end: int, where: str) -> tuple[str, int]:
    """Name and size of the next member, whose bytes follow and are all there."""
    block = stream.read(BLOCK)
    if len(block) < BLOCK or not any(block):
        raise Invalid("cut off: the manifest, its last member, is missing", where=where)
    try:
        head = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.TarError, ValueError) as error:
        raise Invalid(f"not a backup of Penstock: {error}", where=where) from error
    if head.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        raise Invalid(f"{head.name!r} is not a plain file", where=where)
    if not 0 <= head.size <= end - stream.tell():
        raise Invalid(f"cut off: {head.name!r} has not all of its {head.size} bytes", where=where)
    return head.name, head.size


def _manifest(stream: IO[bytes], size: int, where: str) -> Manifest:
    if size > MAX_MANIFEST:
        raise Invalid(f"the manifest has {size} bytes", where=where)
    try:
        document = json.loads(stream.read(size))
        if isinstance(document, dict) and document.get("format", FORMAT) != FORMAT:
            raise Invalid(
                f"a backup of format {document['format']!r}; this release reads {FORMAT}",
                where=where,
                next_move="restore it with the release that made it",
            )
        return decode(Manifest, document, MANIFEST)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"the manifest is not JSON: {error}", where=where) from error


def _differing(manifest: Manifest, seen: Mapping[str, Member], where: str) -> Invalid:
    listed = {member.name: member for member in manifest.members}
    names = sorted(name for name in listed.keys() | seen.keys() if listed.get(name) != seen.get(name))
    shown = ", ".join(names[:3]) or "the order of the members"
    return Invalid(
        f"not as its manifest says: {shown}", where=where, next_move="take another copy of this backup"
    )


def _hashed(stream: IO[bytes], size: int, write: Callable[[bytes], object] = len) -> str:
    hashed, left = hashlib.sha256(), size
    while left and (piece := stream.read(min(PIECE, left))):
        hashed.update(piece)
        write(piece)
        left -= len(piece)
    return hashed.hexdigest()
