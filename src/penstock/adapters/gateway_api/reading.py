"""What an HTTPRoute does, as values of our own; and what its gateway says of it. Pure.

Called by `driver`. Of a route that somebody else has changed, what can be said in our words is; the rest is
told by who changed it.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from penstock.adapters._kubernetes import Object
from penstock.adapters._meshes.matching import cookie_of
from penstock.adapters._meshes.routed import Said, Word
from penstock.adapters._meshes.shares import in_thousandths
from penstock.adapters.gateway_api.rendering import NOBODY, Attached, duration
from penstock.core.traffic import (
    PREVIEW_HEADER,
    WHOLE,
    Field,
    Handling,
    Mirror,
    Rule,
    Weight,
)

#: The gateway has not seen the Service yet: it comes by another watch than the route.
NOT_YET = ("BackendNotFound", "Pending")


def word_of(route: Object, attached: Attached, generation: int) -> Word:
    """Of our parent, and only if it has seen this *generation*."""
    parents = (route.get("status") or {}).get("parents") or ()
    mine = [parent for parent in parents if _is(parent.get("parentRef") or {}, attached)]
    if not mine:
        return Word(False, waits="no gateway has taken the route")
    for parent in mine:
        seen = {c.get("type"): c for c in parent.get("conditions") or ()}
        for kind in ("Accepted", "ResolvedRefs"):
            condition = seen.get(kind, {})
            if int(condition.get("observedGeneration") or 0) < generation:
                return Word(False, waits=f"the gateway has not looked at it yet ({kind})")
            said = (
                f"{kind} is {condition.get('status')}: {condition.get('reason')}: {condition.get('message')}"
            )
            if condition.get("status") != "True" and condition.get("reason") in NOT_YET:
                return Word(False, waits=said)
            if condition.get("status") != "True":
                return Word(False, refused=said)
        partly = seen.get("PartiallyInvalid", {})
        if partly.get("status") == "True" and int(partly.get("observedGeneration") or 0) >= generation:
            return Word(False, refused=f"PartiallyInvalid: {partly.get('message')}")
    return Word(True)


def said(spec: Object, usual: Handling) -> Said:
    """What the rules of a spec do; *usual* has what they do not say."""
    weights: tuple[Weight, ...] = ()
    rules: list[Rule] = []
    mirror, handling = None, usual
    for rule in spec.get("rules") or ():
        match = (rule.get("matches") or [{}])[0]
        names = {header.get("name") for header in match.get("headers") or ()}
        if PREVIEW_HEADER in names:
            continue
        mirror = _mirror(rule) or mirror
        if (match.get("path") or {}).get("value", "/") == "/" and not names:
            weights, handling = _weights(rule), _handling(rule, usual)
        else:
            rules.append(_rule(match, _weights(rule)))
    return Said(weights, tuple(rules), mirror, handling)


def _rule(match: Object, weights: tuple[Weight, ...]) -> Rule:
    headers: list[Field] = []
    cookies: list[Field] = []
    for header in match.get("headers") or ():
        cookie = cookie_of(str(header.get("value", ""))) if header.get("name") == "cookie" else None
        (cookies if cookie else headers).append(Field(*(cookie or (header["name"], header["value"]))))
    path = str((match.get("path") or {}).get("value", "/"))
    return Rule(weights, "" if path == "/" else path, tuple(headers), tuple(cookies))


def _weights(rule: Object) -> tuple[Weight, ...]:
    refs = [(str(ref["name"]), int(ref.get("weight", 1))) for ref in rule.get("backendRefs") or ()]
    return in_thousandths([(name, weight) for name, weight in refs if name != NOBODY])


def _mirror(rule: Object) -> Mirror | None:
    for found in rule.get("filters") or ():
        to = found.get("requestMirror")
        if to:
            fraction = to.get("fraction") or {"numerator": to.get("percent", 100), "denominator": 100}
            share = int(fraction["numerator"]) * WHOLE // int(fraction.get("denominator", 100))
            return Mirror(str(to["backendRef"]["name"]), share) if share else None
    return None


def _handling(rule: Object, base: Handling) -> Handling:
    written = (rule.get("timeouts") or {}).get("request")
    if written == duration(base.timeout_seconds):
        return base
    return replace(base, timeout_seconds=_seconds(str(written or "0s")))


def _seconds(said: str) -> float:
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    return sum(float(n) * units[unit] for n, unit in re.findall(r"([0-9]+)(ms|h|m|s)", said))


def _is(reference: Any, attached: Attached) -> bool:
    wanted = attached.parent
    return all(reference.get(name) == wanted.get(name) for name in ("name", "namespace", "sectionName"))
