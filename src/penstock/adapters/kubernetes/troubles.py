"""Why a release does not come up, in words for whoever changed it: which object, and the next move. Pure.

Called by `reading` for each pod, and for what the cluster refused to make.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from penstock.adapters._kubernetes import Object

PULL = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
START = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "ContainerCannotRun")
#: With these, no time will help: the image is not there, or we may not have it.
FINAL = ("not found", "manifest unknown", "unauthorized", "denied", "InvalidImageName", "ErrImageNeverPull")
UNSCHEDULABLE = "Unschedulable"


@dataclass(frozen=True)
class Trouble:
    """*final*: waiting does not mend it."""

    what: str
    next_move: str
    final: bool = False

    def __str__(self) -> str:
        return f"{self.what}; next: {self.next_move}"


def of_pod(pod: Object) -> Trouble | None:
    """What keeps this pod from running; None if nothing is known."""
    return next(_found(pod), None)


def of_deployment(deployment: Object) -> Trouble | None:
    """What the cluster refuses to make for it."""
    for condition in deployment.get("status", {}).get("conditions", ()):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            said, namespace = str(condition.get("message", "")), deployment["metadata"]["namespace"]
            if "exceeded quota" in said:
                move = f"kubectl describe quota -n {namespace}; remove what is not needed, or raise it"
                return Trouble(f"the quota of namespace {namespace} is used up: {said}", move)
            move = f"kubectl describe replicaset -n {namespace}"
            return Trouble(f"the cluster refuses its pods: {said}", move)
    return None


def _found(pod: Object) -> Iterator[Trouble]:
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    status = pod.get("status", {})
    conditions = {condition["type"]: condition for condition in status.get("conditions", ())}
    if lost := _lost(status, conditions):
        node = pod.get("spec", {}).get("nodeName", "?")
        move = f"kubectl describe node {node}; the cluster starts another copy elsewhere"
        yield Trouble(f"node {node}, which runs pod {name}, is not heard of ({lost})", move)
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("reason") == UNSCHEDULABLE:
        move = "ask for less (limits in penstock.yaml), or give the cluster a node with room"
        yield Trouble(f"no node takes pod {name}: {scheduled.get('message', '')}", move)
    if status.get("reason") == "Evicted":
        move = f"kubectl describe pod {name} -n {namespace}"
        yield Trouble(f"pod {name} was put off its node: {status.get('message', '')}", move)
    for container in status.get("containerStatuses", ()):
        yield from _waiting(container, name, namespace)


def _lost(status: Object, conditions: dict[str, Object]) -> str:
    if status.get("reason") == "NodeLost":
        return "NodeLost"
    target = conditions.get("DisruptionTarget", {})
    if target.get("status") == "True" and target.get("reason") == "DeletionByTaintManager":
        return "DeletionByTaintManager"
    reason = str(conditions.get("Ready", {}).get("reason", ""))
    return reason if reason in ("NodeNotReady", "NodeStatusUnknown") else ""


def _waiting(container: Object, name: str, namespace: str) -> Iterator[Trouble]:
    waiting = container.get("state", {}).get("waiting", {})
    reason, said = str(waiting.get("reason", "")), str(waiting.get("message", ""))
    if reason in PULL:
        final = any(word in f"{reason} {said}" for word in FINAL)
        move = "push it under the configured prefix, or name the Secret that may pull it (pull_secrets)"
        yield Trouble(f"the image {container['image']} of pod {name} cannot be pulled: {said}", move, final)
    elif reason in START:
        move = f"kubectl describe pod {name} -n {namespace}"
        yield Trouble(f"the container of pod {name} cannot be started: {reason}: {said}", move)
