"""What the API fills in where a writer said nothing, and which values it refuses. Pure.

Called by `api` for every write. Only what our own objects can meet.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from penstock.testing.kubernetes import autoscaling, volumes
from penstock.testing.kubernetes.kinds import Object

FILLED = ("Deployment", "HorizontalPodAutoscaler", "Job", "ReplicaSet", "Service", "Pod")


def fill(kind: str, value: Object, number: int) -> None:
    """*number* is another for each write: what a new Service's address is made of."""
    spec = value.setdefault("spec", {}) if kind in FILLED else {}
    if kind == "Deployment":
        spec.setdefault("replicas", 1)
        spec.setdefault("progressDeadlineSeconds", 600)
        spec.setdefault("revisionHistoryLimit", 10)
        _pod(spec.get("template", {}).get("spec", {}))
    elif kind == "ReplicaSet":
        spec.setdefault("replicas", 1)
    elif kind == "Job":
        for name, value_then in (("backoffLimit", 6), ("parallelism", 1), ("completions", 1)):
            spec.setdefault(name, value_then)
        _pod(spec.get("template", {}).get("spec", {}))
    elif kind == "Pod":
        _pod(spec)
    elif kind == "HorizontalPodAutoscaler":
        autoscaling.fill(spec)
    elif kind == "Service":
        spec.setdefault("type", "ClusterIP")
        if spec["type"] != "ExternalName":
            spec.setdefault("clusterIP", f"10.96.{number // 250 % 250}.{number % 250 + 1}")
        for port in spec.get("ports", []):
            port.setdefault("protocol", "TCP")
            port.setdefault("targetPort", port["port"])


def _pod(spec: Object) -> None:
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    for volume in spec.get("volumes", []):
        volume.get("image", {}).setdefault("pullPolicy", "IfNotPresent")
    for container in (*spec.get("initContainers", []), *spec.get("containers", [])):
        container.setdefault("imagePullPolicy", "IfNotPresent")
        for port in container.get("ports", []):
            port.setdefault("protocol", "TCP")


def faults(kind: str, new: Object, live: Object | None) -> Iterator[tuple[str, str]]:
    """(field, what is wrong with it)."""
    yield from _labels(new["metadata"])
    spec = new.get("spec", {})
    if kind in ("Deployment", "ReplicaSet"):
        yield from _workload(spec, live)
    if kind == "HorizontalPodAutoscaler":
        yield from autoscaling.faults(spec)
    if kind == "Job":
        yield from _job(spec, live)
    if kind in ("ConfigMap", "Secret") and live and live.get("immutable"):
        for part in ("data", "binaryData", "immutable"):
            if new.get(part) != live.get(part):
                yield part, "Forbidden: field is immutable when `immutable` is set"
    if kind == "Service":
        for number, port in enumerate(spec.get("ports", [])):
            if not 0 < port.get("port", 0) < 65536:
                yield f"spec.ports[{number}].port", f"Invalid value: {port.get('port')}"
            if len(spec["ports"]) > 1 and not port.get("name"):
                yield f"spec.ports[{number}].name", "Required value"
        if len(new["metadata"]["name"]) > 63:
            yield "metadata.name", "Invalid value: must be no more than 63 characters"


def _labels(metadata: Object) -> Iterator[tuple[str, str]]:
    for name, value in (metadata.get("labels") or {}).items():
        if len(value) > 63 or not value.replace("-", "a").replace("_", "a").replace(".", "a").isalnum():
            yield "metadata.labels", f"Invalid value: {value!r}: of {name}"


def _workload(spec: Object, live: Object | None) -> Iterator[tuple[str, str]]:
    selector = spec.get("selector", {}).get("matchLabels", {})
    labels = spec.get("template", {}).get("metadata", {}).get("labels", {})
    if not selector or any(labels.get(name) != value for name, value in selector.items()):
        yield "spec.template.metadata.labels", "Invalid value: `selector` does not match template `labels`"
    if live and live["spec"]["selector"] != spec.get("selector"):
        yield "spec.selector", "Invalid value: field is immutable"
    if spec.get("replicas", 0) < 0:
        yield "spec.replicas", "Invalid value: must be greater than or equal to 0"
    if "progressDeadlineSeconds" in spec and spec["progressDeadlineSeconds"] <= spec.get(
        "minReadySeconds", 0
    ):
        yield "spec.progressDeadlineSeconds", "Invalid value: must be greater than minReadySeconds"
    yield from _containers(spec.get("template", {}).get("spec", {}))
    yield from volumes.faults(spec.get("template", {}).get("spec", {}))


def _job(spec: Object, live: Object | None) -> Iterator[tuple[str, str]]:
    pod = spec.get("template", {}).get("spec", {})
    if pod.get("restartPolicy") != "Never":  # OnFailure is real, and not done here
        yield "spec.template.spec.restartPolicy", 'Required value: valid values: "Never"'
    if (spec["parallelism"], spec["completions"], spec["backoffLimit"]) != (1, 1, 0):
        yield "spec", "the fake cluster runs one pod of a Job, once"
    if live and live["spec"]["template"] != spec.get("template"):
        yield "spec.template", "Invalid value: field is immutable"
    yield from _containers(pod)
    yield from volumes.faults(pod, ("image", "emptyDir"))


def _containers(spec: Object) -> Iterator[tuple[str, str]]:
    where = "spec.template.spec.containers"
    if not spec.get("containers"):
        yield where, "Required value"
    for number, container in enumerate(spec.get("containers", [])):
        if not container.get("image"):
            yield f"{where}[{number}].image", "Required value"
        for name in ("readinessProbe", "livenessProbe", "startupProbe"):
            yield from _probe(container.get(name), f"{where}[{number}].{name}")


def _probe(probe: Any, where: str) -> Iterator[tuple[str, str]]:
    if probe is None:
        return
    if sum(way in probe for way in ("httpGet", "tcpSocket", "grpc", "exec")) != 1:
        yield where, "Required value: must specify one handler type"
    for name in ("periodSeconds", "timeoutSeconds", "failureThreshold", "successThreshold"):
        if name in probe and probe[name] < 1:
            yield f"{where}.{name}", "Invalid value: must be greater than 0"
