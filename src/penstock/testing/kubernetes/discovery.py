"""What is served: the answers by which general clients (kubectl, Helm) find out which kinds there are. Pure.

Called by `server`. Penstock's own client asks for none of this.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from penstock.testing.kubernetes.kinds import FakeKind

Object = dict[str, Any]
#: Clients choose by it how they write: this one knows server-side apply and strict validation.
VERSION = {"major": "1", "minor": "36", "gitVersion": "v1.36.0"}
VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
#: With this parameter, what is wrong with an object is told when it is written.
STRICT = {"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}


def answer(served: Sequence[FakeKind], path: str) -> Object | None:
    """None: it is no such question, or about nothing that is served."""
    match path.strip("/").split("/"):
        case ["version"]:
            return dict(VERSION)
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        case ["apis"]:
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": _groups(served)}
        case ["openapi", "v3"]:
            prefixes = sorted({_prefix(kind) for kind in served})
            return {"paths": {prefix: {"serverRelativeURL": f"/openapi/v3/{prefix}"} for prefix in prefixes}}
        case ["openapi", "v3", *prefix]:
            return _openapi([kind for kind in served if _prefix(kind) == "/".join(prefix)])
        case ["api" | "apis", *_] as prefix:
            return _resources([kind for kind in served if _prefix(kind) == "/".join(prefix)])
    return None


def _prefix(kind: FakeKind) -> str:
    """Of the paths of its version."""
    return f"apis/{kind.api_version}" if kind.group else f"api/{kind.api_version}"


def _groups(served: Sequence[FakeKind]) -> list[Object]:
    found = []
    for group, version in {kind.group: kind.version for kind in served if kind.group}.items():
        only = {"groupVersion": f"{group}/{version}", "version": version}
        found.append({"name": group, "versions": [only], "preferredVersion": only})
    return found


def _resources(kinds: Sequence[FakeKind]) -> Object | None:
    if not kinds:
        return None
    found = [
        {
            "name": kind.plural,
            "singularName": kind.kind.lower(),
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": VERBS,
        }
        for kind in kinds
    ]
    version = kinds[0].api_version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": found}


def _openapi(kinds: Sequence[FakeKind]) -> Object | None:
    """How each is patched, and nothing of what it is."""
    if not kinds:
        return None
    paths = {}
    for kind in kinds:
        where = "namespaces/{namespace}/" if kind.namespaced else ""
        meant = {"group": kind.group, "version": kind.version, "kind": kind.kind}
        patch = {"parameters": [STRICT], "x-kubernetes-group-version-kind": meant, "responses": {}}
        paths[f"/{_prefix(kind)}/{where}{kind.plural}/{{name}}"] = {"patch": patch}
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": VERSION["gitVersion"]},
        "paths": paths,
    }
