"""What a release is in the cluster: its objects, named by the release, all owned by its Deployment. Pure.

A release is known by the digest of its artifact and its environment data, so an object of that name never
holds something else: what may be immutable is. Called by `driver`. Removing the Deployment removes the rest,
so nothing is left behind and no finalizer is needed. Every field is one that a strict API server knows.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from penstock.adapters._kubernetes import Kind, Object, previews
from penstock.adapters._kubernetes.kinds import (
    AUTOSCALERS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    SECRETS,
    SERVICES,
)
from penstock.adapters.kubernetes import bounds
from penstock.adapters.kubernetes.bases import Pulled
from penstock.adapters.kubernetes.record import (
    ASKED,
    BASE,
    ENVIRONMENT,
    FENCE,
    MANAGED,
    RELEASE,
    SERVICE,
    WORKLOAD,
    Asked,
    kept,
    read_asked,
    read_workload,
)
from penstock.core.codec import encode
from penstock.core.fence import Fence
from penstock.core.traffic import HTTP2
from penstock.core.workload import Workload
from penstock.errors import Invalid

#: The only container of a pod, its port, and the port of the Service.
CONTAINER, PORT, SERVICE_PORT = "app", 8080, 80
#: Nobody's user and group: the images have none of their own, and root is not wanted.
NOBODY = 65532
#: A pod that is to end goes on for so long, until every proxy has heard that it gets nothing new.
LEAVE_SECONDS = 3
#: Pods of a node that is not heard of are started elsewhere after so long.
LOST_SECONDS = 60
#: Where the list of what must not be shown is kept, beside the secret variables.
MASKED = "penstock.masked"

LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Settings:
    """Where releases go. *images* is the prefix under which the registry has them already, by service:
    ``registry.example/shop`` + ``/catalog@sha256:…`` (where an `Images` puts them there, it says so).
    *neighbour* is where a callee is found, with ``{service}`` and ``{namespace}`` in it. *pull_secrets* are
    names of Secrets that are in the namespace already. *bases* are images with an interpreter, by ABI;
    without any, artifacts are run as they are."""

    images: str = ""
    namespace: str = ""
    neighbour: str = "{service}.{namespace}.svc:80"
    pull_secrets: tuple[str, ...] = field(default=())
    bases: Mapping[str, str] = field(default_factory=dict)

    def image(self, workload: Workload) -> str:
        if not self.images:
            move = "name a registry, or the prefix under which it has them"
            raise Invalid("nobody says where images are", where=workload.release, next_move=move)
        return f"{self.images.rstrip('/')}/{workload.service}@{workload.artifact}"

    def address(self, callee: str, workload: Workload, namespace: str) -> str:
        """Where *workload* finds a callee."""
        named = {"service": callee, "environment": workload.environment, "namespace": namespace}
        return self.neighbour.format(**named)


def check(workload: Workload) -> None:
    """`Invalid` if the cluster could not hold a release of this name."""
    for name in (workload.release, workload.service, *workload.calls):
        if not LABEL.fullmatch(name):
            raise Invalid(
                f"{name!r} cannot be the name of a Kubernetes Service",
                where=workload.release,
                next_move="use lower-case letters, digits and '-', beginning with a letter, 63 at most",
            )


def deployment(
    workload: Workload, pulled: Pulled, settings: Settings, namespace: str, fence: Fence
) -> Object:
    """Paused: what its copies need is made after it, because it is to own that. With no copies it would count
    as complete, and what never came up could not be told from what once served."""
    labels = _labels(workload)
    return {
        "metadata": {
            "name": workload.release,
            "namespace": namespace,
            "labels": labels,
            "annotations": {
                FENCE: str(fence.number),
                ASKED: kept(Asked(workload.begin_with or workload.replicas)),
                WORKLOAD: json.dumps(encode(replace(workload, env={}, secrets=()))),
                **({BASE: pulled.base} if pulled.base else {}),
            },
        },
        "spec": {
            "replicas": workload.begin_with or workload.replicas,
            "paused": True,
            "selector": {"matchLabels": {RELEASE: workload.release}},
            "progressDeadlineSeconds": max(1, math.ceil(workload.start_seconds)),
            "template": {
                "metadata": {"labels": labels},
                "spec": _pod(workload, pulled, settings, namespace),
            },
        },
    }


def children(workload: Workload, owner: Object) -> tuple[tuple[Kind, Object], ...]:
    """What belongs to the Deployment *owner*: it goes when that goes."""
    open_data, secret_data = _data(workload)
    metadata = _metadata(workload, owner)
    made: list[tuple[Kind, Object]] = [
        *((SERVICES, {"metadata": named, "spec": _service(workload)}) for named in _services(metadata)),
        (DISRUPTION_BUDGETS, {"spec": _budget(workload)}),
        (CONFIG_MAPS, {"immutable": True, "data": open_data}),
    ]
    if workload.secrets:
        made.append((SECRETS, {"immutable": True, "data": secret_data, "type": "Opaque"}))
    if scaler := autoscaler(owner):
        made.append((AUTOSCALERS, scaler))
    return tuple((kind, {"metadata": metadata, **value}) for kind, value in made)


def autoscaler(owner: Object) -> Object | None:
    """Who adds copies to the Deployment *owner*, as of what was asked last; None if nobody does."""
    workload = read_workload(owner)
    if workload.scaling.cpu is None:
        return None
    spec = bounds.autoscaler(workload, read_asked(owner).replicas, CONTAINER)
    return {"metadata": _metadata(workload, owner), "spec": spec}


def account(workload: Workload, namespace: str) -> Object:
    """Who the pods of a service are. It has no rights, and the pods no token for it."""
    labels = {MANAGED: "penstock", SERVICE: workload.service}
    metadata = {"name": workload.service, "namespace": namespace, "labels": labels}
    return {"metadata": metadata, "automountServiceAccountToken": False}


# --- parts -----------------------------------------------------------------------------------------------


def _labels(workload: Workload) -> dict[str, str]:
    return {
        MANAGED: "penstock",
        "app.kubernetes.io/name": workload.service,
        SERVICE: workload.service,
        ENVIRONMENT: workload.environment,
        RELEASE: workload.release,
    }


def _data(workload: Workload) -> tuple[dict[str, str], dict[str, str]]:
    """What many may read, and what not: a variable with a secret in it is one."""
    hidden = {n for n, value in workload.env.items() if any(s and s in value for s in workload.secrets)}
    plain = {name: value for name, value in sorted(workload.env.items()) if name not in hidden}
    secret = {name: _base64(value) for name, value in sorted(workload.env.items()) if name in hidden}
    return plain, {**secret, MASKED: _base64(json.dumps(workload.secrets))}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def masked_words(secret: Object) -> tuple[str, ...]:
    """What must not be shown, from the Secret of a release."""
    return tuple(json.loads(base64.b64decode(secret.get("data", {}).get(MASKED, "W10="))))


def _metadata(workload: Workload, owner: Object) -> Object:
    reference = {
        "apiVersion": DEPLOYMENTS.api_version,
        "kind": DEPLOYMENTS.name,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }
    namespace, labels = owner["metadata"]["namespace"], _labels(workload)
    return {
        "name": workload.release,
        "namespace": namespace,
        "labels": labels,
        "ownerReferences": [reference],
    }


def _pod(workload: Workload, pulled: Pulled, settings: Settings, namespace: str) -> Object:
    grace = LEAVE_SECONDS + max(1, math.ceil(workload.drain_seconds))
    pull = [{"name": name} for name in settings.pull_secrets]
    lost = [
        {
            "key": f"node.kubernetes.io/{trouble}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": LOST_SECONDS,
        }
        for trouble in ("not-ready", "unreachable")
    ]
    return {
        "serviceAccountName": workload.service,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": NOBODY,
            "runAsGroup": NOBODY,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "tolerations": lost,
        "containers": [_container(workload, pulled, settings, namespace)],
        **pulled.pod,
        **({"imagePullSecrets": pull} if pull else {}),
    }


def _container(workload: Workload, pulled: Pulled, settings: Settings, namespace: str) -> Object:
    liveness = workload.liveness
    probes: Object = {"readinessProbe": {**_way(workload, workload.health_path), "periodSeconds": 1}}
    if liveness.path:
        probes["livenessProbe"] = {
            **_way(workload, liveness.path),
            "periodSeconds": max(1, math.ceil(liveness.every)),
            "timeoutSeconds": max(1, math.ceil(liveness.timeout)),
            "failureThreshold": max(1, liveness.failures),
        }
        # It is asked whether it lives once it has come up, and may take its time until then.
        probes["startupProbe"] = {
            **_way(workload, workload.health_path),
            "periodSeconds": 1,
            "failureThreshold": max(1, math.ceil(workload.start_seconds)) + 5,
        }
    resources = _resources(workload)
    return {
        "name": CONTAINER,
        **pulled.container,
        "imagePullPolicy": "IfNotPresent",  # a digest never means something else
        "command": [_as_it_is(word) for word in workload.command],
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "env": _variables(workload, pulled, settings, namespace),
        "lifecycle": {"preStop": {"sleep": {"seconds": LEAVE_SECONDS}}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        **probes,
        **({"resources": resources} if resources else {}),
    }


def _way(workload: Workload, path: str) -> Object:
    """How it is asked. Of HTTP/2 a node knows nothing but gRPC's own health service, which not all have."""
    if path and workload.protocol not in HTTP2:
        return {"httpGet": {"path": path, "port": "http"}}
    return {"tcpSocket": {"port": "http"}}


def _variables(workload: Workload, pulled: Pulled, settings: Settings, namespace: str) -> list[Object]:
    """By name; what the platform says wins, as everywhere. What is mounted brings none of its own."""
    own = pulled.env if pulled.base else {}
    found: dict[str, Object] = {name: {"value": _as_it_is(value)} for name, value in own.items()}
    plain, secret = _data(workload)
    for reference, names in (("configMapKeyRef", plain), ("secretKeyRef", secret)):
        found |= {n: {"valueFrom": {reference: {"name": workload.release, "key": n}}} for n in names}
    found.pop(MASKED, None)
    for callee in workload.calls:
        name = callee.upper().replace("-", "_") + "_URL"
        found[name] = {"value": f"http://{settings.address(callee, workload, namespace)}"}
    found |= {"HOST": {"value": "0.0.0.0"}, "PORT": {"value": str(PORT)}}
    return [{"name": name, **source} for name, source in found.items()]


def _as_it_is(text: str) -> str:
    """Kubernetes puts a variable where it reads ``$(NAME)`` in a command or a value, and makes ``$$`` one
    ``$``; doubled, each ``$`` stays what it is (for a shell, say)."""
    return text.replace("$", "$$")


def _resources(workload: Workload) -> Object:
    limits: dict[str, str] = {}
    if workload.limits.memory_mb:
        limits["memory"] = f"{workload.limits.memory_mb}Mi"
    if workload.limits.cpus:
        limits["cpu"] = f"{math.ceil(workload.limits.cpus * 1000)}m"
    return {"limits": limits, "requests": limits} if limits else {}


def _service(workload: Workload) -> Object:
    port: Object = {"name": "http", "port": SERVICE_PORT, "targetPort": "http", "protocol": "TCP"}
    if workload.protocol in HTTP2:
        port["appProtocol"] = "kubernetes.io/h2c"
    return {"type": "ClusterIP", "selector": {RELEASE: workload.release}, "ports": [port]}


def _services(metadata: Object) -> list[Object]:
    """Whose they are: the one for previews first, and then the one for users, which says so. What proves that
    a release is ready is of the latter, so the former has not its label."""
    release = metadata["name"]
    apart = previews.service_of(release)
    if apart == release:
        return [metadata]
    labels = {name: value for name, value in metadata["labels"].items() if name != RELEASE}
    told = {"annotations": {previews.PREVIEWS: apart}}
    return [{**metadata, "name": apart, "labels": labels}, {**metadata, **told}]


def _budget(workload: Workload) -> Object:
    """One copy at a time may be moved; one that is broken anyhow keeps nobody from emptying a node."""
    return {
        "maxUnavailable": 1,
        "selector": {"matchLabels": {RELEASE: workload.release}},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
