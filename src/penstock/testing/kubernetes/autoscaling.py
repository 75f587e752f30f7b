"""What an autoscaler may say, and how many copies follow from it. Pure.

Called by `defaults` for what is written, and by `autoscalers`. Of the real algorithm: how many copies follow
from how much they use, the tenth that is tolerated, the bounds, that none stay none, and how long fewer must
have been enough. Not done: that copies are added in steps, and measures other than processor time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from penstock.testing.kubernetes.kinds import Object

TOLERANCE = 0.1
#: How long fewer copies must have been enough, in seconds, where nobody says; and the longest that can be.
WINDOW, LONGEST = 300, 3600
KNOWN = ("resource", "containerResource")


def fill(spec: Object) -> None:
    spec.setdefault("minReplicas", 1)
    if "behavior" in spec:
        up, down = (spec["behavior"].setdefault(way, {}) for way in ("scaleUp", "scaleDown"))
        percent = {"type": "Percent", "value": 100, "periodSeconds": 15}
        for rules in (up, down):
            rules.setdefault("selectPolicy", "Max")
        up.setdefault("stabilizationWindowSeconds", 0)
        up.setdefault("policies", [{"type": "Pods", "value": 4, "periodSeconds": 15}, percent])
        down.setdefault("policies", [percent])


def faults(spec: Object) -> Iterator[tuple[str, str]]:
    """(field, what is wrong with it)."""
    target = spec.get("scaleTargetRef", {})
    if not target.get("kind") or not target.get("name"):
        yield "spec.scaleTargetRef", "Required value"
    least, most = spec["minReplicas"], spec.get("maxReplicas", 0)
    if least < 1:
        yield "spec.minReplicas", "Invalid value: must be greater than or equal to 1"
    if most < 1 or most < least:
        yield "spec.maxReplicas", "Invalid value: must be greater than or equal to `minReplicas`"
    for rules in spec.get("behavior", {}).values():
        if not 0 <= rules.get("stabilizationWindowSeconds", WINDOW) <= LONGEST:
            yield "spec.behavior", f"Invalid value: must be from zero to {LONGEST}"
    metrics = spec.get("metrics", [])
    if len(metrics) != 1 or not any(name in metrics[0] for name in KNOWN):
        yield "spec.metrics", "the fake cluster goes by one measure, of what copies use"
        return
    source = measure(spec)
    if source["name"] != "cpu" or source["target"].get("type") != "Utilization":
        yield "spec.metrics[0]", "the fake cluster goes by the utilization of cpu"
    elif source["target"].get("averageUtilization", 0) < 1:
        yield "spec.metrics[0]", "Invalid value: averageUtilization must be greater than 0"


def measure(spec: Object) -> Object:
    """What the autoscaler goes by."""
    (metric,) = spec["metrics"]
    return next(dict(metric[name]) for name in KNOWN if name in metric)


def window(spec: Object) -> int:
    """Seconds that fewer copies must have been enough for."""
    return int(spec.get("behavior", {}).get("scaleDown", {}).get("stabilizationWindowSeconds", WINDOW))


def enough(spec: Object, current: int, ready: int, used: float) -> int:
    """How many copies of *current* would do, whose *ready* ones use so many percent of what they asked for.
    Those that are not ready may use nothing yet, and are no reason for fewer."""
    ratio = used / measure(spec)["target"]["averageUtilization"]
    if abs(ratio - 1) <= TOLERANCE:
        return current
    found: int = math.ceil(ready * ratio)
    return max(current, found) if ratio > 1 else found


def bounded(spec: Object, count: int) -> int:
    return max(int(spec["minReplicas"]), min(int(spec["maxReplicas"]), count))
