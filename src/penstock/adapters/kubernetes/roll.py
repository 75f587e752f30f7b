"""Which pod is which copy of a release, and since when we know it.

Called by `driver`. Pods have names that nobody can order; copies have numbers, the lowest that is free. Kept
in memory alone: another worker counts anew, in the order in which the pods were made. Times are what this
process saw pass, so that a cluster whose clock differs from ours fails nobody early.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from penstock.adapters._kubernetes import Object


@dataclass(frozen=True)
class Copy:
    """*age* in seconds, since it was first seen, or since its container was first seen to have begun: what a
    node takes to fetch the image is not the program's time."""

    number: int
    pod: Object
    age: float


class Roll:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._numbers: dict[str, dict[str, int]] = {}
        self._since: dict[tuple[str, bool], float] = {}
        self._dismissed: set[str] = set()

    def call(self, release: str, pods: Collection[Object]) -> list[Copy]:
        """The copies of *release*, by number. Pods that are told to end are none any more."""
        there = sorted((pod for pod in pods if not self._leaves(pod)), key=_order)
        known = self._numbers.setdefault(release, {})
        living = {pod["metadata"]["uid"] for pod in there}
        for uid in set(known) - living:
            del known[uid]
            self._forget(uid)
        for pod in there:
            uid = pod["metadata"]["uid"]
            if uid not in known:
                known[uid] = self.free(known.values())
            self._since.setdefault(_at(pod), self._clock())
        now = self._clock()
        found = [Copy(known[p["metadata"]["uid"]], p, now - self._since[_at(p)]) for p in there]
        return sorted(found, key=lambda copy: copy.number)

    def dismiss(self, pod: Object) -> None:
        """It was told to end, and the cluster will say so soon."""
        self._dismissed.add(pod["metadata"]["uid"])

    def forget(self, release: str) -> None:
        for uid in self._numbers.pop(release, {}):
            self._forget(uid)
            self._dismissed.discard(uid)

    def _forget(self, uid: str) -> None:
        for begun in (False, True):
            self._since.pop((uid, begun), None)

    def _leaves(self, pod: Object) -> bool:
        return "deletionTimestamp" in pod["metadata"] or pod["metadata"]["uid"] in self._dismissed

    @staticmethod
    def free(taken: Collection[int]) -> int:
        """The lowest number that nobody has."""
        return next(number for number in range(len(taken) + 1) if number not in taken)


def _at(pod: Object) -> tuple[str, bool]:
    states = (status.get("state", {}) for status in pod.get("status", {}).get("containerStatuses", ()))
    begun = any("running" in state or "terminated" in state for state in states)
    return str(pod["metadata"]["uid"]), begun


def _order(pod: Object) -> tuple[str, str]:
    return str(pod["metadata"].get("creationTimestamp", "")), str(pod["metadata"]["name"])
