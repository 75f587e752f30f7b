"""The highest fence seen for each scope, kept on disk: a stale worker's write is refused here.

Called by the agent before every effect, while it holds the scope's lock.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from penstock.core.codec import decode
from penstock.core.fence import Fence
from penstock.errors import Conflict


class Fences:
    def __init__(self, path: Path) -> None:
        self._path = path
        stored = json.loads(path.read_text()) if path.exists() else {}
        self._highest = decode(dict[str, int], stored, path.name)

    def pass_through(self, fence: Fence) -> None:
        """Let a fence through, or raise `Conflict` if a higher one has been here."""
        highest = self._highest.get(fence.scope, 0)
        if fence.number < highest:
            raise Conflict(
                f"fence {fence.number} is stale: {highest} has been seen", where=f"{fence.scope}: {fence.key}"
            )
        if fence.number > highest:
            self._highest[fence.scope] = fence.number
            self._save()

    def _save(self) -> None:
        # Durable before the effect: a restart must not forget that a lower fence is stale.
        temporary = self._path.with_suffix(".new")
        with temporary.open("w") as file:
            json.dump(self._highest, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)
