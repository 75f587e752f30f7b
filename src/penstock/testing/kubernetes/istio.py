"""Istio in the fake cluster: its kinds, what its schemas refuse, and a data plane that does what they say.

Called by tests: ``use_istio(cluster)``. As the real one, it says nothing of what is good; what its analysis
finds wrong it tells as messages in the status. Facts of Istio 1.30, restated by hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from penstock.testing.kubernetes.api import Api
from penstock.testing.kubernetes.cluster import FakeCluster
from penstock.testing.kubernetes.dataplane import USUAL_RETRIES, DataPlane, Way, seconds_of
from penstock.testing.kubernetes.kinds import FakeKind, Object
from penstock.testing.kubernetes.shapes import ANY, METADATA

GROUP = "networking.istio.io"
#: What the schema takes for a number: JSON does not tell 30 from 30.0.
NUMBER = (int, float)

_MATCH = {"exact": str, "prefix": str, "regex": str}
_DESTINATION = {"host": str, "subset": str, "port": {"number": int}}
_CHANGES = {"set": {"*": str}, "add": {"*": str}, "remove": [str]}
_ROUTE = {
    "name": str,
    "match": [{"name": str, "uri": _MATCH, "headers": {"*": _MATCH}, "method": _MATCH, "gateways": [str]}],
    "route": [{"destination": _DESTINATION, "weight": int}],
    "directResponse": {"status": int, "body": ANY},
    "timeout": str,
    "retries": {"attempts": int, "perTryTimeout": str, "retryOn": str},
    "mirrors": [{"destination": _DESTINATION, "percentage": {"value": NUMBER}}],
    "headers": {"request": _CHANGES, "response": _CHANGES},
}
_HEAD = {"apiVersion": str, "kind": str, "metadata": METADATA, "status": ANY}
_VIRTUAL = {**_HEAD, "spec": {"hosts": [str], "gateways": [str], "http": [_ROUTE], "exportTo": [str]}}
_POOL = {
    "tcp": {"maxConnections": int},
    "http": {"http1MaxPendingRequests": int, "http2MaxRequests": int, "maxRetries": int},
}
_RULE = {**_HEAD, "spec": {"host": str, "trafficPolicy": {"connectionPool": _POOL}, "exportTo": [str]}}
_DURATION = re.compile(r"([0-9]+(\.[0-9]+)?(h|m|s|ms))+")


def virtual_faults(value: Object) -> Iterator[tuple[str, str]]:
    """What the schema and the webhook refuse, of what we could write."""
    if not value["spec"].get("hosts"):
        yield "spec.hosts", "virtual service must have at least one host"
    for number, route in enumerate(value["spec"].get("http", [])):
        where = f"spec.http[{number}]"
        if ("route" in route) == ("directResponse" in route):
            yield where, "HTTP route must have exactly one of route and directResponse"
        if "mirrors" in route and "directResponse" in route:
            yield where, "HTTP route cannot contain both mirror and directResponse"
        weights = [to.get("weight", 0) for to in route.get("route", [])]
        if any(weight < 0 for weight in weights) or (len(weights) > 1 and not sum(weights)):
            yield f"{where}.route", f"total destination weight = {sum(weights)}"
        for match in route.get("match", []):
            if not match:
                yield f"{where}.match", "HTTPMatchRequest is empty"
            for how in (match.get("uri", {"exact": ""}), *match.get("headers", {}).values()):
                if len(how) != 1:
                    yield f"{where}.match", "must have exactly one of exact, prefix and regex"
        if not _DURATION.fullmatch(route.get("timeout", "1s")):
            yield f"{where}.timeout", f"Invalid value: {route['timeout']!r}"
        if not route.get("retries", {}).get("attempts", 0) and "retryOn" in route.get("retries", {}):
            yield f"{where}.retries", "http retry policy configured when attempts are set to 0 (disabled)"


def rule_faults(value: Object) -> Iterator[tuple[str, str]]:
    pool = value["spec"].get("trafficPolicy", {}).get("connectionPool", {})
    if not pool:
        yield "spec.trafficPolicy.connectionPool", "connection pool must have at least one field"
    if pool.get("tcp", {}).get("maxConnections", 1) < 1:
        yield "spec.trafficPolicy.connectionPool.tcp", "max connections must be non-negative"


VIRTUALS = FakeKind(GROUP, "v1", "virtualservices", "VirtualService", _VIRTUAL, faults=virtual_faults)
RULES = FakeKind(GROUP, "v1", "destinationrules", "DestinationRule", _RULE, faults=rule_faults)


class Mesh(DataPlane):
    """Serves VirtualServices. What names a host in *wrong* has an error, told in its status."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong: set[str] = set()
        self._specs: list[Object] = []

    def reconcile(self, api: Api) -> None:
        self.look(api)
        found = api.all(VIRTUALS)
        self._specs = [virtual["spec"] for virtual in found]
        for virtual in found:
            self._tell(api, virtual)

    def _tell(self, api: Api, virtual: Object) -> None:
        bad = sorted(self.wrong & set(virtual["spec"]["hosts"]))
        generation = virtual["metadata"]["generation"]
        message = {"level": "ERROR", "type": {"code": "IST0101"}, "description": f"not found: {bad[:1]}"}
        status = {"observedGeneration": generation, "validationMessages": [message]} if bad else {}
        if virtual.get("status", {}) != status:
            virtual["metadata"].pop("resourceVersion", None)
            new = {**virtual, "status": status}
            api.update(VIRTUALS, new, manager="fake-istiod", subresource="status")

    def way(self, host: str, given: dict[str, str], path: str) -> Way:
        plain = path.partition("?")[0]
        for spec in self._specs:
            for route in spec["http"] if host in spec["hosts"] else ():
                if not route.get("match") or any(_fits(match, given, plain) for match in route["match"]):
                    return _way(route)
        return Way(status=404)


def use_istio(cluster: FakeCluster) -> Mesh:
    """Install Istio: its kinds, and proxies that do what they say."""
    for kind in (VIRTUALS, RULES):
        cluster.serve(kind)
    found = Mesh()
    cluster.control(found.reconcile)
    return found


def _way(route: Object) -> Way:
    if "directResponse" in route:
        return Way(status=route["directResponse"]["status"])
    removed = route.get("headers", {}).get("request", {}).get("remove", [])
    mirrored = ("", 0.0)
    for mirror in route.get("mirrors", []):
        mirrored = (_service(mirror), 10 * mirror.get("percentage", {"value": 100})["value"])
    to = [(_service(one), one.get("weight", 0) or int(len(route["route"]) == 1)) for one in route["route"]]
    retries = int(route.get("retries", {}).get("attempts", USUAL_RETRIES))
    seconds = seconds_of(route.get("timeout", ""))
    return Way(to, [name.lower() for name in removed], mirrored, seconds=seconds, retries=retries)


def _service(one: Object) -> str:
    return str(one["destination"]["host"]).partition(".")[0]


def _fits(match: Object, given: dict[str, str], path: str) -> bool:
    asked = [(given.get(name.lower()), how) for name, how in match.get("headers", {}).items()]
    return all(_has(value, how) for value, how in [*asked, (path, match.get("uri", {"prefix": "/"}))])


def _has(value: str | None, how: Object) -> bool:
    if value is None:
        return False
    if "regex" in how:
        return re.fullmatch(how["regex"], value) is not None
    return value.startswith(how["prefix"]) if "prefix" in how else bool(value == how["exact"])
