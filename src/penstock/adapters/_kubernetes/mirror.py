"""What a namespace holds, kept current by watches, so that nobody polls.

Called by adapters that are asked often how things are. It is started by the first question and is no second
truth: where the API is away it says so instead of showing what was. What a write returned is put in at once;
older news of the same object changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Collection
from typing import TypeVar

from penstock.adapters._kubernetes.client import Client, Keep, Listed
from penstock.adapters._kubernetes.kinds import Kind, Object
from penstock.errors import PenstockError, Unavailable

T = TypeVar("T")

#: How long the first look at everything may take, in seconds.
FIRST_SECONDS = 30.0
#: So many objects that are gone are remembered, with their last state.
GONE = 500


def unowned(value: Object) -> Object:
    """Without who owns which field, which is the larger half."""
    rest = {key: inner for key, inner in value["metadata"].items() if key != "managedFields"}
    return {**value, "metadata": rest}


class Mirror:
    """Of objects with these *labels* in the client's namespace; *keep* says what of each: its name, uid,
    version and labels at least."""

    def __init__(
        self,
        client: Client,
        kinds: Collection[Kind],
        labels: str,
        keep: Keep = unowned,
    ) -> None:
        self._client = client
        self._labels = labels
        self._keep = keep
        self._there: dict[Kind, dict[str, Object]] = {kind: {} for kind in kinds}
        self._listed = {kind: asyncio.Event() for kind in kinds}
        self._away: dict[Kind, PenstockError] = {}
        self._tasks: dict[Kind, asyncio.Task[None]] = {}
        #: Of these somebody was told why their news ended: whoever asks next has them begin again.
        self._told: set[Kind] = set()
        self._gone: deque[Object] = deque(maxlen=GONE)
        self._turn = asyncio.Event()

    async def ready(self) -> None:
        """Return once all is known. What keeps us from knowing it is raised: `Unavailable`, or a missing
        right."""
        for kind in self._there:
            if kind not in self._told:
                self._raise_ended(kind)
            task = self._tasks.get(kind)
            if task is None or task.done():
                self._listed[kind].clear()
                self._told.discard(kind)
                self._tasks[kind] = asyncio.ensure_future(self._follow(kind))
                self._tasks[kind].add_done_callback(self._end)
        for kind, listed in self._listed.items():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FIRST_SECONDS):
                    await self._first_of(listed, self._tasks[kind])
            self._raise_ended(kind)
            if error := self._away.get(kind):
                raise error
            if not listed.is_set():
                raise Unavailable(f"{kind.full}: not listed within {FIRST_SECONDS:g} s")

    async def _first_of(self, listed: asyncio.Event, task: asyncio.Task[None]) -> None:
        waiting = asyncio.ensure_future(listed.wait())
        try:
            await asyncio.wait([waiting, task], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()

    async def close(self) -> None:
        tasks, self._tasks = tuple(self._tasks.values()), {}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # --- looking -------------------------------------------------------------------------------------

    def get(self, kind: Kind, name: str) -> Object | None:
        return self._there[kind].get(name)

    def all(self, kind: Kind, label: str, value: str) -> list[Object]:
        """Those whose *label* has this *value*."""
        found = self._there[kind].values()
        return [one for one in found if (one["metadata"].get("labels") or {}).get(label) == value]

    def last(self, uid: str) -> Object | None:
        """The last state of something that is gone; None if that is too long ago."""
        return next((one for one in self._gone if one["metadata"]["uid"] == uid), None)

    async def until(self, look: Callable[[], T | None], seconds: float) -> T | None:
        """Look after each change until there is something; None after *seconds*. What ends the news for good,
        a right that was taken away, is raised."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while (found := look()) is None:
                    for kind in self._there:
                        self._raise_ended(kind)
                    await self._turn.wait()
                return found
        return look()

    # --- news ----------------------------------------------------------------------------------------

    def put(self, kind: Kind, value: Object) -> None:
        """What a write or a read returned, or a watch told."""
        name = value["metadata"]["name"]
        known = self._there[kind].get(name)
        if any(one["metadata"]["uid"] == value["metadata"]["uid"] for one in self._gone):
            return
        if known is None or _version(known) <= _version(value):
            self._there[kind][name] = self._keep(value)
            self._changed()

    def drop(self, kind: Kind, value: Object) -> None:
        """It is gone; *value* is its last state."""
        known = self._there[kind].get(value["metadata"]["name"])
        if known and known["metadata"]["uid"] == value["metadata"]["uid"]:
            del self._there[kind][value["metadata"]["name"]]
        self._gone.append(value)
        self._changed()

    async def _follow(self, kind: Kind) -> None:
        def contact(error: PenstockError | None) -> None:
            self._away.pop(kind, None)
            if error is not None:
                self._away[kind] = error
            self._listed[kind].set()  # whoever waits for the first look learns why there is none

        async for seen in self._client.watch(kind, labels=self._labels, contact=contact, keep=self._keep):
            if isinstance(seen, Listed):
                now = {value["metadata"]["name"]: value for value in seen.items}
                # What was written since it was listed is not on the list, and is there all the same.
                listed = [one for one in self._there[kind].values() if _version(one) <= int(seen.version)]
                gone = [one for one in listed if one["metadata"]["name"] not in now]
                for value in gone:
                    self.drop(kind, value)
                for value in now.values():
                    self.put(kind, value)
                self._listed[kind].set()
                self._changed()
            elif seen.gone:
                self.drop(kind, seen.object)
            else:
                self.put(kind, seen.object)

    def _end(self, task: asyncio.Task[None]) -> None:
        """Whoever waits, or asks next, is told why."""
        if not task.cancelled():
            task.exception()
        self._changed()

    def _raise_ended(self, kind: Kind) -> None:
        task = self._tasks.get(kind)
        if task is not None and task.done():
            self._told.add(kind)
            task.result()

    def _changed(self) -> None:
        turn, self._turn = self._turn, asyncio.Event()
        turn.set()


def _version(value: Object) -> int:
    """Versions of one cluster can be compared (since Kubernetes 1.35 that is promised; before, it held)."""
    return int(value["metadata"]["resourceVersion"])
