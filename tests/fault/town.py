"""The town of a delivery that is cut off on purpose: what goes wrong in its cluster, and what is there then.

Used by `clustered`, from other threads. It says what is there and takes things away; it must not know what
should be there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from penstock.adapters.kubernetes.record import FENCE
from penstock.testing.kubernetes import Fault
from penstock.testing.kubernetes.gateway import ROUTES
from penstock.testing.kubernetes.istio import VIRTUALS
from penstock.testing.kubernetes.kinds import DEPLOYMENTS, PODS, Object
from penstock.testing.kubernetes.problems import Problem
from tests.fakes.town import NAMESPACE
from tests.fakes.town import Town as Around

#: How long the API is away, and how many requests it then has no time for.
AWAY_SECONDS = 1.5
BUSY = 3
#: What the API may say of a write, once, instead of doing it.
SAID = {
    "busy": Problem(429, "too many requests", retry_after=1),
    "quota": Problem(
        409,
        'Operation cannot be fulfilled on resourcequotas "shop": the object has been modified',
        details={"name": "shop", "kind": "resourcequotas"},
    ),
}
#: What keeps a fence.
FENCED = (DEPLOYMENTS.full, ROUTES.full, VIRTUALS.full)


class Town(Around):
    """*come_by* is told of each write, before and after it (``api.patch deployments before``)."""

    def __init__(self, folder: Path, come_by: Callable[[str], None], router: str) -> None:
        super().__init__(folder, router=router)
        self.cluster.at_write(self._at_write)
        self._come_by = come_by
        self._away: asyncio.Task[None] | None = None
        self._checked = 0
        self._fell: list[str] = []
        self._answer: Problem | None = None

    async def _at_write(self, what: str, moment: str) -> None:
        # In a thread: whoever is killed there may be this cluster's API, which has to go on for that.
        await asyncio.to_thread(self._come_by, f"api.{what} {moment}")
        answer, self._answer = self._answer, None
        if answer is not None:
            raise answer

    # --- what goes wrong ---------------------------------------------------------------------------

    def cut_off(self) -> None:
        """Nobody reaches the API for a while, and its watches break; once it is back it is busy at first."""

        async def come_back() -> None:
            await asyncio.sleep(AWAY_SECONDS)
            self.cluster.fail(Fault(times=BUSY))
            await self.cluster.reconnect()

        async def go() -> None:
            if self._away is None or self._away.done():
                await self.cluster.disconnect()
                self._away = asyncio.ensure_future(come_back())

        self.call(go())

    def end_pods(self) -> None:
        """Every pod, without notice; the cluster makes others, at other addresses."""

        async def end() -> None:
            for pod in self.cluster.api.all(PODS, NAMESPACE):
                with contextlib.suppress(Problem):  # it has just gone by itself
                    self.cluster.api.delete(PODS, NAMESPACE, pod["metadata"]["name"], grace=0)

        self.call(end())

    def answer(self, said: Problem) -> None:
        """Say this of the write that is about to be made."""
        self._answer = said

    def meddle(self, boundary: str) -> None:
        """Somebody else changes every object of the kind that is about to be written."""
        plural = boundary.split(" api.")[1].split(" ")[1]

        async def change() -> None:
            note = {"metadata": {"annotations": {"example.org/note": boundary}}}
            for kind, found in list(self.cluster.api.storage.kinds()):
                if kind.partition(".")[0] == plural:
                    self.cluster.edit(kind, found["metadata"]["name"], note)

        self.call(change())

    def forget(self) -> None:
        """The history is gone: watches end with 410, and everything has to be listed again."""
        self._fell += self._fallen()

        async def compact() -> None:
            self.cluster.compact()

        self.call(compact())

    def come_back(self) -> None:
        """Return once the API is there again; what it was still to refuse, it does not."""

        async def wait() -> None:
            if self._away is not None:
                await self._away
            self.cluster.heal()

        if self._thread.is_alive():
            self.call(wait())

    # --- what is there --------------------------------------------------------------------------------

    def objects(self) -> list[tuple[str, Object]]:
        """Everything in the namespace, with its kind (``plural.group``). What is told to end is not there."""

        async def look() -> list[tuple[str, Object]]:
            return [
                (kind, found)
                for kind, found in self.cluster.api.storage.kinds()
                if found["metadata"].get("namespace") == NAMESPACE
                and "deletionTimestamp" not in found["metadata"]
            ]

        return self.call(look())

    def fences_fell(self) -> list[str]:
        """Each change since this was last asked in which an object got a lower fence than it had."""
        fell, self._fell = self._fell + self._fallen(), []
        return fell

    def _fallen(self) -> list[str]:
        async def look() -> list[str]:
            storage = self.cluster.api.storage
            since, self._checked = self._checked, storage.version
            changes = (event for event in storage.since(since) if event.full in FENCED)
            return [
                f"{event.full} {event.object['metadata']['name']}: fence {after} after {before}"
                for event in changes
                for before, after in _fences(event.before, event.after)
                if after < before
            ]

        return self.call(look())


def _fences(before: Object | None, after: Object | None) -> Iterator[tuple[int, int]]:
    if before is not None and after is not None:
        numbers = [int(one["metadata"].get("annotations", {}).get(FENCE, "0")) for one in (before, after)]
        yield numbers[0], numbers[1]
