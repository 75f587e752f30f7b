"""What a cluster does by itself: Deployments make ReplicaSets, which make pods; Services find them; what lost
its owner goes.

Called by `cluster` after each change, and by `jobs` for what they share. Everything is looked at anew, as
real controllers do, and writes happen only where something differs. A rolling update is: the new pods first,
the old ones as these are ready.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import time
from collections.abc import Callable, Iterable
from typing import Any

from penstock.testing.kubernetes.api import FOREGROUND, Api, now
from penstock.testing.kubernetes.kinds import (
    DEPLOYMENTS,
    PODS,
    REPLICA_SETS,
    SERVICES,
    SLICES,
    FakeKind,
    Object,
)
from penstock.testing.kubernetes.problems import Problem

MANAGER = "kube-controller-manager"


#: Asked before *kind* is made by calling the function.
Demand = Callable[[FakeKind, Callable[[], Object]], None]


class Controllers:
    """*demand* raises `Problem` for what the cluster's webhooks do not let be made, or not yet. *speed* as
    the kubelet's: a progress deadline passes so much faster."""

    def __init__(self, api: Api, demand: Demand, speed: float) -> None:
        self._api = api
        self._demand = demand
        self._speed = speed
        #: When a Deployment last came forward, by uid, and how far it was.
        self._progress: dict[str, tuple[float, tuple[int, int]]] = {}

    def reconcile(self) -> None:
        self._collect()
        for deployment in self._api.all(DEPLOYMENTS):
            self._deployment(deployment)
        for owner in self._api.all(REPLICA_SETS):
            self._replica_set(owner)
        for deployment in self._api.all(DEPLOYMENTS):
            self._tell_deployment(deployment)
        for service in self._api.all(SERVICES):
            self._service(service)

    # --- Deployments ---------------------------------------------------------------------------------

    def _deployment(self, deployment: Object) -> None:
        if deployment["spec"].get("paused") or "deletionTimestamp" in deployment["metadata"]:
            return
        template = deployment["spec"]["template"]
        code = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]
        owned = self.owned(REPLICA_SETS, deployment)
        current = next((s for s in owned if s["metadata"]["labels"]["pod-template-hash"] == code), None)
        wanted = deployment["spec"]["replicas"]
        others = [s for s in owned if s is not current]
        recreating = deployment["spec"].get("strategy", {}).get("type") == "Recreate"
        if recreating and any(self.owned(PODS, other) for other in others):  # those on their way out, too
            self._scale(others, 0)
        elif current is None:
            self._new_set(deployment, code, wanted)
        else:
            self._scale([current], wanted)
            if _ready(self._pods(current)) >= wanted:
                self._scale(others, 0)

    def _new_set(self, deployment: Object, code: str, wanted: int) -> None:
        spec = deployment["spec"]
        labels = {**spec["template"]["metadata"]["labels"], "pod-template-hash": code}
        template = {**spec["template"], "metadata": {**spec["template"]["metadata"], "labels": labels}}
        name = f"{deployment['metadata']['name']}-{code}"
        metadata = {**child(deployment, DEPLOYMENTS), "name": name, "labels": labels}
        new = {
            "metadata": metadata,
            "spec": {"replicas": wanted, "selector": {"matchLabels": labels}, "template": template},
        }
        with contextlib.suppress(Problem):  # tried again after the next change
            self.create(REPLICA_SETS, new)

    def _scale(self, sets: Iterable[Object], replicas: int) -> None:
        for one in sets:
            if one["spec"]["replicas"] != replicas:
                one["spec"]["replicas"] = replicas
                self._update(REPLICA_SETS, one)

    def _tell_deployment(self, deployment: Object) -> None:
        sets = self.owned(REPLICA_SETS, deployment)
        pods = [pod for one in sets for pod in self._pods(one)]
        wanted, ready = deployment["spec"]["replicas"], _ready(pods)
        failure = next((c for one in sets for c in one.get("status", {}).get("conditions", [])), None)
        status = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": len(pods),
            "updatedReplicas": len(pods),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "unavailableReplicas": max(0, wanted - ready),
            "conditions": [
                condition("Available", ready >= wanted, "MinimumReplicas"),
                self._progressing(deployment, ready, len(pods)),
                *([failure] if failure else []),
            ],
        }
        self.tell(DEPLOYMENTS, deployment, status)

    def _progressing(self, deployment: Object, ready: int, pods: int) -> Object:
        """Once all were available (or none was wanted), it has come to its end, whatever comes after; before
        that there is a deadline."""
        before = {c["type"]: c for c in deployment.get("status", {}).get("conditions", [])}
        known = before.get("Progressing", {}).get("reason", "")
        wanted, uid = deployment["spec"]["replicas"], deployment["metadata"]["uid"]
        if deployment["spec"].get("paused"):
            return condition("Progressing", True, "DeploymentPaused")
        if known == "NewReplicaSetAvailable" or pods == ready == wanted:
            return condition("Progressing", True, "NewReplicaSetAvailable")
        since, best = self._progress.get(uid, (time.monotonic(), (-1, -1)))
        if (ready, pods) > best:
            since, best = time.monotonic(), (ready, pods)
        self._progress[uid] = (since, best)
        late = (time.monotonic() - since) * self._speed > deployment["spec"]["progressDeadlineSeconds"]
        if late:
            return condition("Progressing", False, "ProgressDeadlineExceeded")
        return condition("Progressing", True, "ReplicaSetUpdated")

    # --- ReplicaSets ---------------------------------------------------------------------------------

    def _replica_set(self, owner: Object) -> None:
        pods, wanted = self._pods(owner), owner["spec"]["replicas"]
        for pod in sorted(pods, key=_first_to_go)[: max(0, len(pods) - wanted)]:
            with contextlib.suppress(Problem):
                self._api.delete(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"])
        failure = ""
        for _ in range(wanted - len(pods)):
            template = owner["spec"]["template"]
            metadata = {**template["metadata"], **child(owner, REPLICA_SETS)}
            metadata["generateName"] = f"{owner['metadata']['name']}-"
            try:
                self.create(PODS, {"metadata": metadata, "spec": template["spec"]})
            except Problem as problem:
                failure = problem.message
                break
        there = len(self._pods(owner))
        failed = {**condition("ReplicaFailure", True, "FailedCreate"), "message": failure}
        status = {
            "replicas": there,
            "readyReplicas": _ready(self._pods(owner)),
            "observedGeneration": owner["metadata"]["generation"],
            **({"conditions": [failed]} if failure else {}),
        }
        self.tell(REPLICA_SETS, owner, status)

    def _pods(self, owner: Object) -> list[Object]:
        """Those that are not on their way out."""
        return [p for p in self.owned(PODS, owner) if "deletionTimestamp" not in p["metadata"]]

    # --- Services ------------------------------------------------------------------------------------

    def _service(self, service: Object) -> None:
        selector = service["spec"].get("selector")
        if not selector:
            return
        metadata = service["metadata"]

        def meant(pod: Object) -> bool:
            labels = pod["metadata"].get("labels", {})
            return selector.items() <= labels.items() and bool(pod.get("status", {}).get("podIP"))

        chosen = self._api.those(PODS, metadata["namespace"], meant)
        name = f"{metadata['name']}-slice"
        labels = {
            **metadata.get("labels", {}),
            "kubernetes.io/service-name": metadata["name"],
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        }
        wanted = {
            "metadata": {**child(service, SERVICES), "name": name, "labels": labels},
            "addressType": "IPv4",
            "ports": [_slice_port(port, chosen) for port in service["spec"].get("ports", [])],
            "endpoints": [_endpoint(pod) for pod in chosen],
        }
        known = self._api.storage.get(SLICES.full, metadata["namespace"], name)
        if known is None:
            self.create(SLICES, wanted)
        elif (known["endpoints"], known["ports"]) != (wanted["endpoints"], wanted["ports"]):
            self._update(SLICES, {**known, "endpoints": wanted["endpoints"], "ports": wanted["ports"]})

    # --- what lost its owner -------------------------------------------------------------------------

    def _collect(self) -> None:
        there = {value["metadata"]["uid"] for _, value in self._api.storage.kinds()}
        for full, value in self._api.storage.kinds():
            kind, owners = self._api.named(full), value["metadata"].get("ownerReferences", [])
            if owners and not any(owner["uid"] in there for owner in owners):
                self._remove(kind, value)
            if kind and FOREGROUND in value["metadata"].get("finalizers", []):
                self._foreground(kind, value)

    def _foreground(self, kind: FakeKind, owner: Object) -> None:
        """What it owns goes, and then it does."""
        metadata = owner["metadata"]
        children = [(full, v) for full, v in self._api.storage.kinds() if _owns(owner, v)]
        for full, child in children:
            self._remove(self._api.named(full), child)
        if not children and metadata["finalizers"] == [FOREGROUND]:
            self._api.storage.remove(kind.full, metadata["namespace"], metadata["name"])

    def _remove(self, kind: FakeKind | None, value: Object) -> None:
        if kind and "deletionTimestamp" not in value["metadata"]:
            with contextlib.suppress(Problem):
                self._api.delete(kind, value["metadata"]["namespace"], value["metadata"]["name"])

    # --- writing -------------------------------------------------------------------------------------

    def owned(self, kind: FakeKind, owner: Object) -> list[Object]:
        return self._api.those(kind, owner["metadata"]["namespace"], lambda value: _owns(owner, value))

    def create(self, kind: FakeKind, value: Object) -> None:
        whole = {"apiVersion": kind.api_version, "kind": kind.kind, **value}
        make = functools.partial(self._api.create, kind, whole, manager=MANAGER)
        self._demand(kind, make)
        make()

    def _update(self, kind: FakeKind, value: Object, subresource: str = "") -> None:
        value["metadata"].pop("resourceVersion", None)
        self._api.update(kind, value, manager=MANAGER, subresource=subresource)

    def tell(self, kind: FakeKind, value: Object, status: Object) -> None:
        before = value.get("status", {})
        times = {(c["type"], c["status"]): c.get("lastTransitionTime") for c in before.get("conditions", [])}
        for condition in status.get("conditions", []):
            kept = times.get((condition["type"], condition["status"]))
            condition["lastTransitionTime"] = kept or now()
        if before != status:
            self._update(kind, {**value, "status": status}, "status")


def _owns(owner: Object, value: Object) -> bool:
    uid = owner["metadata"]["uid"]
    return any(reference["uid"] == uid for reference in value["metadata"].get("ownerReferences", []))


def child(owner: Object, kind: FakeKind) -> Object:
    reference = {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {"namespace": owner["metadata"]["namespace"], "ownerReferences": [reference]}


def condition(kind: str, truth: bool, reason: str) -> Object:
    return {"type": kind, "status": "True" if truth else "False", "reason": reason}


def _is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _ready(pods: Iterable[Object]) -> int:
    return sum(_is_ready(pod) for pod in pods)


def _first_to_go(pod: Object) -> tuple[Any, ...]:
    """Not scheduled, not ready, cheapest to delete, youngest."""
    annotations = pod["metadata"].get("annotations", {})
    cost = int(annotations.get("controller.kubernetes.io/pod-deletion-cost", "0"))
    scheduled = "nodeName" in pod["spec"]
    return scheduled, _is_ready(pod), cost, -int(pod["metadata"]["uid"].replace("-", ""), 16)


def _slice_port(port: Object, pods: list[Object]) -> Object:
    target = port["targetPort"]
    named = (
        found["containerPort"]
        for pod in pods
        for found in pod["spec"]["containers"][0].get("ports", [])
        if found.get("name") == target
    )
    number = target if isinstance(target, int) else next(named, None)
    found = {"name": port.get("name", ""), "port": number, "protocol": port["protocol"]}
    return {**found, **({"appProtocol": port["appProtocol"]} if "appProtocol" in port else {})}


def _endpoint(pod: Object) -> Object:
    ending = "deletionTimestamp" in pod["metadata"]
    serving = _is_ready(pod)
    return {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {"ready": serving and not ending, "serving": serving, "terminating": ending},
        "nodeName": pod["spec"].get("nodeName", ""),
        "targetRef": {
            "kind": "Pod",
            "name": pod["metadata"]["name"],
            "namespace": pod["metadata"]["namespace"],
            "uid": pod["metadata"]["uid"],
        },
    }
