"""Who of the peers may call a service: asked for each request, by the name in the caller's certificate. Pure.

The answer stands in the service's routes, so that it changes with its traffic, in one rename, and on open
connections too. Only the listener for peers asks; where routes give no answer, nobody is let in.
"""

from __future__ import annotations

from penstock.adapters.envoy.config import Json
from penstock.core.traffic import TrafficPlan

FILTER = "envoy.filters.http.rbac"
TYPE = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3."


def asking() -> Json:
    """What asks, and by itself lets nobody in."""
    return {"name": FILTER, "typed_config": {"@type": f"{TYPE}RBAC", "rules": {"action": "ALLOW"}}}


def answering(plan: TrafficPlan) -> Json:
    """The answer, as a part of a service's routes; empty for a service that is not exported."""
    if plan.export is None:
        return {}
    callers = plan.export.callers(plan.environment)
    principals = [{"authenticated": {"principal_name": {"exact": caller}}} for caller in callers]
    exported = {"permissions": [{"any": True}], "principals": principals}
    rules = {"action": "ALLOW", "policies": {"exported": exported} if principals else {}}
    return {"typed_per_filter_config": {FILTER: {"@type": f"{TYPE}RBACPerRoute", "rbac": {"rules": rules}}}}
