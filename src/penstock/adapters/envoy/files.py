"""The files that Envoy reads, and whether it has taken them.

Called by the driver, which says what is in them and in what order they change. Must not know what a plan is.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from penstock.adapters.envoy.admin import Admin
from penstock.adapters.envoy.config import Json, document
from penstock.errors import Invalid, Unavailable

CONFIRM_SECONDS = 10.0
POLL_SECONDS = 0.005
Version = Callable[[], Awaitable[str]]


class Files:
    """Those in *folder*. *next_version* gives one that there has not been yet, *last_words* what Envoy wrote
    last."""

    def __init__(
        self, folder: Path, admin: Admin, next_version: Callable[[], str], last_words: Callable[[], str]
    ) -> None:
        self._folder = folder
        self._admin = admin
        self._next = next_version
        self._last_words = last_words
        #: How many updates Envoy has not taken, by statistic: nobody but us makes any.
        self._failed: dict[str, int] = {}

    def forget(self) -> None:
        """It may be another Envoy now, which counts from nothing."""
        self._failed.clear()

    def has(self, file: str) -> bool:
        return (self._folder / file).exists()

    async def put(self, file: str, resources: list[Json], version: Version, stats: str) -> None:
        """Replace a file and wait until Envoy has taken it; put the old one back if it does not.

        *version* asks Envoy which one it has; *stats* begins the names of what it counts of this file.
        """
        path = self._folder / file
        previous = path.read_text()
        kept = json.loads(previous)
        if kept["resources"] == resources and await version() == kept["version_info"]:
            return
        failed = self._failed.pop(stats, None)
        if failed is None:
            failed = await self._failures(stats)
        mine = self.write(file, resources)
        deadline = time.monotonic() + CONFIRM_SECONDS
        for turn in itertools.count(1):
            if await version() == mine:
                self._failed[stats] = failed
                return
            # Asked less often: Envoy looks through all its statistics for it.
            if turn % 8 == 0 and await self._failures(stats) > failed:
                _replace(path, previous)
                await asyncio.sleep(0.3)  # its log is written a moment later
                raise Invalid(f"Envoy refuses {file}:\n{self._last_words()}", where=str(path))
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(POLL_SECONDS)
        _replace(path, previous)
        raise Unavailable(f"Envoy did not confirm {file} within {CONFIRM_SECONDS:.0f} s", where=str(path))

    def write(self, file: str, resources: list[Json]) -> str:
        """Replace a file; its version. Whether Envoy takes it is not waited for."""
        version = self._next()
        _replace(self._folder / file, document(version, resources))
        return version

    async def version(self, scope: str) -> str:
        """The one that Envoy has, by the statistic of its *scope*."""
        name = f"{scope}.version_text"
        return (await self._admin.texts(f"^{re.escape(name)}$")).get(name, "")

    async def _failures(self, stats: str) -> int:
        """How many updates Envoy has not taken so far."""
        counted = await self._admin.counters(re.escape(stats))
        return sum(n for name, n in counted.items() if name.endswith(("update_rejected", "update_failure")))


def _replace(path: Path, text: str) -> None:
    # Envoy notices renames only; a file written in place would be ignored.
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text)
    temporary.replace(path)
