"""What `kubectl kustomize` makes of our kustomizations: as much of it as they use, and not more.

Used by tests, which must run where there is no kubectl; one of them compares the two where there is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
KNOWN = {"apiVersion", "kind", "namespace", "resources", "components", "images", "patches"}
#: What has no namespace.
GLOBAL = ("Namespace", "ValidatingWebhookConfiguration")


def rendered(folder: Path, *, without: tuple[str, ...] = (), also: tuple[str, ...] = ()) -> list[Object]:
    """The objects of a kustomization, those of its components too: but for those *without*, and *also* some
    that it does not list."""
    return _rendered(folder, [], without, also)


def _rendered(
    folder: Path, before: list[Object], without: tuple[str, ...] = (), also: tuple[str, ...] = ()
) -> list[Object]:
    given = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(given) <= KNOWN, set(given) - KNOWN
    found = list(before)
    for name in given.get("resources", []):
        path = folder / name
        found += rendered(path) if path.is_dir() else list(yaml.safe_load_all(path.read_text()))
    for name in (*given.get("components", []), *also):
        if name not in without:
            found = _rendered(folder / name, found)
    for patch in given.get("patches", []):
        (target,) = (one for one in found if _is(one, patch["target"]))
        for step in yaml.safe_load((folder / patch["path"]).read_text()):
            _change(target, step)
    for one in found:
        if "namespace" in given and one["kind"] not in GLOBAL:
            one["metadata"]["namespace"] = given["namespace"]
        for container in _containers(one):
            for image in given.get("images", []):
                if container["image"] == image["name"]:
                    container["image"] = f"{image['newName']}:{image['newTag']}"
    return found


def _is(one: Object, target: Object) -> bool:
    return (one["kind"], one["metadata"]["name"]) == (target["kind"], target["name"])


def _change(target: Any, step: Object) -> None:
    assert step["op"] in ("add", "replace")
    *way, last = step["path"].strip("/").split("/")
    for part in way:
        target = target[int(part) if isinstance(target, list) else part]
    if isinstance(target, list):
        assert (step["op"], last) == ("add", "-")
        target.append(step["value"])
    else:
        assert (last in target) == (step["op"] == "replace")
        target[last] = step["value"]


def _containers(one: Object) -> list[Object]:
    return list(one["spec"]["template"]["spec"]["containers"]) if one["kind"] == "Deployment" else []
