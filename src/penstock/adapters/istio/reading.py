"""What a VirtualService does, as values of our own; and what Istio says of it, where it says anything. Pure.

Called by `driver`.
"""

from __future__ import annotations

from dataclasses import replace

from penstock.adapters._kubernetes import Object
from penstock.adapters._meshes.matching import cookie_of
from penstock.adapters._meshes.routed import Said, Word
from penstock.adapters._meshes.shares import in_thousandths
from penstock.adapters.istio.rendering import duration
from penstock.core.traffic import PREVIEW_HEADER, WHOLE, Field, Handling, Mirror, Rule, Weight


def word_of(found: Object, generation: int) -> Word:
    """Istio says nothing of what is good unless its status is switched on, so what the API has taken (its own
    webhook has looked at it then) is sure; what it finds wrong later it says as messages."""
    status = found.get("status") or {}
    if int(status.get("observedGeneration") or 0) < generation:
        return Word(True)
    messages = status.get("validationMessages") or ()
    wrong = [m for m in messages if str(m.get("level", "")).upper() == "ERROR"]
    said = "; ".join(
        f"{(m.get('type') or {}).get('code', '')} {m.get('description', '')}".strip() for m in wrong
    )
    return Word(not wrong, refused=(said or "an error without words") if wrong else "")


def said(spec: Object, usual: Handling) -> Said:
    """What the routes of a spec do; *usual* has what they do not say."""
    weights: tuple[Weight, ...] = ()
    rules: list[Rule] = []
    mirror, handling = None, usual
    for route in spec.get("http") or ():
        match = (route.get("match") or [{}])[0]
        if PREVIEW_HEADER in (match.get("headers") or {}):
            continue
        mirror = _mirror(route) or mirror
        if match:
            rules.append(_rule(match, _weights(route)))
        else:
            weights, handling = _weights(route), _handling(route, usual)
    return Said(weights, tuple(rules), mirror, handling)


def _rule(match: Object, weights: tuple[Weight, ...]) -> Rule:
    headers: list[Field] = []
    cookies: list[Field] = []
    for name, how in (match.get("headers") or {}).items():
        value = str(next(iter(how.values()), "")) if isinstance(how, dict) else ""
        cookie = cookie_of(value) if name == "cookie" else None
        (cookies if cookie else headers).append(Field(*(cookie or (name, value))))
    path = str(next(iter((match.get("uri") or {"exact": ""}).values())))
    return Rule(weights, path, tuple(headers), tuple(cookies))


def _weights(route: Object) -> tuple[Weight, ...]:
    """The only destination has everybody, whatever its weight says."""
    given = route.get("route") or ()
    usual = WHOLE if len(given) == 1 else 0
    return in_thousandths([(_release(one["destination"]), int(one.get("weight") or usual)) for one in given])


def _release(destination: Object) -> str:
    return str(destination["host"]).partition(".")[0]


def _mirror(route: Object) -> Mirror | None:
    for one in route.get("mirrors") or ():
        share = round(float((one.get("percentage") or {"value": 100})["value"]) * WHOLE / 100)
        return Mirror(_release(one["destination"]), share) if share else None
    return None


def _handling(route: Object, usual: Handling) -> Handling:
    retries = int((route.get("retries") or {}).get("attempts", usual.retries))
    written = str(route.get("timeout") or duration(usual.timeout_seconds))
    if written == duration(usual.timeout_seconds):
        return replace(usual, retries=retries)
    seconds = (
        float(written[:-1]) if written.endswith("s") and written[:-1].replace(".", "").isdigit() else 0.0
    )
    return replace(usual, retries=retries, timeout_seconds=seconds)
