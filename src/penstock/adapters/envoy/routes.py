"""The routes of a service, rendered from its plan and read back from what Envoy has. Pure.

Called by the driver. From the first to the last: who may not call is told so; who may see a dark release
sees it; calls of a dark release go on in its chain; users who are not let in are told so; then the rules in
their order, and the weights for everybody else. One route configuration serves a service's ingress and every
caller's egress listener, so that a change is one rename.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from penstock.adapters.envoy import admission
from penstock.adapters.envoy.admission import CALLER_HEADER, INTERNAL_HEADERS, admission_of
from penstock.adapters.envoy.config import PREVIEW, Json, route_name
from penstock.adapters.envoy.exported import answering
from penstock.adapters.envoy.keys import Keys
from penstock.adapters.envoy.tickets import noted
from penstock.core.admission import ANYBODY, Admission
from penstock.core.traffic import (
    COPY_HEADER,
    MIRROR_HEADER,
    PREVIEW_COOKIE,
    PREVIEW_HEADER,
    TOKEN_HEADER,
    WHOLE,
    Field,
    Handling,
    Mirror,
    Rule,
    TrafficPlan,
    Weight,
    served_by,
    sticky_cookie,
)
from penstock.errors import Invalid

ROUTES = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
PREVIOUS_HOSTS = "envoy.retry_host_predicates.previous_hosts"
PREVIOUS_HOSTS_TYPE = (
    "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
)
#: The one virtual host of every service.
HOST = "all"
BAGGAGE = "baggage"
MARKED = f"{MIRROR_HEADER}=1"
REQUEST_ID = "x-request-id"
#: What the name of a route begins with, if it serves users.
USERS, RULE = "users", "rule."
#: What a request's id looks like, and so the cookie that keeps it. (Counted repetitions exceed RE2's limit.)
TICKET = "[0-9a-f-]+"
PARTS = {"HUNDRED": 100, "TEN_THOUSAND": 10_000, "MILLION": 1_000_000}
TICKET_SECONDS = 30 * 24 * 3600


@dataclass(frozen=True)
class Chained:
    """Calls of the dark release *caller* go to the dark release *release*."""

    caller: str
    release: str


def chains(plans: Iterable[TrafficPlan], callee: TrafficPlan) -> tuple[Chained, ...]:
    """Every chain that leads to a release of *callee*."""
    known = {backend.release for backend in callee.backends}
    return tuple(
        Chained(backend.release, target)
        for plan in plans
        if plan.environment == callee.environment and plan.service != callee.service
        for backend in plan.backends
        for target in backend.chain
        if target in known
    )


def routes(plan: TrafficPlan, keys: Keys, chained: Sequence[Chained] = ()) -> Json:
    """The routes of one service."""
    name, let_in = route_name(plan.service, plan.environment), plan.admission
    listed = [
        *admission.refused_callers(plan.service, name, let_in, (chain.caller for chain in chained)),
        *itertools.chain.from_iterable(_preview(plan, b.release, keys) for b in plan.backends),
        *itertools.chain.from_iterable(_chain(plan, chain, keys) for chain in chained),
        *admission.refused_users(plan.service, name, let_in),
        *itertools.chain.from_iterable(_rule(plan, *numbered) for numbered in enumerate(plan.rules)),
        *_served(plan, plan.weights, USERS, {"prefix": "/"}),
    ]
    host = {
        "name": HOST,
        "domains": ["*"],
        "routes": listed if plan.weights else [*listed, _nobody()],
        **admission.limited(name, let_in),
    }
    whole = {"@type": ROUTES, "name": name, "validate_clusters": True, "virtual_hosts": [host]}
    return whole | answering(plan)


def no_routes(name: str) -> Json:
    """The routes of a service that has no plan yet."""
    host = {"name": HOST, "domains": ["*"], "routes": [_nobody()]}
    return {"@type": ROUTES, "name": name, "validate_clusters": True, "virtual_hosts": [host]}


# --- dark releases ---------------------------------------------------------------------------------------


def _preview(plan: TrafficPlan, release: str, keys: Keys) -> Iterator[Json]:
    """By both headers (as the copy of a request, if it says so), or on a host name of its own with the token
    as a header or a cookie.

    A browser gets that cookie once it opens the host name with the token in the query.
    """
    token = {"exact": keys.preview(route_name(plan.service, plan.environment))}
    carried = {"name": TOKEN_HEADER, "string_match": token}
    host = {"name": ":authority", "string_match": {"prefix": f"{release}.preview.", "ignore_case": True}}
    named = {"name": PREVIEW_HEADER, "string_match": {"exact": release}}
    link = {"headers": [host], "query_parameters": [{"name": TOKEN_HEADER, "string_match": token}]}
    cookie = f"{PREVIEW_COOKIE}={token['exact']}; Path=/; HttpOnly; SameSite=Lax"
    yield {
        "match": {"prefix": "/", **link},
        "redirect": {"strip_query": True, "response_code": "SEE_OTHER"},
        "response_headers_to_add": [_added("set-cookie", cookie, "APPEND_IF_EXISTS_OR_ADD")],
        **admission.unlimited(),
    }
    copied = {"name": COPY_HEADER, "present_match": True}
    yield _as_copy(_dark(plan, release, {"headers": [named, carried, copied]}))
    shown = (
        {"headers": [named, carried]},
        {"headers": [host, carried]},
        {"headers": [host], "cookies": [{"name": PREVIEW_COOKIE, "string_match": token}]},
    )
    for match in shown:
        yield _dark(plan, release, match)


def _chain(plan: TrafficPlan, chain: Chained, keys: Keys) -> Iterator[Json]:
    """Calls of its own, and those that came past somebody who forwarded the baggage."""
    adjacent = {"name": CALLER_HEADER, "string_match": {"exact": chain.caller}}
    further = {"name": BAGGAGE, "string_match": {"contains": keys.chain(chain.caller)}}
    for header in (adjacent, further):
        yield _dark(plan, chain.release, {"headers": [header]}, chain.caller)


def led(release: str, caller: str) -> str:
    """Under which name Envoy counts what is led to a dark release; without a *caller*, by its preview."""
    return f"led.{release}.{caller or 'preview'}"


def _dark(plan: TrafficPlan, release: str, match: Json, caller: str = "") -> Json:
    return {
        "match": {"prefix": "/", **match},
        "stat_prefix": led(release, caller),
        "route": action(plan.handling) | {"cluster": release + PREVIEW},
        "request_headers_to_remove": [TOKEN_HEADER, *INTERNAL_HEADERS],
        "response_headers_to_add": [_told(release)],
        **admission.unlimited(),
    }


# --- users -------------------------------------------------------------------------------------------------


def _rule(plan: TrafficPlan, number: int, rule: Rule) -> list[Json]:
    match: Json = {"path_separated_prefix": rule.path} if rule.path else {"prefix": "/"}
    match["headers"] = [{"name": h.name, "string_match": {"exact": h.value}} for h in rule.headers]
    match["cookies"] = [{"name": c.name, "string_match": {"exact": c.value}} for c in rule.cookies]
    return _served(plan, rule.weights, f"{RULE}{number}", match)


def _served(plan: TrafficPlan, weights: Sequence[Weight], name: str, match: Json) -> list[Json]:
    """The routes of users whose requests match: what is the first to fit a request is taken."""
    weighted = [
        {"name": weight.release, "weight": weight.share, "response_headers_to_add": [_told(weight.release)]}
        for weight in weights
    ]
    found = []
    for tickets, copied in itertools.product(_tickets(plan.sticky), _copied(plan.mirror)):
        if not weights:
            continue
        headers = [*match.get("headers", ()), *tickets.headers, *copied.headers]
        split: Json = {"clusters": weighted, **({"use_hash_policy": True} if tickets.action else {})}
        route: Json = {
            "name": name,
            "match": {**match, "headers": headers, "cookies": [*match.get("cookies", ()), *tickets.cookies]},
            "route": action(plan.handling) | tickets.action | copied.action | {"weighted_clusters": split},
            "request_headers_to_remove": [TOKEN_HEADER, *INTERNAL_HEADERS],
        }
        if tickets.action:
            route["response_headers_to_add"] = [*tickets.answer]
            route["typed_per_filter_config"] = noted(*tickets.ticket)
        found.append(route)
    return found


@dataclass(frozen=True)
class _Variant:
    """What one of several routes for the same users has beside the others."""

    headers: tuple[Json, ...] = ()
    cookies: tuple[Json, ...] = ()
    action: Json = field(default_factory=dict)
    answer: tuple[Json, ...] = ()
    ticket: tuple[str, ...] = ()


def _tickets(salt: str) -> tuple[_Variant, ...]:
    """Who keeps his place: by the cookie that his first answer gave him, and on that first visit by what
    the cookie is going to be. Both hash to the same place, and whoever has none is placed anew."""
    if not salt:
        return (_Variant(),)
    name, seen = sticky_cookie(salt), {"safe_regex": {"regex": TICKET}}
    cookie = f"{name}=%REQ({REQUEST_ID})%; Path=/; Max-Age={TICKET_SECONDS}; HttpOnly; SameSite=Lax"
    return (
        _Variant(
            cookies=({"name": name, "string_match": seen},),
            action={"hash_policy": [{"cookie": {"name": name}, "terminal": True}]},
            ticket=(salt, "cookie", name),
        ),
        _Variant(
            headers=({"name": REQUEST_ID, "string_match": seen},),
            action={"hash_policy": [{"header": {"header_name": REQUEST_ID}, "terminal": True}]},
            answer=(_added("set-cookie", cookie, "APPEND_IF_EXISTS_OR_ADD"),),
            ticket=(salt, "header", REQUEST_ID),
        ),
        _Variant(),  # a request id of somebody else's making must not become a cookie
    )


def _copied(mirror: Mirror | None) -> tuple[_Variant, ...]:
    """What is a copy, or was asked for because of one, is not copied again."""
    if mirror is None:
        return (_Variant(),)
    unmarked = (
        {"name": MIRROR_HEADER, "present_match": True, "invert_match": True},
        {
            "name": BAGGAGE,
            "string_match": {"contains": MARKED},
            "invert_match": True,
            "treat_missing_header_as_empty": True,
        },
    )
    policy = {
        "cluster": mirror.release + PREVIEW,
        "runtime_fraction": {
            "default_value": {"numerator": mirror.share * 10, "denominator": "TEN_THOUSAND"}
        },
        "disable_shadow_host_suffix_append": True,
        "request_headers_mutations": [{"append": mark} for mark in _marks()],
    }
    return (_Variant(headers=unmarked, action={"request_mirror_policies": [policy]}), _Variant())


def _marks() -> tuple[Json, Json]:
    """What says of a request that it is the copy of a user's, and of the calls that follow from it."""
    return _added(MIRROR_HEADER, "1"), _added(BAGGAGE, MARKED, "APPEND_IF_EXISTS_OR_ADD")


def _as_copy(route: Json) -> Json:
    removed = [*route["request_headers_to_remove"], COPY_HEADER]
    return route | {"request_headers_to_remove": removed, "request_headers_to_add": [*_marks()]}


def _nobody() -> Json:
    text = {"inline_string": "no release of this service takes traffic\n"}
    return {"match": {"prefix": "/"}, "direct_response": {"status": 503, "body": text}}


def action(handling: Handling) -> Json:
    # Only requests that no instance has seen are sent again: nothing is done twice.
    retry = {
        "retry_on": "connect-failure,refused-stream,reset-before-request",
        "num_retries": handling.retries,
        # Once an answer has begun this is over: unlike the timeout of the route, it lets streams go on.
        "per_try_timeout": f"{handling.timeout_seconds:.9f}s",
        "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
        # Another instance, if there is one: the one that failed may be gone for good.
        "retry_host_predicate": [{"name": PREVIOUS_HOSTS, "typed_config": {"@type": PREVIOUS_HOSTS_TYPE}}],
        "host_selection_retry_max_attempts": 4,
    }
    return {"timeout": "0s", "idle_timeout": f"{handling.idle_seconds:.9f}s", "retry_policy": retry}


def _told(release: str) -> Json:
    """Every answer says which release gave it."""
    return _added("x-penstock-release", release)


def _added(name: str, value: str, how: str = "OVERWRITE_IF_EXISTS_OR_ADD") -> Json:
    return {"header": {"key": name, "value": value}, "append_action": how}


# --- read back ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Active:
    """What the routes that Envoy follows do with users."""

    weights: tuple[Weight, ...] = ()
    rules: tuple[Rule, ...] = ()
    sticky: str = ""
    mirror: Mirror | None = None
    handling: Handling = field(default_factory=Handling)
    admission: Admission = ANYBODY

    @property
    def serving(self) -> frozenset[str]:
        """Releases that some user may meet."""
        return served_by(self.weights, self.rules)


def wanted(plan: TrafficPlan) -> Active:
    """What `active` gives where Envoy does what *plan* asks."""
    handling = plan.handling if plan.backends else Handling()  # with no backend there is nothing to handle
    return Active(plan.weights, plan.rules, plan.sticky, plan.mirror, handling, plan.admission)


def kept_by(users: Active, plan: TrafficPlan) -> TrafficPlan:
    """*plan*, with users where they are now, if a plan can say so."""
    try:
        users_of = {name: getattr(users, name) for name in ("weights", "rules", "sticky", "mirror")}
        return replace(plan, **users_of)
    except Invalid:  # somebody else has written what is no plan
        return plan


def active(configured: Mapping[str, Any]) -> Active:
    """The inverse of `routes`, of a service's routes as Envoy has them."""
    listed = configured["virtual_hosts"][0]["routes"]
    named: dict[str, Any] = {}
    for route in listed:
        named.setdefault(route.get("name", ""), route)
    users = named.get(USERS, listed[-1])  # an earlier release gave routes no names
    rules = [_rule_of(route) for name, route in named.items() if name.startswith(RULE)]
    handling = [_handling_of(route["route"]) for route in listed if "route" in route]
    return Active(
        weights=_weights_of(users),
        rules=tuple(rules),
        sticky=_sticky_of(users),
        mirror=_mirror_of(users),
        handling=handling[0] if handling else Handling(),
        admission=admission_of(configured["virtual_hosts"][0]),
    )


def _weights_of(route: Mapping[str, Any]) -> tuple[Weight, ...]:
    listed = route.get("route", {}).get("weighted_clusters", {}).get("clusters", [])
    return tuple(Weight(item["name"], int(item["weight"])) for item in listed if item.get("weight"))


def _rule_of(route: Mapping[str, Any]) -> Rule:
    match = route["match"]
    return Rule(
        weights=_weights_of(route),
        path=match.get("path_separated_prefix", ""),
        headers=_fields_of(match.get("headers", ())),
        cookies=_fields_of(match.get("cookies", ())),
    )


def _fields_of(matchers: Iterable[Mapping[str, Any]]) -> tuple[Field, ...]:
    """Those that a rule asks for: whatever else is matched is never exact."""
    exact = ((matcher["name"], matcher.get("string_match", {}).get("exact")) for matcher in matchers)
    return tuple(Field(name, value) for name, value in exact if value is not None)


def _sticky_of(route: Mapping[str, Any]) -> str:
    policies = route.get("route", {}).get("hash_policy", [])
    names = [policy["cookie"]["name"] for policy in policies if "cookie" in policy]
    return names[0].removeprefix(sticky_cookie("")) if names else ""


def _mirror_of(route: Mapping[str, Any]) -> Mirror | None:
    for policy in route.get("route", {}).get("request_mirror_policies", []):
        fraction = policy["runtime_fraction"]["default_value"]
        share = int(fraction.get("numerator", 0)) * WHOLE // PARTS[fraction.get("denominator", "HUNDRED")]
        return Mirror(policy["cluster"].removesuffix(PREVIEW), share)
    return None


def _handling_of(action: Mapping[str, Any]) -> Handling:
    retry = action.get("retry_policy", {})
    # Routes of an earlier release bounded the whole of an answer.
    began, idle = (
        retry.get("per_try_timeout") or action.get("timeout", "15s"),
        action.get("idle_timeout", "300s"),
    )
    return Handling(_seconds(began), int(retry.get("num_retries", 0)), _seconds(idle))


def _seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))
