"""The plan that was asked for, beside the object that does it: as annotations, with the fence that wrote it.

Called by the drivers of routers on Kubernetes. What the object itself says is what the data plane does; the
annotation only says what it was to do, so that a difference can be seen. Must not talk to the API.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from penstock.adapters._kubernetes import MANAGER, Object
from penstock.core.codec import decode, encode
from penstock.core.fence import Fence
from penstock.core.traffic import TrafficPlan
from penstock.errors import Broken, Conflict, Invalid

PLAN, FENCE, TOKEN = "penstock.org/plan", "penstock.org/fence", "penstock.org/preview-token"
SERVICE, ENVIRONMENT = "penstock.org/service", "penstock.org/environment"
BESIDE = "take it out of the other tool's hands, or give it a name of its own"


def object_name(service: str, environment: str) -> str:
    """A dot is in neither, so no two services have one."""
    return f"{service}.{environment}"


def metadata(plan: TrafficPlan, fence: int, token: str, namespace: str) -> Object:
    """Of an object that does *plan*, written by whoever holds the *fence* of this number."""
    said = json.dumps(encode(plan), sort_keys=True, separators=(",", ":"))
    return {
        "name": object_name(plan.service, plan.environment),
        "namespace": namespace,
        "labels": {
            "app.kubernetes.io/managed-by": MANAGER,
            SERVICE: plan.service,
            ENVIRONMENT: plan.environment,
        },
        "annotations": {PLAN: said, FENCE: str(fence), TOKEN: token},
    }


def annotation(live: Object, name: str) -> str:
    return str((live["metadata"].get("annotations") or {}).get(name) or "")


def asked(live: Object, where: str) -> TrafficPlan:
    """What the object was to do when it was written last. `Conflict` if it is not one of ours."""
    said = annotation(live, PLAN)
    if not said:
        raise Conflict("there is one that Penstock did not write", where=where, next_move=BESIDE)
    try:
        return decode(TrafficPlan, json.loads(said))
    except (ValueError, RecursionError, Invalid) as error:
        raise Broken(f"its annotation {PLAN} is no plan: {error}", where=where) from error


def check_fence(live: Object | None, fence: Fence, where: str) -> None:
    """`Conflict` if whoever took the work over has written already."""
    written = annotation(live, FENCE) if live else ""
    if written.isdecimal() and int(written) > fence.number:
        what = f"fence {fence.number} is older than {written}, which has written already"
        raise Conflict(what, where=where, next_move="another worker does this now")


def strangers(live: Object, field: str) -> tuple[str, ...]:
    """Who else set *field* of the spec (``rules``): the managers, as the API names them."""
    found = {
        str(entry.get("manager", "?"))
        for entry in live["metadata"].get("managedFields") or ()
        if entry.get("manager") != MANAGER and f"f:{field}" in _spec(entry)
    }
    return tuple(sorted(found))


def others(live: Object, known: Collection[str]) -> dict[str, str]:
    """Fields of the spec that somebody set and we never do → who."""
    found: dict[str, str] = {}
    for entry in live["metadata"].get("managedFields") or ():
        for name in _spec(entry):
            field = name.removeprefix("f:")
            if field not in known and entry.get("manager") != MANAGER and field in live.get("spec", {}):
                found[field] = str(entry.get("manager", "?"))
    return found


def _spec(entry: Object) -> dict[str, Any]:
    spec = (entry.get("fieldsV1") or {}).get("f:spec")
    return spec if isinstance(spec, dict) else {}


def contains(live: Any, ours: Any) -> bool:
    """Whether *live* has everything of *ours*. An API may add defaults to mappings, and nothing to lists."""
    if isinstance(ours, dict):
        return isinstance(live, dict) and all(contains(live.get(name), value) for name, value in ours.items())
    if isinstance(ours, list):
        return (
            isinstance(live, list)
            and len(live) == len(ours)
            and all(contains(one, other) for one, other in zip(live, ours, strict=True))
        )
    return bool(live == ours)


def changed(live: Object, ours: Object) -> str:
    """Which fields of the spec are not as we wrote them, and who has touched them; "" if none is."""
    said = []
    for field, value in ours.items():
        who = strangers(live, field)
        now = live.get("spec", {}).get(field)
        # What others wrote is held to every word; only an API's own defaults may be more.
        if now != value and (who or not contains(now, value)):
            said.append(f"{', '.join(who) or 'somebody'} changed spec.{field}")
    said += [f"{who} set spec.{field}" for field, who in sorted(others(live, ours).items())]
    return "; ".join(said)
