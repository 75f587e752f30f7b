"""Reads the artifact store for whoever pushes it: blobs from disk, piece by piece, each byte checked.

Called by `driver`. Must not hold a whole layer in memory, nor let a damaged one arrive complete.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from penstock.core.digest import hex_of
from penstock.core.image import read_manifest
from penstock.errors import Broken, Invalid, PenstockError, Unavailable

PIECE = 1024 * 1024
#: No manifest of ours is nearly as large.
MAX_MANIFEST = 4 * 1024 * 1024


@dataclass(frozen=True)
class Blob:
    """A file of the layout; *size* in bytes."""

    digest: str
    path: Path
    size: int

    async def pieces(self) -> AsyncIterator[bytes]:
        """Its bytes. `Broken` before the last of them, if they are not those that its name says."""
        seen, left = hashlib.sha256(), self.size
        with await asyncio.to_thread(self._opened) as file:
            while left:
                piece = await asyncio.to_thread(self._read, file, seen, left)
                left -= len(piece)
                if not left and seen.hexdigest() != hex_of(self.digest):
                    raise _damaged(self.path)
                yield piece

    def _opened(self) -> BinaryIO:
        try:
            return self.path.open("rb")
        except OSError as error:
            raise _unreadable(self.digest, self.path, error) from error

    def _read(self, file: BinaryIO, seen: Any, left: int) -> bytes:
        try:
            piece = file.read(min(PIECE, left))
        except OSError as error:
            raise _unreadable(self.digest, self.path, error) from error
        if not piece:
            raise _damaged(self.path)
        seen.update(piece)
        return piece


def find(layout: Path, name: str) -> Blob:
    """`Invalid` if the store does not have it."""
    path = layout / "blobs" / "sha256" / hex_of(name)
    try:
        return Blob(name, path, path.stat().st_size)
    except OSError as error:
        raise _unreadable(name, path, error) from error


def read_image(layout: Path, artifact: str) -> tuple[bytes, tuple[Blob, ...]]:
    """The manifest's bytes, and what it names: the layer first, for it is the largest."""
    found = find(layout, artifact)
    try:
        manifest = found.path.read_bytes() if found.size <= MAX_MANIFEST else b""
    except OSError as error:
        raise _unreadable(artifact, found.path, error) from error
    if hashlib.sha256(manifest).hexdigest() != hex_of(artifact):
        raise _damaged(found.path)
    config, layer = read_manifest(manifest)
    return manifest, (find(layout, layer), find(layout, config))


def _unreadable(name: str, path: Path, error: OSError) -> PenstockError:
    if isinstance(error, FileNotFoundError):
        move = "ship the commit again: the same commit gives the same artifact"
        return Invalid(f"the artifact store does not have {name}", where=str(path), next_move=move)
    return Unavailable(f"cannot read {name}: {error.strerror}", where=str(path))


def _damaged(path: Path) -> Broken:
    return Broken("the blob's bytes are not those that its name says", where=str(path))
