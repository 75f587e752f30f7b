"""The highest fence seen for each scope, kept on disk: a stale worker's write is refused here.

Called by the agent before every effect, while it holds the scope's lock.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from penstock.core.codec import decode
from penstock.core.fence import Fence
from penstock.errors import Broken, Conflict, Invalid, Unavailable

T = TypeVar("T")


class Fences:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._highest = read_record(path, dict[str, int])

    def pass_through(self, fence: Fence) -> None:
        """Let a fence through, or raise `Conflict` if a higher one has been here."""
        highest = self._highest.get(fence.scope, 0)
        if fence.number < highest:
            raise Conflict(
                f"fence {fence.number} is stale: {highest} has been seen", where=f"{fence.scope}: {fence.key}"
            )
        if fence.number > highest:
            # Durable before the effect, and known only when durable: a restart must not forget that a
            # lower fence is stale.
            raised = {**self._highest, fence.scope: fence.number}
            write_record(self._path, raised)
            self._highest = raised

    def seen(self, scope: str) -> int:
        """The highest of a scope; 0 if there was none."""
        return self._highest.get(scope, 0)


def read_record(path: Path, hint: type[T]) -> T:
    """The mapping that `write_record` wrote, empty if it never did. `Broken` if it is damaged."""
    try:
        return decode(hint, json.loads(path.read_bytes()) if path.exists() else {}, path.name)
    except (ValueError, Invalid) as error:
        raise Broken(
            f"this record is damaged: {error}",
            where=str(path),
            next_move="restore it, or remove it while no worker runs",
        ) from error


def write_record(path: Path, record: Mapping[str, int | str]) -> None:
    """Replace the whole mapping, so that it outlives a power failure. `Unavailable` if it cannot."""
    temporary = path.with_suffix(".new")
    try:
        with temporary.open("w") as file:
            json.dump(record, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise Unavailable(
            f"the record cannot be written: {error.strerror}",
            where=str(path),
            next_move="free some space",
        ) from error
