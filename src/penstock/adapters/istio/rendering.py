"""A traffic plan as the spec of a VirtualService, and a release's limits as that of a DestinationRule. Pure.

Called by `driver`, which writes them. Istio asks routes in their order, so rules stand as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penstock.adapters._kubernetes import Object
from penstock.adapters._meshes.backends import seen_at
from penstock.adapters._meshes.matching import Match, cookie_pattern, match_of
from penstock.core.admission import Breakers
from penstock.core.traffic import (
    PREVIEW_HEADER,
    TOKEN_HEADER,
    WHOLE,
    Handling,
    Mirror,
    TrafficPlan,
    Weight,
)

#: Only what no copy of the service has seen is sent again.
RETRY_ON = "connect-failure,refused-stream,reset-before-request"
#: What nobody is served with.
NOBODY = 503


@dataclass(frozen=True)
class Meshed:
    """The Istio gateways that users come through (``namespace/name``; ``mesh`` is every sidecar), and *host*,
    the name at which they find a service. *address* is the base URL in front of it, where that is another."""

    gateways: tuple[str, ...] = ("mesh",)
    host: str = "{service}.{namespace}.svc.cluster.local"
    address: str = "http://{host}"

    def hostname(self, service: str, environment: str, namespace: str) -> str:
        named = {"service": service, "environment": environment, "namespace": namespace}
        found = self.host
        for name, value in named.items():
            found = found.replace(f"{{{name}}}", value)
        return found


def spec_of(
    plan: TrafficPlan, token: str, ports: Mapping[str, int], meshed: Meshed, namespace: str
) -> Object:
    """*ports*: each release's Service, and that of its previews if it has one."""
    to = _Destinations(ports, namespace)
    http: list[Object] = []
    for number, backend in enumerate(plan.backends):
        preview = Match(headers=((PREVIEW_HEADER, backend.release), (TOKEN_HEADER, token)))
        route: Object = {"name": f"preview-{number}", "match": matches(preview)}
        route["route"] = to.weighted([Weight(seen_at(backend, ports), WHOLE)])
        http.append({**route, "headers": {"request": {"remove": [TOKEN_HEADER]}}})
    rules = [(f"rule-{n}", matches(match_of(rule)), rule.weights) for n, rule in enumerate(plan.rules)]
    for name, match, weights in [*rules, ("users", [], plan.weights)]:
        asked = {"match": match} if match else {}
        http.append({"name": name, **asked, **_led(plan, weights, to)})
    host = meshed.hostname(plan.service, plan.environment, namespace)
    return {"hosts": [host], "gateways": list(meshed.gateways), "http": http}


@dataclass(frozen=True)
class _Destinations:
    """Services of releases, by their whole names: a short one would be looked up beside the gateway."""

    ports: Mapping[str, int]
    namespace: str

    def one(self, release: str) -> Object:
        return {"host": whole_name(release, self.namespace), "port": {"number": self.ports[release]}}

    def weighted(self, weights: Sequence[Weight]) -> list[Object]:
        return [{"destination": self.one(w.release), "weight": w.share} for w in weights]


def _led(plan: TrafficPlan, weights: Sequence[Weight], to: _Destinations) -> Object:
    if not weights:
        return {"directResponse": {"status": NOBODY}}
    handled = {"timeout": duration(plan.handling.timeout_seconds), "retries": _retries(plan.handling)}
    return {"route": to.weighted(weights), **handled, **_mirrors(plan.mirror, to)}


def _retries(handling: Handling) -> Object:
    return {"attempts": handling.retries, **({"retryOn": RETRY_ON} if handling.retries else {})}


def _mirrors(mirror: Mirror | None, to: _Destinations) -> Object:
    if mirror is None:
        return {}
    share = {"value": mirror.share * 100 / WHOLE}
    return {"mirrors": [{"destination": to.one(mirror.release), "percentage": share}]}


def matches(match: Match) -> list[Object]:
    """A prefix that ends at a slash or with the path takes two: Istio's own ends anywhere."""
    headers: Object = {name: {"exact": value} for name, value in match.headers}
    if match.cookies:
        headers["cookie"] = {"regex": cookie_pattern(match.cookies, "traffic.early")}
    asked = {"headers": headers} if headers else {}
    if not match.path:
        return [asked]
    return [{"uri": {"exact": match.path}, **asked}, {"uri": {"prefix": f"{match.path}/"}, **asked}]


def limits_of(release: str, breakers: Breakers, namespace: str) -> Object:
    """The spec of a release's DestinationRule."""
    pool: Object = {}
    if breakers.connections:
        pool["tcp"] = {"maxConnections": breakers.connections}
    if breakers.requests:
        pool["http"] = {"http2MaxRequests": breakers.requests}
    return {"host": whole_name(release, namespace), "trafficPolicy": {"connectionPool": pool}}


def duration(seconds: float) -> str:
    """``2.5s``: to the millisecond."""
    return f"{max(0.001, round(seconds, 3)):g}s"


def whole_name(service: str, namespace: str) -> str:
    return f"{service}.{namespace}.svc.cluster.local"
