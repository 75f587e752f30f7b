"""A data plane's decisions: which endpoint a request goes to, and what of it.

`gateway` and `istio` say how their routes match; called by `proxy`, which sends requests where it says. It
knows the routes that a controller has programmed, and the endpoints that are ready; it sends nothing itself.
"""

from __future__ import annotations

import itertools
import re
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from penstock.testing.kubernetes.api import Api
from penstock.testing.kubernetes.kinds import SERVICES, SLICES, Object

_PART = re.compile(r"([0-9.]+)(ms|s|m|h)")
#: What Istio tries again, if a route says nothing else, when nobody could be connected to.
USUAL_RETRIES = 2


@dataclass(frozen=True)
class Way:
    """Where a request goes: by weight *to* Services, without the headers *removed*, *mirrored* to a Service
    in so many of a thousand cases; or nowhere, but answered with *status*. The whole answer may take
    *seconds* (0: any time); where nobody can be connected to, *retries* others are tried."""

    to: Sequence[tuple[str, int]] = ()
    removed: Sequence[str] = ()
    mirrored: tuple[str, float] = ("", 0.0)
    status: int = 0
    seconds: float = 0.0
    retries: int = USUAL_RETRIES


@dataclass(frozen=True)
class Led:
    """One request: it goes to *service*, and its copy to *mirror* ("": there is none); or, if *status* is
    not 0, nowhere."""

    way: Way
    service: str = ""
    mirror: str = ""
    status: int = 0


@dataclass(frozen=True)
class Known:
    """A Service of *namespace*, and where its *ready* endpoints are: addresses and ports."""

    namespace: str
    ready: list[tuple[str, int]] = field(default_factory=list)


class DataPlane(ABC):
    """*services* are those that there are, by name."""

    def __init__(self) -> None:
        self.services: Mapping[str, Known] = {}
        self._turn = 0
        self._turns: defaultdict[str, itertools.count[int]] = defaultdict(itertools.count)
        self._copied = 0.0

    @abstractmethod
    def way(self, host: str, given: dict[str, str], path: str) -> Way:
        """Of a request with these headers (names in lower case)."""

    def look(self, api: Api) -> None:
        """Take over which Services there are, and which endpoints of each are ready."""
        found = {s["metadata"]["name"]: Known(s["metadata"]["namespace"]) for s in api.all(SERVICES)}
        for piece in api.all(SLICES):
            name = piece["metadata"].get("labels", {}).get("kubernetes.io/service-name", "")
            if name in found:
                found[name].ready.extend(_ready(piece))
        self.services = found

    def lead(self, host: str, given: dict[str, str], path: str) -> Led:
        """Decide one request, *given* its headers (names in lower case): its turn is taken."""
        way = self.way(host, given, path)
        if way.status:
            return Led(way, status=way.status)
        mirror, share = way.mirrored
        self._copied += share
        copied = self._copied >= 1000
        self._copied -= 1000 * copied
        service = self._chosen(way.to)
        status = 500 if service not in self.services else 0 if self.services[service].ready else 503
        return Led(way, service, mirror if copied else "", status)

    def endpoint(self, service: str) -> tuple[str, int] | None:
        """The next of a Service's ready endpoints, in turn; None if none is ready."""
        known = self.services.get(service)
        if known is None or not known.ready:
            return None
        return known.ready[next(self._turns[service]) % len(known.ready)]

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


def _ready(piece: Object) -> list[tuple[str, int]]:
    """Where requests may go; of a port that nobody has yet, nowhere."""
    port = next((found.get("port") for found in piece.get("ports") or ()), None)
    ready = (e for e in piece["endpoints"] if e.get("conditions", {}).get("ready") is not False)
    return [(endpoint["addresses"][0], port) for endpoint in ready] if port else []


def seconds_of(duration: str) -> float:
    """``1m30s``, ``250ms``: a duration as both APIs write one."""
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    return sum(float(number) * units[unit] for number, unit in _PART.findall(duration))
