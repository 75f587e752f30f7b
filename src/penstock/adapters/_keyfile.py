"""Reads a file that holds a private key: what the signers share. Not an adapter, and not for others."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from penstock.errors import Invalid, Unavailable

MAX_BYTES = 64 * 1024


def read_private(path: Path) -> bytes:
    """What is in the file. `Invalid` if others may touch it, or it is too large for a key."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Unavailable(f"cannot read the key: {error.strerror}", where=str(path)) from error
    if mode & 0o077:
        raise Invalid(
            f"others may read this key (mode {mode:o})", where=str(path), next_move=f"chmod 600 {path}"
        )
    if len(data) > MAX_BYTES:
        raise Invalid("too large for a key", where=str(path))
    return data
