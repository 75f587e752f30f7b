"""What a strict API server knows of the kinds that we write: which fields there are, and of what type. Pure.

Called by `api` for every write that asks for strict validation. A subset by hand: a field that is real and
missing here is refused too, so that nobody relies on what was never looked at. ``docs/guides/kubernetes.md``
says which released schemas the manifests are checked against besides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

#: A type; a tuple of types; a list of one shape; names and shapes; ``{"*": shape}`` for any name; None:
#: anything.
Shape = Any

ANY: Shape = None
TEXTS = {"*": str}
INT_OR_TEXT = (int, str)

METADATA: Shape = {
    "name": str,
    "generateName": str,
    "namespace": str,
    "labels": TEXTS,
    "annotations": TEXTS,
    "resourceVersion": str,
    "uid": str,
    "generation": int,
    "creationTimestamp": (str, type(None)),
    "deletionTimestamp": str,
    "deletionGracePeriodSeconds": int,
    "finalizers": [str],
    "managedFields": ANY,
    "ownerReferences": [
        {
            "apiVersion": str,
            "kind": str,
            "name": str,
            "uid": str,
            "controller": bool,
            "blockOwnerDeletion": bool,
        }
    ],
}

SELECTOR: Shape = {
    "matchLabels": TEXTS,
    "matchExpressions": [{"key": str, "operator": str, "values": [str]}],
}

PROBE: Shape = {
    "httpGet": {"path": str, "port": INT_OR_TEXT, "scheme": str, "host": str},
    "tcpSocket": {"port": INT_OR_TEXT, "host": str},
    "grpc": {"port": int, "service": str},
    "exec": {"command": [str]},
    "initialDelaySeconds": int,
    "periodSeconds": int,
    "timeoutSeconds": int,
    "successThreshold": int,
    "failureThreshold": int,
    "terminationGracePeriodSeconds": int,
}

KEY_OF: Shape = {"name": str, "key": str, "optional": bool}

CONTAINER: Shape = {
    "name": str,
    "image": str,
    "imagePullPolicy": str,
    "command": [str],
    "args": [str],
    "workingDir": str,
    "ports": [{"name": str, "containerPort": int, "protocol": str}],
    "env": [
        {
            "name": str,
            "value": str,
            "valueFrom": {
                "configMapKeyRef": KEY_OF,
                "secretKeyRef": KEY_OF,
                "fieldRef": {"fieldPath": str, "apiVersion": str},
            },
        }
    ],
    "resources": {"limits": {"*": INT_OR_TEXT}, "requests": {"*": INT_OR_TEXT}},
    "readinessProbe": PROBE,
    "livenessProbe": PROBE,
    "startupProbe": PROBE,
    "securityContext": {
        "allowPrivilegeEscalation": bool,
        "capabilities": {"drop": [str], "add": [str]},
        "privileged": bool,
        "readOnlyRootFilesystem": bool,
        "runAsNonRoot": bool,
        "runAsUser": int,
        "runAsGroup": int,
        "seccompProfile": {"type": str, "localhostProfile": str},
    },
    "lifecycle": {"preStop": {"sleep": {"seconds": int}, "exec": {"command": [str]}}},
    "volumeMounts": [{"name": str, "mountPath": str, "readOnly": bool, "subPath": str}],
    "terminationMessagePolicy": str,
    "terminationMessagePath": str,
}

POD_SPEC: Shape = {
    "containers": [CONTAINER],
    "initContainers": [CONTAINER],
    "serviceAccountName": str,
    "automountServiceAccountToken": bool,
    "enableServiceLinks": bool,
    "restartPolicy": str,
    "terminationGracePeriodSeconds": int,
    "securityContext": {
        "runAsNonRoot": bool,
        "runAsUser": int,
        "runAsGroup": int,
        "fsGroup": int,
        "fsGroupChangePolicy": str,
        "seccompProfile": {"type": str, "localhostProfile": str},
    },
    "imagePullSecrets": [{"name": str}],
    "nodeSelector": TEXTS,
    "nodeName": str,
    "volumes": [
        {
            "name": str,
            "image": {"reference": str, "pullPolicy": str},
            "configMap": {"name": str, "defaultMode": int, "optional": bool, "items": ANY},
            "secret": {"secretName": str, "defaultMode": int, "optional": bool, "items": ANY},
            "emptyDir": {"medium": str, "sizeLimit": ANY},
            "persistentVolumeClaim": {"claimName": str, "readOnly": bool},
        }
    ],
    "tolerations": ANY,
    "affinity": ANY,
    "topologySpreadConstraints": [
        {"maxSkew": int, "topologyKey": str, "whenUnsatisfiable": str, "labelSelector": SELECTOR}
    ],
    "readinessGates": [{"conditionType": str}],
    "dnsPolicy": str,
    "schedulerName": str,
    "priorityClassName": str,
}

#: Of an autoscaler: what a measure is to be, and how fast it may go.
TARGET: Shape = {"type": str, "averageUtilization": int, "averageValue": INT_OR_TEXT, "value": INT_OR_TEXT}
RULES: Shape = {
    "stabilizationWindowSeconds": int,
    "selectPolicy": str,
    "policies": [{"type": str, "value": int, "periodSeconds": int}],
    "tolerance": INT_OR_TEXT,
}

TEMPLATE: Shape = {"metadata": METADATA, "spec": POD_SPEC}

_SPECS: Mapping[str, Shape] = {
    "Deployment": {
        "replicas": int,
        "selector": SELECTOR,
        "template": TEMPLATE,
        "strategy": {
            "type": str,
            "rollingUpdate": {"maxSurge": INT_OR_TEXT, "maxUnavailable": INT_OR_TEXT},
        },
        "minReadySeconds": int,
        "revisionHistoryLimit": int,
        "progressDeadlineSeconds": int,
        "paused": bool,
    },
    "Job": {
        "backoffLimit": int,
        "activeDeadlineSeconds": int,
        "ttlSecondsAfterFinished": int,
        "parallelism": int,
        "completions": int,
        "template": TEMPLATE,
    },
    "NetworkPolicy": {"podSelector": SELECTOR, "policyTypes": [str], "ingress": ANY, "egress": ANY},
    "ReplicaSet": {"replicas": int, "selector": SELECTOR, "template": TEMPLATE, "minReadySeconds": int},
    "Pod": POD_SPEC,
    "Service": {
        "type": str,
        "selector": TEXTS,
        "clusterIP": str,
        "clusterIPs": [str],
        "ports": [
            {
                "name": str,
                "port": int,
                "protocol": str,
                "targetPort": INT_OR_TEXT,
                "appProtocol": str,
            }
        ],
        "publishNotReadyAddresses": bool,
        "internalTrafficPolicy": str,
        "sessionAffinity": str,
        "ipFamilyPolicy": str,
        "ipFamilies": [str],
        "trafficDistribution": str,
        "externalName": str,
    },
    "PodDisruptionBudget": {
        "minAvailable": INT_OR_TEXT,
        "maxUnavailable": INT_OR_TEXT,
        "selector": SELECTOR,
        "unhealthyPodEvictionPolicy": str,
    },
    "PersistentVolumeClaim": {
        "accessModes": [str],
        "storageClassName": str,
        "volumeMode": str,
        "resources": {"requests": {"*": INT_OR_TEXT}},
    },
    "HorizontalPodAutoscaler": {
        "scaleTargetRef": {"apiVersion": str, "kind": str, "name": str},
        "minReplicas": int,
        "maxReplicas": int,
        "metrics": [
            {
                "type": str,
                "resource": {"name": str, "target": TARGET},
                "containerResource": {"name": str, "container": str, "target": TARGET},
            }
        ],
        "behavior": {"scaleUp": RULES, "scaleDown": RULES},
    },
    "Scale": {"replicas": int},
    "ResourceQuota": {"hard": {"*": INT_OR_TEXT}},
}

_HEAD: Shape = {"apiVersion": str, "kind": str, "metadata": METADATA}

BUILT_IN: Mapping[str, Shape] = {
    **{kind: {**_HEAD, "spec": spec, "status": ANY} for kind, spec in _SPECS.items()},
    "ConfigMap": {**_HEAD, "data": TEXTS, "binaryData": TEXTS, "immutable": bool},
    "Role": {
        **_HEAD,
        "rules": [{"apiGroups": [str], "resources": [str], "resourceNames": [str], "verbs": [str]}],
    },
    "RoleBinding": {
        **_HEAD,
        "roleRef": {"apiGroup": str, "kind": str, "name": str},
        "subjects": [{"apiGroup": str, "kind": str, "name": str, "namespace": str}],
    },
    "Secret": {**_HEAD, "data": TEXTS, "stringData": TEXTS, "type": str, "immutable": bool},
    "ValidatingWebhookConfiguration": {
        **_HEAD,
        "webhooks": [
            {
                "name": str,
                "clientConfig": {
                    "url": str,
                    "caBundle": str,
                    "service": {"namespace": str, "name": str, "path": str, "port": int},
                },
                "rules": [
                    {
                        "operations": [str],
                        "apiGroups": [str],
                        "apiVersions": [str],
                        "resources": [str],
                        "scope": str,
                    }
                ],
                "failurePolicy": str,
                "matchPolicy": str,
                "namespaceSelector": SELECTOR,
                "objectSelector": SELECTOR,
                "matchConditions": ANY,
                "sideEffects": str,
                "timeoutSeconds": int,
                "admissionReviewVersions": [str],
            }
        ],
    },
    "ServiceAccount": {
        **_HEAD,
        "automountServiceAccountToken": bool,
        "imagePullSecrets": [{"name": str}],
        "secrets": ANY,
    },
}


def complaints(value: Any, shape: Shape, path: str = "") -> Iterator[str]:
    """What strict decoding says against *value*, one sentence for each field."""
    if shape is None:
        return
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            yield f'field "{path}": expected an object, found {type(value).__name__}'
            return
        for name, inner in value.items():
            where = f"{path}.{name}" if path else str(name)
            known = shape.get(name, shape.get("*", _UNKNOWN))
            if known is _UNKNOWN:
                yield f'unknown field "{where}"'
            else:
                yield from complaints(inner, known, where)
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield f'field "{path}": expected a list, found {type(value).__name__}'
            return
        for number, inner in enumerate(value):
            yield from complaints(inner, shape[0], f"{path}[{number}]")
    elif not isinstance(value, shape) or (isinstance(value, bool) and shape is not bool):
        yield f'field "{path}": {value!r} is of the wrong type'


_UNKNOWN = object()
