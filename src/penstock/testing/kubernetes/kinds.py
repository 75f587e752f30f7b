"""The kinds that the fake cluster serves. More can be added to one cluster with `FakeCluster.serve`. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.testing.kubernetes.shapes import BUILT_IN, Shape

Object = dict[str, Any]

#: Lists of the built-in kinds whose elements have a name: the API merges them, instead of replacing them
#: whole. By the last field of their path; ``*ports`` are told apart by what holds them.
MERGED: Mapping[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "imagePullSecrets": ("name",),
    "conditions": ("type",),
    "ownerReferences": ("uid",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "containers.ports": ("containerPort", "protocol"),
    "spec.ports": ("port", "protocol"),
}


def _fine(_: Object) -> Iterator[tuple[str, str]]:
    return iter(())


@dataclass(frozen=True)
class FakeKind:
    """*shape* is what strict validation knows (None: any field). *merged* as `MERGED`, for server-side apply:
    a list that is not named is replaced whole. *status* says whether it has that subresource; without
    *namespaced*, there is one for the cluster. *faults* gives
    (field, what is wrong with it) for values that its schema refuses."""

    group: str
    version: str
    plural: str
    kind: str
    shape: Shape | None = None
    merged: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    status: bool = True
    namespaced: bool = True
    faults: Callable[[Object], Iterator[tuple[str, str]]] = _fine

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def full(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def keys_of(self, path: tuple[str, ...]) -> tuple[str, ...]:
        """What tells apart the elements of the list at *path* (names of fields only); () if it is one
        value."""
        return self.merged.get(".".join(path[-2:])) or self.merged.get(path[-1] if path else "", ())


def _built_in(group: str, version: str, plural: str, kind: str, *, status: bool = False) -> FakeKind:
    return FakeKind(group, version, plural, kind, BUILT_IN.get(kind), MERGED, status)


PODS = _built_in("", "v1", "pods", "Pod", status=True)
EVENTS = _built_in("", "v1", "events", "Event")
SERVICES = _built_in("", "v1", "services", "Service", status=True)
QUOTAS = _built_in("", "v1", "resourcequotas", "ResourceQuota", status=True)
DEPLOYMENTS = _built_in("apps", "v1", "deployments", "Deployment", status=True)
JOBS = _built_in("batch", "v1", "jobs", "Job", status=True)
REPLICA_SETS = _built_in("apps", "v1", "replicasets", "ReplicaSet", status=True)
AUTOSCALERS = _built_in(
    "autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", status=True
)
NETWORK_POLICIES = _built_in("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
SLICES = _built_in("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")


def _webhooks_at_fault(value: Object) -> Iterator[tuple[str, str]]:
    """What a webhook may not leave out, and what is not done here."""
    for number, hook in enumerate(value.get("webhooks", [])):
        where = f"webhooks[{number}]"
        if hook.get("sideEffects") not in ("None", "NoneOnDryRun"):
            yield f"{where}.sideEffects", "must be None or NoneOnDryRun"
        if "v1" not in hook.get("admissionReviewVersions", []):
            yield f"{where}.admissionReviewVersions", "v1 must be among them"
        if ("url" in hook["clientConfig"]) == ("service" in hook["clientConfig"]):
            yield f"{where}.clientConfig", "exactly one of url or service is required"
        if not str(hook["clientConfig"].get("url", "https://")).startswith("https://"):
            yield f"{where}.clientConfig.url", "'https' is the only allowed URL scheme"
        for name in ("objectSelector", "matchConditions"):
            if hook.get(name):
                yield f"{where}.{name}", "the fake cluster does not do this"


WEBHOOKS = FakeKind(
    "admissionregistration.k8s.io",
    "v1",
    "validatingwebhookconfigurations",
    "ValidatingWebhookConfiguration",
    BUILT_IN["ValidatingWebhookConfiguration"],
    {"webhooks": ("name",)},
    status=False,
    namespaced=False,
    faults=_webhooks_at_fault,
)

SERVED = (
    WEBHOOKS,
    PODS,
    EVENTS,
    SERVICES,
    QUOTAS,
    DEPLOYMENTS,
    JOBS,
    NETWORK_POLICIES,
    REPLICA_SETS,
    SLICES,
    _built_in("", "v1", "configmaps", "ConfigMap"),
    _built_in("", "v1", "secrets", "Secret"),
    _built_in("", "v1", "serviceaccounts", "ServiceAccount"),
    _built_in("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", status=True),
    AUTOSCALERS,
    _built_in("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", status=True),
    _built_in("rbac.authorization.k8s.io", "v1", "roles", "Role"),
    _built_in("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"),
)
