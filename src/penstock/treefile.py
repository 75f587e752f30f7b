"""Reads files of a tree that other people's code has written to: bounded, and never out of it.

Called by builders and checks, once the step that wrote there has ended. Must not trust a name or a link, nor
take in more than it was asked for: a file of holes has any size and costs nothing to make.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from penstock.errors import Invalid


def read_inside(tree: Path, name: str, limit: int) -> bytes:
    """The bytes of the file *name*, through links too as long as they stay in *tree*.

    `Invalid` names the file if it is a link out, no plain file, or larger than *limit* bytes.
    """
    try:
        path = (tree / name).resolve()
    except (OSError, RuntimeError) as error:
        raise Invalid("a link that leads to itself", where=name) from error
    if not path.is_relative_to(tree.resolve()):
        raise Invalid("a link out of the repository", where=name, next_move="put the file itself there")
    return read_plain(path, limit, name)


def read_plain(path: Path, limit: int, name: str) -> bytes:
    """The bytes of *path*, itself no link. `Invalid` as `read_inside` says, naming it *name*."""
    try:
        # Without blocking: a pipe that was left there has nobody at its other end.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            held = os.fstat(handle)
            if not stat.S_ISREG(held.st_mode):
                raise Invalid("not a plain file", where=name)
            if held.st_size > limit:
                raise Invalid(
                    f"larger than {limit} bytes: it has {held.st_size}",
                    where=name,
                    next_move="make it smaller, or leave it out",
                )
            return file.read(held.st_size)
    except OSError as error:
        raise Invalid(f"cannot be read: {error.strerror}", where=name) from error
