"""The words in which a node tells of a pod. Pure, but for reading what its environment names.

Called by `kubelet`.
"""

from __future__ import annotations

import base64
import re

from penstock.testing.kubernetes.api import Api, now
from penstock.testing.kubernetes.expansion import expanded
from penstock.testing.kubernetes.kinds import Object
from penstock.testing.kubernetes.problems import Problem, not_found

UNITS = {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "k": 10**3, "M": 10**6, "G": 10**9}


def waiting(reason: str, message: str = "") -> Object:
    return {"waiting": {"reason": reason, **({"message": message} if message else {})}}


def running(since: str) -> Object:
    return {"running": {"startedAt": since}}


def terminated(code: int, began: str, reason: str = "", message: str = "") -> Object:
    why = reason or ("Completed" if code == 0 else "Error")
    end = {"exitCode": code, "reason": why, "startedAt": began, "finishedAt": now()}
    return {"terminated": {**end, **({"message": message} if message else {})}}


def with_conditions(status: Object, before: Object, *, ready: bool, unschedulable: str) -> Object:
    """*status* with its conditions; what has not changed keeps its time."""
    known = {c["type"]: c for c in before.get("status", {}).get("conditions", [])}
    scheduled = not unschedulable
    truths = {"PodScheduled": scheduled, "Initialized": scheduled, "ContainersReady": ready, "Ready": ready}
    conditions = []
    for kind, truth in truths.items():
        condition = {"type": kind, "status": "True" if truth else "False", "lastTransitionTime": now()}
        if kind == "PodScheduled" and unschedulable:
            condition |= {"reason": "Unschedulable", "message": unschedulable}
        if kind in ("Ready", "ContainersReady") and not truth:
            condition |= {"reason": "ContainersNotReady"}
        if kind in known and known[kind]["status"] == condition["status"]:
            condition["lastTransitionTime"] = known[kind]["lastTransitionTime"]
        conditions.append(condition)
    start = before.get("status", {}).get("startTime", now())
    return {**status, "conditions": conditions, "startTime": start}


def environment(container: Object, pod: Object, api: Api) -> dict[str, str]:
    """Its variables; `Problem` if they name what is not there."""
    found: dict[str, str] = {}
    for entry in container.get("env", []):
        source = entry.get("valueFrom") or {}
        if "value" in entry or not source:
            found[entry["name"]] = expanded(str(entry.get("value", "")), found)
        elif "configMapKeyRef" in source:
            found[entry["name"]] = _key(api, "configmaps", pod, source["configMapKeyRef"])
        elif "secretKeyRef" in source:
            raw = _key(api, "secrets", pod, source["secretKeyRef"])
            found[entry["name"]] = base64.b64decode(raw).decode()
        else:
            raise Problem(422, f"{entry['name']}: this node cannot resolve {', '.join(source)}")
    return found


def _key(api: Api, plural: str, pod: Object, reference: Object) -> str:
    held = api.storage.get(plural, pod["metadata"]["namespace"], reference["name"])
    if held is None:
        raise not_found(plural, "", reference["name"])
    if reference["key"] not in held.get("data", {}):
        raise Problem(404, f"couldn't find key {reference['key']} in {plural} {reference['name']}")
    return str(held["data"][reference["key"]])


def memory_limit(container: Object) -> int:
    """In bytes; 0 if there is none."""
    limit = str(container.get("resources", {}).get("limits", {}).get("memory", "0"))
    found = re.fullmatch(r"(\d+)([A-Za-z]*)", limit)
    return int(found[1]) * UNITS[found[2]] if found else 0
