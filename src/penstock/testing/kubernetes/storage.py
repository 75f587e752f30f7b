"""Objects, their versions, and the history that watches follow. In memory.

Called by `api`, which knows what a write means. One number counts all changes, as a cluster's does. Whoever
holds a history older than what is kept is told so, and lists again.
"""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from penstock.testing.kubernetes.problems import Problem

Object = dict[str, Any]
#: (``plural.group``, namespace, name)
Place = tuple[str, str, str]


def copied(value: Any) -> Any:
    """A copy of what JSON can say: without circles to look for, in a third of `copy.deepcopy`'s time."""
    if isinstance(value, dict):
        return {name: copied(below) for name, below in value.items()}
    return [copied(below) for below in value] if isinstance(value, list) else value


def _any(_: Object) -> bool:
    return True


@dataclass(frozen=True)
class Happened:
    """*before* is None if it is new, *after* if it is gone."""

    version: int
    full: str
    before: Object | None
    after: Object | None

    @property
    def object(self) -> Object:
        """Its last state; of what is gone with the version of its end."""
        found = self.after or self.before or {}
        return {**found, "metadata": {**found["metadata"], "resourceVersion": str(self.version)}}


class Storage:
    def __init__(self) -> None:
        self.version = 1
        self._objects: dict[Place, Object] = {}
        self._history: list[Happened] = []
        self._oldest = 0
        self._turn = asyncio.Event()

    def get(self, full: str, namespace: str, name: str) -> Object | None:
        found = self._objects.get((full, namespace, name))
        return copied(found) if found else None

    def all(self, full: str, namespace: str = "", where: Callable[[Object], bool] = _any) -> list[Object]:
        """In the order of their names; of every namespace if none is given. *where* only looks."""
        found = [
            (place, value)
            for place, value in self._objects.items()
            if place[0] == full and namespace in ("", place[1]) and where(value)
        ]
        return [copied(value) for _, value in sorted(found, key=lambda one: one[0])]

    def kinds(self) -> Iterator[tuple[str, Object]]:
        """Everything there is, to look at: not to be changed."""
        return ((place[0], found) for place, found in tuple(self._objects.items()))

    def put(self, full: str, value: Object) -> Object:
        """Keep it, with a new version."""
        metadata = value["metadata"]
        place = (full, str(metadata.get("namespace", "")), str(metadata["name"]))
        self.version += 1
        kept: Object = copied(value)
        kept["metadata"]["resourceVersion"] = str(self.version)
        self._happened(Happened(self.version, full, self._objects.get(place), kept))
        self._objects[place] = kept
        given: Object = copied(kept)
        return given

    def remove(self, full: str, namespace: str, name: str) -> None:
        gone = self._objects.pop((full, namespace, name))
        self.version += 1
        self._happened(Happened(self.version, full, gone, None))

    def _happened(self, event: Happened) -> None:
        self._history.append(event)
        turn, self._turn = self._turn, asyncio.Event()
        turn.set()

    def compact(self) -> None:
        """Forget the history: who goes on from before now is told that it is too late."""
        self._history.clear()
        self._oldest = self.version

    def since(self, version: int) -> list[Happened]:
        """What happened after *version*. `Problem` 410 if that is not kept."""
        if version < self._oldest:
            raise Problem(410, f"too old resource version: {version} ({self._oldest})")
        start = bisect.bisect_right(self._history, version, key=lambda event: event.version)
        return self._history[start:]

    async def wait(self, version: int, seconds: float) -> bool:
        """Return once something happened after *version*; whether it did within *seconds*."""
        turn = self._turn
        if self.version > version:
            return True
        try:
            async with asyncio.timeout(seconds):
                await turn.wait()
        except TimeoutError:
            return False
        return True
