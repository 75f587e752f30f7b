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
#: The label of pods that run a step of a delivery: what they lack is told in other words.
STEP = "penstock.org/step"
#: How a container ended that never began.
NEVER_BEGAN = ("StartError", "ContainerCannotRun")
NO_PROGRAM = "executable file not found"


@dataclass(frozen=True)
class Trouble:
    """*final*: waiting does not mend it. *lacks*: the cluster wants something; that is no word on what was to
    run."""

    what: str
    next_move: str
    final: bool = False
    lacks: bool = False

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
                what = f"the quota of namespace {namespace} is used up: {said}"
                return Trouble(what, move, lacks=True)
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
        yield Trouble(f"node {node}, which runs pod {name}, is not heard of ({lost})", move, lacks=True)
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("reason") == UNSCHEDULABLE:
        asked = "steps in the cluster's file" if _is_step(pod) else "limits in penstock.yaml"
        move = f"ask for less ({asked}), or give the cluster a node with room"
        if "selector" in str(scheduled.get("message")):
            chosen = pod.get("spec", {}).get("nodeSelector", {})
            wanted = "/".join(chosen.get(f"kubernetes.io/{part}", "any") for part in ("os", "arch"))
            move = f"it was built for {wanted}: give the cluster a node of that kind, or build on another"
        yield Trouble(f"no node takes pod {name}: {scheduled.get('message', '')}", move, lacks=True)
    if status.get("reason") == "Evicted":
        move = f"kubectl describe pod {name} -n {namespace}"
        yield Trouble(f"pod {name} was put off its node: {status.get('message', '')}", move)
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        yield from _waiting(container, pod)
        yield from _never_began(container, pod)


def _lost(status: Object, conditions: dict[str, Object]) -> str:
    if status.get("reason") == "NodeLost":
        return "NodeLost"
    target = conditions.get("DisruptionTarget", {})
    if target.get("status") == "True" and target.get("reason") == "DeletionByTaintManager":
        return "DeletionByTaintManager"
    reason = str(conditions.get("Ready", {}).get("reason", ""))
    return reason if reason in ("NodeNotReady", "NodeStatusUnknown") else ""


def _waiting(container: Object, pod: Object) -> Iterator[Trouble]:
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    waiting = container.get("state", {}).get("waiting", {})
    reason, said = str(waiting.get("reason", "")), str(waiting.get("message", ""))
    if reason in PULL:
        final = any(word in f"{reason} {said}" for word in FINAL)
        image = _unpulled(pod, container, said)
        move = "push it under the configured prefix, or name the Secret that may pull it (pull_secrets)"
        if image == container["image"] and _mounts(pod):
            move = "correct bases in the cluster's file, or name the Secret that may pull it (pull_secrets)"
        if _is_step(pod):
            move = "correct steps in the cluster's file, or name the Secret that may pull it (pull_secrets)"
        what = f"the image {image} of pod {name} cannot be pulled: {said}"
        yield Trouble(what, move, final, lacks=not final)
    elif reason in START:
        move = f"kubectl describe pod {name} -n {namespace}"
        yield Trouble(f"the container of pod {name} cannot be started: {reason}: {said}", move)


def _is_step(pod: Object) -> bool:
    return STEP in pod["metadata"].get("labels", {})


def _mounts(pod: Object) -> list[str]:
    """Images that are mounted."""
    volumes = pod.get("spec", {}).get("volumes") or ()
    return [str(volume["image"].get("reference", "")) for volume in volumes if "image" in volume]


def _unpulled(pod: Object, container: Object, said: str) -> str:
    """Which image it is: nodes tell of one that is mounted as if it were the container's own."""
    return next((image for image in _mounts(pod) if image and image in said), str(container["image"]))


def _never_began(container: Object, pod: Object) -> Iterator[Trouble]:
    """Its program is not there: the artifact holds no interpreter, or the base not that one."""
    state = container.get("state", {})
    end = state.get("terminated") or container.get("lastState", {}).get("terminated") or {}
    if "running" in state or end.get("reason") not in NEVER_BEGAN:
        return
    said, name, image = str(end.get("message", "")), pod["metadata"]["name"], container["image"]
    if NO_PROGRAM in said:
        part = "steps" if _is_step(pod) else "bases"
        move = f"name an image that has this program in {part} of the cluster's file; {image} has not"
        yield Trouble(f"the container of pod {name} cannot be started: {said}", move, final=True)
    else:
        move = f"kubectl describe pod {name} -n {pod['metadata']['namespace']}"
        yield Trouble(f"the container of pod {name} cannot be started: {said}", move)
