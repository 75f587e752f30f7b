"""Whom Envoy lets in: which callers, whether users, how many requests a second and at once. Pure: rendered
from a plan, and read back.

Called by `config` and `routes`. The listener says who calls, on arrival; the routes say who may, so that a
promotion or a rollback changes it with the users, in the same rename, on open connections too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from penstock.core.admission import ANYBODY, Admission, Breakers, Refused, RuleName

Json = dict[str, Any]
LIMITER = "envoy.filters.http.local_ratelimit"
LIMITER_TYPE = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
FILTER = "type.googleapis.com/envoy.config.route.v3.FilterConfig"
#: Which release calls, and of which service it is. The caller's own listener sets them; they are never taken
#: from outside, and go no further.
CALLER_HEADER, CALLING_HEADER = "penstock-caller", "penstock-calling-service"
INTERNAL_HEADERS = (CALLER_HEADER, CALLING_HEADER)
#: Envoy's flags of what a limit refuses, and the words for it.
RATE, FULL = "RL", "UO"
SAID = {
    RATE: "more per second than traffic.rate lets in",
    FULL: "more at once than traffic.most_requests and most_connections let in",
}
#: What the names of counters of what is refused begin with, and what follows the rule's.
REFUSED, LIMITED = "refused", "http_local_rate_limit"
#: The names of routes that let somebody in no further, and so of the rule that says so.
CALLERS, PUBLIC = "refused.callers", "refused.public"

#: What one release may have open at once. Repeated requests are at most a fifth of those in flight, or 100:
#: more would keep down what is down already.
LIMIT: Json = {
    "max_connections": 4096,
    "max_pending_requests": 4096,
    "max_requests": 8192,
    "retry_budget": {"budget_percent": {"value": 20.0}, "min_retry_concurrency": 100},
}

# --- callers and users ------------------------------------------------------------------------------------


def refused_callers(service: str, routes: str, of: Admission, chained: Iterable[str]) -> list[Json]:
    """The route of services that may not call. The first of all: a preview token is no way around it.

    Releases that are *chained* to a dark one may call it, whatever the live one says: they meet no other.
    """
    if of.callers is None:
        return []
    matched: list[Json] = [{"name": CALLING_HEADER, "present_match": True}]
    if of.callers:
        matched.append(_not(CALLING_HEADER, {"safe_regex": {"regex": "|".join(of.callers)}}))
    matched += [_not(CALLER_HEADER, {"exact": release}) for release in chained]
    known = ", ".join(of.callers) or "no service"
    text = f"%REQ({CALLING_HEADER})% may not call {service}: its traffic.callers lets in {known}\n"
    return [_refused(CALLERS, matched, text) | _counted(f"{routes}.callers")]


def refused_users(service: str, routes: str, of: Admission) -> list[Json]:
    """The route of users, where there are to be none; whoever may see a dark release came before."""
    if of.public:
        return []
    text = f"{service} is not for users: its traffic.public is false\n"
    nobody = {"name": CALLER_HEADER, "present_match": True, "invert_match": True}
    return [_refused(PUBLIC, [nobody], text) | _counted(f"{routes}.public")]


def _not(header: str, value: Json) -> Json:
    match = {"string_match": value, "invert_match": True, "treat_missing_header_as_empty": True}
    return {"name": header, **match}


def _refused(name: str, headers: Sequence[Json], text: str) -> Json:
    said = {"text_format_source": {"inline_string": text}}
    return {
        "name": name,
        "match": {"prefix": "/", "headers": [*headers]},
        "direct_response": {"status": 403, "body_format": said},
    }


# --- requests per second ----------------------------------------------------------------------------------


def limiter() -> Json:
    """The filter of a listener. It does nothing by itself: the routes say how many."""
    return {"name": LIMITER, "typed_config": {"@type": LIMITER_TYPE, "stat_prefix": REFUSED}}


def limited(routes: str, of: Admission) -> Json:
    """For all routes of a service together, whoever asks: they share one bucket. Nothing at all where there
    is no limit: of routes that mean the same as before, Envoy never confirms the version."""
    bucket = {"max_tokens": of.burst, "tokens_per_fill": of.per_second, "fill_interval": "1s"}
    return _bucket(f"{routes}.rate", bucket, enforced=100) if of.per_second else {}


def unlimited() -> Json:
    """For a route whose requests are not what a rate is about: those to dark releases."""
    return _filtered({"@type": FILTER, "disabled": True})


def _counted(name: str) -> Json:
    """A limit that lets everything pass, and counts it."""
    return _bucket(name, {"max_tokens": 1, "fill_interval": "1s"}, enforced=0)


def _bucket(name: str, bucket: Json, enforced: int) -> Json:
    shares = {"filter_enabled": 100, "filter_enforced": enforced}
    limit = {key: {"default_value": {"numerator": share}} for key, share in shares.items()}
    prefix = {"stat_prefix": f"{REFUSED}.{name}"}
    return _filtered({"@type": LIMITER_TYPE, **prefix, "token_bucket": bucket, **limit})


def _filtered(how: Json) -> Json:
    return {"typed_per_filter_config": {LIMITER: how}}


def refusals(routes: str, counters: Mapping[str, int]) -> tuple[Refused, ...]:
    """What has been refused of a service, of counters by name."""
    rules: dict[RuleName, str] = {"callers": "enabled", "public": "enabled", "rate": "enforced"}
    counted = (
        Refused(rule, counters.get(f"{REFUSED}.{routes}.{rule}.{LIMITED}.{which}", 0))
        for rule, which in rules.items()
    )
    return tuple(refused for refused in counted if refused.count)


def only(flag: str) -> Json:
    """Of answers of Envoy's own, those with this flag."""
    return {"filter": {"response_flag_filter": {"flags": [flag]}}}


def said(flag: str) -> Json:
    """Of such an answer, the text that names the rule."""
    return {"body_format_override": {"text_format_source": {"inline_string": f"{SAID[flag]}\n"}}}


# --- what is open at once ---------------------------------------------------------------------------------


def thresholds(of: Breakers) -> Json:
    """The circuit breakers of one release."""
    found = dict(LIMIT)
    if of.requests:
        found |= {"max_requests": of.requests, "max_pending_requests": of.requests}
    if of.connections:
        found["max_connections"] = of.connections
    return {"thresholds": [found]}


def breakers_of(configured: Mapping[str, Any]) -> Breakers:
    """The inverse of `thresholds`, of what Envoy says of a cluster."""
    listed = configured.get("thresholds", ())
    found = next((of for of in listed if of.get("priority", "DEFAULT") == "DEFAULT"), LIMIT)
    requests, connections = found["max_requests"], found["max_connections"]
    return Breakers(
        0 if requests == LIMIT["max_requests"] else int(requests),
        0 if connections == LIMIT["max_connections"] else int(connections),
    )


# --- read back --------------------------------------------------------------------------------------------


def admission_of(host: Mapping[str, Any]) -> Admission:
    """Whom the routes of a service let in, as Envoy has them."""
    named = {route.get("name", ""): route for route in host["routes"]}
    bucket = host.get("typed_per_filter_config", {}).get(LIMITER, {}).get("token_bucket", {})
    return Admission(
        callers=_callers_of(named[CALLERS]) if CALLERS in named else ANYBODY.callers,
        public=PUBLIC not in named,
        per_second=int(bucket.get("tokens_per_fill", 0)),
        burst=int(bucket.get("max_tokens", 0)),
    )


def _callers_of(route: Mapping[str, Any]) -> tuple[str, ...]:
    listed = (
        header["string_match"]["safe_regex"]["regex"]
        for header in route["match"]["headers"]
        if header["name"] == CALLING_HEADER and "string_match" in header
    )
    return tuple(name for regex in listed for name in regex.split("|"))
