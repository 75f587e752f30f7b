"""A data plane that answers what a gateway would: which backend a request reaches, and what reaches it.

Called by `gateway` (and by what tests ask through it). It sends nothing: an answer is computed from the
routes that a controller has programmed and the endpoints that are ready. Must not know who wrote the routes.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from penstock.testing.kubernetes.api import Api
from penstock.testing.kubernetes.kinds import SERVICES, SLICES, Object


@dataclass(frozen=True)
class Answer:
    """*status*, and the Service whose endpoint answered; "" if the gateway did itself."""

    status: int
    service: str = ""


class DataPlane:
    """*routes* are specs of HTTPRoutes by uid. *seen* is what reached each Service: lines, in lower case."""

    def __init__(self) -> None:
        self.routes: dict[str, Object] = {}
        self.seen: dict[str, list[str]] = defaultdict(list)
        self._ready: dict[str, int] = {}
        self._turn = 0
        self._copied = 0

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
        rules = [rule for spec in self.routes.values() if host in spec["hostnames"] for rule in spec["rules"]]
        fitting = [
            (_rank(match), -number, rule)
            for number, rule in enumerate(rules)
            for match in rule.get("matches", [{}])
            if _fits(match, given, path)
        ]
        if not fitting:
            return Answer(404)
        rule = max(fitting, key=lambda found: found[:2])[2]
        for change in rule.get("filters", []):
            for name in change.get("requestHeaderModifier", {}).get("remove", []):
                given.pop(name.lower(), None)
        self._mirror(rule, given, path)
        return self._reach(self._chosen(rule.get("backendRefs", [])), given, path)

    def _chosen(self, references: list[Object]) -> str:
        """By weight; a step that is coprime to the whole visits every part of it."""
        total = sum(reference.get("weight", 1) for reference in references)
        self._turn += 617
        left = self._turn % total if total else 0
        for reference in references:
            left -= reference.get("weight", 1)
            if left < 0:
                return str(reference["name"])
        return ""

    def _reach(self, service: str, given: dict[str, str], path: str) -> Answer:
        if service not in self._ready:
            return Answer(500)
        if not self._ready[service]:
            return Answer(503)
        lines = (f"{name}: {value}" for name, value in given.items())
        self.seen[service].append("\r\n".join((path, *lines)).lower())
        return Answer(500 if "err" in path else 200, service)

    def _mirror(self, rule: Object, given: dict[str, str], path: str) -> None:
        for found in rule.get("filters", []):
            if mirror := found.get("requestMirror"):
                fraction = mirror.get("fraction", {"numerator": mirror.get("percent", 100)})
                self._copied += fraction["numerator"]
                if self._copied >= fraction.get("denominator", 100):
                    self._copied -= fraction.get("denominator", 100)
                    self._reach(mirror["backendRef"]["name"], given, path)


def _rank(match: Object) -> tuple[int, int]:
    """The API's own order: the longest path, then the most headers."""
    return len(match.get("path", {}).get("value", "/")), len(match.get("headers", []))


def _fits(match: Object, given: dict[str, str], path: str) -> bool:
    prefix = match.get("path", {}).get("value", "/").rstrip("/")
    plain = path.partition("?")[0]
    return f"{plain}/".startswith(f"{prefix}/") and all(
        _has(header, given) for header in match.get("headers", [])
    )


def _has(header: Any, given: dict[str, str]) -> bool:
    value = given.get(header["name"].lower())
    if value is None:
        return False
    if header.get("type", "Exact") == "RegularExpression":
        return re.fullmatch(header["value"], value) is not None
    return bool(value == header["value"])
