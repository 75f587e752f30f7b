"""What is served: the answers by which general clients (kubectl, Helm) find out which kinds there are. Pure.

Called by `server`. Penstock's own client asks for none of this. A version is claimed because such clients
choose by it how they write.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from penstock.testing.kubernetes.kinds import FakeKind

Object = dict[str, Any]
VERSION = {"major": "1", "minor": "36", "gitVersion": "v1.36.0"}
VERBS = ("create", "delete", "get", "list", "patch", "update", "watch")


def answer(kinds: Iterable[FakeKind], path: str) -> Object | None:
    """None: it is no such question."""
    served = list(kinds)
    match path.strip("/").split("/"):
        case ["version"]:
            return dict(VERSION)
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        case ["apis"]:
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": _groups(served)}
        case ["openapi", "v3"]:
            every = sorted({_prefix(kind) for kind in served})
            return {"paths": {name: {"serverRelativeURL": f"/openapi/v3/{name}"} for name in every}}
        case ["openapi", "v3", *prefix]:
            return _openapi([kind for kind in served if _prefix(kind) == "/".join(prefix)])
        case ["api", version]:
            return _resources([kind for kind in served if kind.api_version == version], version)
        case ["apis", group, version]:
            full = f"{group}/{version}"
            return _resources([kind for kind in served if kind.api_version == full], full)
    return None


def _groups(served: list[FakeKind]) -> list[Object]:
    versions = {kind.group: kind.version for kind in served if kind.group}
    found = []
    for group, version in versions.items():
        only = {"groupVersion": f"{group}/{version}", "version": version}
        found.append({"name": group, "versions": [only], "preferredVersion": only})
    return found


def _resources(kinds: list[FakeKind], full: str) -> Object | None:
    if not kinds:
        return None
    found = []
    for kind in kinds:
        one = {"name": kind.plural, "singularName": kind.kind.lower(), "namespaced": kind.namespaced}
        found.append({**one, "kind": kind.kind, "verbs": list(VERBS)})
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": full, "resources": found}


def _prefix(kind: FakeKind) -> str:
    return f"apis/{kind.group}/{kind.version}" if kind.group else f"api/{kind.version}"


def _openapi(kinds: list[FakeKind]) -> Object:
    """That what is wrong with an object is told when it is written, and nothing of what that is."""
    paths = {}
    for kind in kinds:
        where = "namespaces/{namespace}/" if kind.namespaced else ""
        meant = {"group": kind.group, "version": kind.version, "kind": kind.kind}
        parameter = {"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}
        patch = {"parameters": [parameter], "x-kubernetes-group-version-kind": meant, "responses": {}}
        paths[f"/{_prefix(kind)}/{where}{kind.plural}/{{name}}"] = {"patch": patch}
    return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.36.0"}, "paths": paths}
