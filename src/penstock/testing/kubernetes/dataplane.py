"""A data plane that answers what a proxy would: which backend a request reaches, and what reaches it.

Called by `gateway` and `istio`, which say how their routes match, and by tests, which ask. It sends nothing:
an answer is computed from the routes that a controller has programmed and the endpoints that are ready.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from penstock.testing.kubernetes.api import Api
from penstock.testing.kubernetes.kinds import SERVICES, SLICES


@dataclass(frozen=True)
class Answer:
    """*status*, and the Service whose endpoint answered; "" if the proxy did itself."""

    status: int
    service: str = ""


@dataclass(frozen=True)
class Way:
    """Where a request goes: by weight *to* Services, without the headers *removed*, *mirrored* to a Service
    in so many of a thousand cases; or nowhere, but answered with *status*."""

    to: Sequence[tuple[str, int]] = ()
    removed: Sequence[str] = ()
    mirrored: tuple[str, float] = ("", 0.0)
    status: int = 0


class DataPlane(ABC):
    """*seen* is what reached each Service: lines, in lower case."""

    def __init__(self) -> None:
        self.seen: dict[str, list[str]] = defaultdict(list)
        self._ready: dict[str, int] = {}
        self._turn = 0
        self._copied = 0.0

    @abstractmethod
    def way(self, host: str, given: dict[str, str], path: str) -> Way:
        """Of a request with these headers (names in lower case)."""

    def look(self, api: Api) -> None:
        """Take over which Services there are, and how many endpoints of each are ready."""
        self._ready = {service["metadata"]["name"]: 0 for service in api.all(SERVICES)}
        for piece in api.all(SLICES):
            name = piece["metadata"].get("labels", {}).get("kubernetes.io/service-name", "")
            ready = sum(e.get("conditions", {}).get("ready") is not False for e in piece["endpoints"])
            if name in self._ready:
                self._ready[name] += ready

    def ask(self, host: str, headers: dict[str, str], path: str) -> Answer:
        """One request of a user."""
        given = {"host": host, **{name.lower(): value for name, value in headers.items()}}
        way = self.way(host, given, path)
        if way.status:
            return Answer(way.status)
        left = {name: value for name, value in given.items() if name not in way.removed}
        self._mirror(way, left, path)
        return self._reach(self._chosen(way.to), left, path)

    def _chosen(self, to: Sequence[tuple[str, int]]) -> str:
        """By weight; a step that is coprime to the whole visits every part of it."""
        total = sum(weight for _, weight in to)
        self._turn += 617
        left = self._turn % total if total else 0
        for service, weight in to:
            left -= weight
            if left < 0:
                return service
        return ""

    def _reach(self, service: str, given: dict[str, str], path: str) -> Answer:
        if service not in self._ready:
            return Answer(500)
        if not self._ready[service]:
            return Answer(503)
        lines = (f"{name}: {value}" for name, value in given.items())
        self.seen[service].append("\r\n".join((path, *lines)).lower())
        return Answer(500 if "err" in path else 200, service)

    def _mirror(self, way: Way, given: dict[str, str], path: str) -> None:
        service, share = way.mirrored
        self._copied += share
        if self._copied >= 1000:
            self._copied -= 1000
            self._reach(service, given, path)
