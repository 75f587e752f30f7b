"""A traffic plan as the spec of an HTTPRoute. Pure.

Called by `driver`, which writes it, and by `reading`, which compares. Every field that the API would fill in
is written out, so that what comes back is what was sent. Only what is in the standard channel is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penstock.adapters._kubernetes import Object
from penstock.adapters._meshes.backends import seen_at
from penstock.adapters._meshes.matching import Match, cookie_pattern, in_order, match_of
from penstock.core.traffic import (
    PREVIEW_HEADER,
    TOKEN_HEADER,
    WHOLE,
    Backend,
    Mirror,
    TrafficPlan,
    Weight,
)
from penstock.errors import Invalid

GROUP = "gateway.networking.k8s.io"
#: A Service without endpoints: whoever is led there is told 503, as where nobody is served.
NOBODY = "penstock-nobody"
NOBODY_PORT = 80
MOST_RULES, MOST_MATCHES = 16, 128
USERS = "users"


@dataclass(frozen=True)
class Attached:
    """The Gateway that routes hang on, and a listener of it ("": all); *host* is the name at which users
    find a service."""

    gateway: str
    namespace: str
    section: str = ""
    host: str = "{service}.{environment}.localhost"

    def hostname(self, service: str, environment: str) -> str:
        return self.host.replace("{service}", service).replace("{environment}", environment)

    @property
    def parent(self) -> Object:
        section = {"sectionName": self.section} if self.section else {}
        who = {"group": GROUP, "kind": "Gateway", "name": self.gateway, "namespace": self.namespace}
        return {**who, **section}


def spec_of(plan: TrafficPlan, token: str, ports: Mapping[str, int], attached: Attached) -> Object:
    """*ports*: each release's Service, and that of its previews if it has one. `Invalid` for more than one
    route can hold."""
    where = f"httproutes {plan.service}.{plan.environment}"
    previews = [_preview(release.release, token) for release in plan.backends]
    asked = [*previews, *(match_of(rule) for rule in plan.rules), Match()]
    matches = in_order(asked, where)
    if len(matches) > MOST_RULES or sum(map(len, matches)) > MOST_MATCHES:
        what = f"{len(matches)} rules with {sum(map(len, matches))} matches; a route holds {MOST_RULES}"
        raise Invalid(f"{what} with {MOST_MATCHES}", where=where, next_move="fewer rules, or fewer releases")
    rules = [
        _rule(f"preview-{number}", matches[number], _seen(backend, ports), _unmarked())
        for number, backend in enumerate(plan.backends)
    ]
    users = [*((f"rule-{number}", rule.weights) for number, rule in enumerate(plan.rules))]
    for (name, weights), match in zip([*users, (USERS, plan.weights)], matches[len(previews) :], strict=True):
        rule = _rule(name, match, _refs(weights, ports), _mirrored(plan.mirror, ports))
        rules.append({**rule, "timeouts": {"request": duration(plan.handling.timeout_seconds)}})
    hostname = attached.hostname(plan.service, plan.environment)
    return {"parentRefs": [attached.parent], "hostnames": [hostname], "rules": rules}


def leads_nowhere(plan: TrafficPlan) -> bool:
    """Whether its route leads anybody to `NOBODY`."""
    led = [plan.weights, *(rule.weights for rule in plan.rules)]
    return not all(led) or not all(backend.addresses for backend in plan.backends)


def duration(seconds: float) -> str:
    """``15s`` or ``2s500ms``: the API's own form, to the millisecond."""
    whole, rest = divmod(max(1, round(seconds * 1000)), 1000)
    return "".join(([f"{whole}s"] if whole else []) + ([f"{rest}ms"] if rest else []))


def _preview(release: str, token: str) -> Match:
    return Match(headers=((PREVIEW_HEADER, release), (TOKEN_HEADER, token)))


def _rule(name: str, matches: Sequence[Match], refs: list[Object], filters: list[Object]) -> Object:
    rule = {"name": name, "matches": [_match(match) for match in matches], "backendRefs": refs}
    return {**rule, **({"filters": filters} if filters else {})}


def _match(match: Match) -> Object:
    found: Object = {"path": {"type": "PathPrefix", "value": match.path or "/"}}
    headers = [{"type": "Exact", "name": name, "value": value} for name, value in match.headers]
    if match.cookies:
        pattern = cookie_pattern(match.cookies, "traffic.early")
        headers.append({"type": "RegularExpression", "name": "cookie", "value": pattern})
    return {**found, **({"headers": headers} if headers else {})}


def _seen(backend: Backend, ports: Mapping[str, int]) -> list[Object]:
    """Where a preview goes. A release that gets nothing any more is about to be removed, and no gateway
    confirms a route to a Service that is gone."""
    return _refs((Weight(seen_at(backend, ports), 1),) if backend.addresses else (), ports)


def _refs(weights: Sequence[Weight], ports: Mapping[str, int]) -> list[Object]:
    if weights:
        return [_ref(weight.release, weight.share, ports) for weight in weights]
    return [_ref(NOBODY, 1, {NOBODY: NOBODY_PORT})]


def _ref(service: str, weight: int, ports: Mapping[str, int]) -> Object:
    return {"group": "", "kind": "Service", "name": service, "port": ports[service], "weight": weight}


def _mirrored(mirror: Mirror | None, ports: Mapping[str, int]) -> list[Object]:
    if mirror is None:
        return []
    to = {"group": "", "kind": "Service", "name": mirror.release, "port": ports[mirror.release]}
    fraction = {"numerator": mirror.share, "denominator": WHOLE}
    return [{"type": "RequestMirror", "requestMirror": {"backendRef": to, "fraction": fraction}}]


def _unmarked() -> list[Object]:
    """The token goes no further."""
    return [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": [TOKEN_HEADER]}}]
