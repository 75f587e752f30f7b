"""The Gateway API in the fake cluster: its kinds, what its schemas refuse, and a controller that sets status.

Called by tests: ``use_gateway(cluster)``. The controller does to a route what a gateway's does: it takes
those that name its Gateway, says whether the Services are there, with the generation that it looked at, and
only then programs its data plane (`dataplane`); one that it does not accept it does not serve. Facts of
Gateway API 1.6, standard channel, restated by hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from penstock.testing.kubernetes.api import Api, now
from penstock.testing.kubernetes.cluster import FakeCluster
from penstock.testing.kubernetes.dataplane import DataPlane, Way, seconds_of
from penstock.testing.kubernetes.kinds import SERVICES, FakeKind, Object
from penstock.testing.kubernetes.shapes import ANY, METADATA

GROUP = "gateway.networking.k8s.io"
CONTROLLER = "penstock.org/fake-gateway"
_DURATION = re.compile(r"([0-9]{1,5}(h|m|s|ms)){1,4}")
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+")

_PARENT = {"group": str, "kind": str, "name": str, "namespace": str, "port": int, "sectionName": str}
_BACKEND = {"group": str, "kind": str, "name": str, "namespace": str, "port": int}
_HEADERS = [{"name": str, "value": str}]
_MODIFIER = {"add": _HEADERS, "set": _HEADERS, "remove": [str]}
_FILTER = {
    "type": str,
    "requestHeaderModifier": _MODIFIER,
    "responseHeaderModifier": _MODIFIER,
    "requestMirror": {
        "backendRef": _BACKEND,
        "percent": int,
        "fraction": {"numerator": int, "denominator": int},
    },
}
_MATCHER = {"type": str, "name": str, "value": str}
_RULE = {
    "name": str,
    "matches": [
        {
            "path": {"type": str, "value": str},
            "headers": [_MATCHER],
            "queryParams": [_MATCHER],
            "method": str,
        }
    ],
    "filters": [_FILTER],
    "backendRefs": [{**_BACKEND, "weight": int, "filters": [_FILTER]}],
    "timeouts": {"request": str, "backendRequest": str},
}
_HEAD = {"apiVersion": str, "kind": str, "metadata": METADATA, "status": ANY}
ROUTE_SHAPE = {**_HEAD, "spec": {"parentRefs": [_PARENT], "hostnames": [str], "rules": [_RULE]}}


def route_faults(value: Object) -> Iterator[tuple[str, str]]:
    """What the schema of an HTTPRoute refuses, of what we could write."""
    rules = value["spec"].get("rules", [])
    if not 1 <= len(rules) <= 16:
        yield "spec.rules", f"Invalid value: {len(rules)}: must have from 1 to 16 items"
    if sum(len(rule.get("matches", [])) for rule in rules) > 128:
        yield "spec.rules", "Invalid value: the total number of matches must be less than 128"
    names = [rule["name"] for rule in rules if "name" in rule]
    if len(names) != len(set(names)):
        yield "spec.rules", "Invalid value: Rule name must be unique within the route"
    for number, rule in enumerate(rules):
        for field, said in _rule_faults(rule):
            yield f"spec.rules[{number}].{field}", said


def _rule_faults(rule: Object) -> Iterator[tuple[str, str]]:
    if len(rule.get("matches", [])) > 64:
        yield "matches", "Too many: must have at most 64 items"
    for match in rule.get("matches", []):
        path = match.get("path", {"value": "/"})["value"]
        if not path.startswith("/") or "//" in path:
            yield "matches.path", f"Invalid value: {path!r}"
        headers = match.get("headers", [])
        if len({header["name"].lower() for header in headers}) < len(headers):
            yield "matches.headers", "Duplicate value"
        for header in headers:
            if not _NAME.fullmatch(header["name"]) or not 1 <= len(header["value"]) <= 4096:
                yield "matches.headers", f"Invalid value: {header['name']!r}"
    for reference in rule.get("backendRefs", []):
        if not 0 <= reference.get("weight", 1) <= 1_000_000:
            yield "backendRefs.weight", f"Invalid value: {reference['weight']}"
        if reference.get("kind", "Service") == "Service" and "port" not in reference:
            yield "backendRefs.port", "Must have port for Service reference"
    for said in rule.get("timeouts", {}).values():
        if not _DURATION.fullmatch(said):
            yield "timeouts", f"Invalid value: {said!r}"
    kinds = [found["type"] for found in rule.get("filters", [])]
    if kinds.count("RequestHeaderModifier") > 1:
        yield "filters", "RequestHeaderModifier filter cannot be repeated"


ROUTES = FakeKind(GROUP, "v1", "httproutes", "HTTPRoute", ROUTE_SHAPE, faults=route_faults)
GATEWAYS = FakeKind(GROUP, "v1", "gateways", "Gateway")


class RoutePlane(DataPlane):
    """Serves HTTPRoutes: *routes* are the specs that were accepted, by uid."""

    def __init__(self) -> None:
        super().__init__()
        self.routes: dict[str, Object] = {}

    def way(self, host: str, given: dict[str, str], path: str) -> Way:
        rules = [rule for spec in self.routes.values() if host in spec["hostnames"] for rule in spec["rules"]]
        fitting = [
            (_rank(match), -number, rule)
            for number, rule in enumerate(rules)
            for match in rule.get("matches", [{}])
            if _fits(match, given, path)
        ]
        if not fitting:
            return Way(status=404)
        rule = max(fitting, key=lambda found: found[:2])[2]
        removed: list[str] = []
        mirrored = ("", 0.0)
        for change in rule.get("filters", []):
            removed += change.get("requestHeaderModifier", {}).get("remove", [])
            if mirror := change.get("requestMirror"):
                fraction = mirror.get("fraction", {"numerator": mirror.get("percent", 100)})
                share = 1000 * fraction["numerator"] / fraction.get("denominator", 100)
                mirrored = (mirror["backendRef"]["name"], share)
        to = [(ref["name"], ref.get("weight", 1)) for ref in rule.get("backendRefs", [])]
        seconds = seconds_of(rule.get("timeouts", {}).get("request", ""))
        return Way(to, [name.lower() for name in removed], mirrored, seconds=seconds)


class Gateways:
    """Reconciles routes; *plane* does what the accepted ones say. While it is *away*, nobody looks at
    anything; a route that has a host in *refuses* is not accepted."""

    def __init__(self) -> None:
        self.plane = RoutePlane()
        self.away = False
        self.refuses: set[str] = set()

    def reconcile(self, api: Api) -> None:
        self.plane.look(api)
        if self.away:
            return
        there = {(g["metadata"]["namespace"], g["metadata"]["name"]) for g in api.all(GATEWAYS)}
        programmed: dict[str, Object] = {}
        for route in api.all(ROUTES):
            mine = [p for p in route["spec"].get("parentRefs", []) if self._is_ours(p, route, there)]
            if not mine:
                continue
            conditions = self._conditions(api, route)
            self._tell(api, route, mine, conditions)
            uid = route["metadata"]["uid"]
            if conditions[0]["status"] == "True":
                programmed[uid] = route["spec"]
        self.plane.routes = programmed

    @staticmethod
    def _is_ours(parent: Object, route: Object, there: set[tuple[str, str]]) -> bool:
        namespace = parent.get("namespace", route["metadata"]["namespace"])
        return parent.get("kind", "Gateway") == "Gateway" and (namespace, parent["name"]) in there

    def _conditions(self, api: Api, route: Object) -> list[Object]:
        refused = sorted(self.refuses & set(route["spec"].get("hostnames", [])))
        accepted = ("UnsupportedValue", f"not for {refused[0]}") if refused else ("Accepted", "taken")
        missing = [name for name in _services(route) if not _exists(api, route, name)]
        resolved = ("BackendNotFound", f"no service {missing[0]}") if missing else ("ResolvedRefs", "found")
        generation = route["metadata"]["generation"]
        return [
            _condition("Accepted", not refused, accepted, generation),
            _condition("ResolvedRefs", not missing, resolved, generation),
        ]

    @staticmethod
    def _tell(api: Api, route: Object, parents: list[Object], conditions: list[Object]) -> None:
        before = route.get("status", {}).get("parents", [])
        wanted = [
            {"parentRef": parent, "controllerName": CONTROLLER, "conditions": conditions}
            for parent in parents
        ]
        if _timeless(before) != _timeless(wanted):
            route["metadata"].pop("resourceVersion", None)
            status = {"parents": wanted}
            api.update(ROUTES, {**route, "status": status}, manager="fake-gateway", subresource="status")


def use_gateway(cluster: FakeCluster, *, name: str = "public", port: int = 80) -> Gateways:
    """Install the Gateway API with one Gateway, in the cluster's namespace; its controller and data plane."""
    for kind in (ROUTES, GATEWAYS):
        cluster.serve(kind)
    metadata = {"name": name, "namespace": cluster.namespace}
    listener = {"name": "http", "protocol": "HTTP", "port": port}
    gateway = {
        "apiVersion": GATEWAYS.api_version,
        "kind": GATEWAYS.kind,
        "metadata": metadata,
        "spec": {"gatewayClassName": "fake", "listeners": [listener]},
    }
    cluster.api.create(GATEWAYS, gateway, manager="kubectl")
    found = Gateways()
    cluster.control(found.reconcile)
    return found


def listen_at(cluster: FakeCluster, port: int, *, name: str = "public") -> None:
    """Let the Gateway's listener have the port at which a proxy really listens."""
    listener = {"name": "http", "protocol": "HTTP", "port": port}
    cluster.edit(GATEWAYS.full, name, {"spec": {"listeners": [listener]}})


def _services(route: Object) -> Iterator[str]:
    for rule in route["spec"].get("rules", []):
        for reference in rule.get("backendRefs", []):
            yield reference["name"]
        for found in rule.get("filters", []):
            if "requestMirror" in found:
                yield found["requestMirror"]["backendRef"]["name"]


def _exists(api: Api, route: Object, name: str) -> bool:
    return api.storage.get(SERVICES.full, route["metadata"]["namespace"], name) is not None


def _condition(kind: str, good: bool, said: tuple[str, str], generation: int) -> Object:
    return {
        "type": kind,
        "status": "True" if good else "False",
        "reason": said[0],
        "message": said[1],
        "observedGeneration": generation,
        "lastTransitionTime": now(),
    }


def _timeless(parents: Any) -> Any:
    return [{**p, "conditions": [{**c, "lastTransitionTime": ""} for c in p["conditions"]]} for p in parents]


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
