"""Hands bytes to a program through an inherited file descriptor, where a command line would show them to all.

Shared by the sandboxes and by what starts workloads in them; not an adapter, and not for others.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

from penstock.errors import Invalid, Unavailable

#: What a pipe may hold without special rights, as Linux is usually set up.
MOST = 1024 * 1024


class Handed(contextlib.ExitStack):
    """The descriptors of one start; they are closed here when the block ends."""

    def __init__(self) -> None:
        super().__init__()
        self.descriptors: list[int] = []

    def hand(self, data: bytes) -> int:
        """A descriptor from which *data* can be read once: `ports.Hand`.

        A pipe that is filled beforehand: never a file, and nobody has to wait for the reader.
        """
        if len(data) > MOST:
            raise Invalid(f"an environment of {len(data)} bytes is too large for a process")
        leave, enter = os.pipe()
        self.callback(os.close, leave)
        try:
            if len(data) > fcntl.fcntl(enter, fcntl.F_GETPIPE_SZ):
                fcntl.fcntl(enter, fcntl.F_SETPIPE_SZ, len(data))
            os.set_blocking(enter, False)
            written = os.write(enter, data)
        except OSError as error:
            raise Unavailable(f"no room in the system's pipes: {error.strerror}") from error
        finally:
            os.close(enter)
        if written < len(data):
            raise Unavailable(f"no room in the system's pipes for {len(data)} bytes")
        self.descriptors.append(leave)
        return leave
