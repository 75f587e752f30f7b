"""The number of copies by itself: the ``scale`` subresource of Deployments, as people and autoscalers write.

Called by `server`.
"""

from __future__ import annotations

from penstock.testing.kubernetes.api import Api
from penstock.testing.kubernetes.kinds import DEPLOYMENTS, FakeKind, Object
from penstock.testing.kubernetes.problems import Problem
from penstock.testing.kubernetes.shapes import BUILT_IN, complaints

WHAT = {"apiVersion": "autoscaling/v1", "kind": "Scale"}


def check(kind: FakeKind, verb: str, path: str) -> None:
    """`Problem` for what has none, or what is not done with it here."""
    if kind is not DEPLOYMENTS:
        raise Problem(404, "the server could not find the requested resource")
    if verb not in ("get", "update"):
        raise Problem(405, f"{verb} of {path} is not served")


def read(owner: Object) -> Object:
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    return {
        **WHAT,
        "metadata": {name: owner["metadata"][name] for name in kept},
        "spec": {"replicas": owner["spec"]["replicas"]},
        "status": {"replicas": owner.get("status", {}).get("replicas", 0)},
    }


def write(api: Api, kind: FakeKind, wanted: Object, *, manager: str, strict: bool) -> Object:
    """The number is *manager*'s from then on, as after any write that is no apply."""
    if {name: wanted.get(name) for name in WHAT} != WHAT:
        raise Problem(400, "the object is no autoscaling/v1 Scale")
    if strict and (found := list(complaints(wanted, BUILT_IN["Scale"]))):
        raise Problem(400, "strict decoding error: " + ", ".join(found))
    metadata = wanted["metadata"]
    change = {
        "metadata": {"resourceVersion": metadata.get("resourceVersion", "")},
        "spec": {"replicas": wanted.get("spec", {}).get("replicas", 0)},
    }
    return read(api.patch(kind, metadata["namespace"], metadata["name"], change, manager=manager))
