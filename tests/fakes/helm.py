"""Our chart as real Helm renders it, installs it and complains of it; in this process, without a cluster.

Helm comes as a library, which has no wheel for every system: a test that needs it is skipped where it is not,
but never in CI on Linux.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakes import kustomize

Object = dict[str, Any]
ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy/kubernetes"
CHART = ROOT / "deploy/helm/penstock"
DIGEST = "sha256:" + "1" * 64
INSTALL = "make .venv/.helm, on Linux (x86-64)"


def helm() -> Any:
    """The library."""
    try:
        import helm_python
    except ImportError as error:
        if os.environ.get("CI") == "true" and sys.platform == "linux":
            raise
        pytest.skip(f"no Helm here ({error}); next: {INSTALL}")
    return helm_python


class Chart:
    """The chart in a folder or an archive, as the release `penstock` in the namespace of that name."""

    def __init__(self, path: Path = CHART) -> None:
        self.loaded = helm().Chart.load(path)

    def texts(self, values: Object, name: str = "penstock") -> dict[str, str]:
        """By the names of its templates."""
        made: dict[str, str] = self.loaded.render(values, name=name, namespace="penstock")
        return {Path(path).name: text for path, text in made.items()}

    def objects(self, values: Object, name: str = "penstock") -> list[Object]:
        texts = self.texts(values, name)
        return [one for file, text in texts.items() if file != "NOTES.txt" for one in parsed(text)]

    def complaint(self, values: Object) -> str:
        """What Helm says of values that are none."""
        with pytest.raises(helm().HelmError) as raised:
            self.loaded.render(values, name="penstock", namespace="penstock")
        return str(raised.value)


def parsed(text: str) -> list[Object]:
    return [one for one in yaml.load_all(text, yaml.CSafeLoader) if one]


def merged(values: Object, *more: Object) -> Object:
    """As Helm puts values over one another."""
    found = dict(values)
    for given in more:
        for name, value in given.items():
            both = isinstance(value, dict) and isinstance(found.get(name), dict)
            found[name] = merged(found[name], value) if both else value
    return found


def of(kind: str, objects: list[Object]) -> list[Object]:
    return [item for item in objects if item["kind"] == kind]


def one(kind: str, objects: list[Object]) -> Object:
    (found,) = (item for item in objects if item["kind"] == kind)
    return found


def cluster_of(objects: list[Object]) -> Object:
    return dict(yaml.safe_load(one("ConfigMap", objects)["data"]["cluster.yaml"]))


def granted(objects: list[Object]) -> dict[str, list[Object]]:
    """What the account may do, by namespace."""
    roles = {(r["metadata"]["namespace"], r["metadata"]["name"]): r["rules"] for r in of("Role", objects)}
    (pod,) = (item["spec"]["template"]["spec"] for item in of("Deployment", objects))
    account = {"kind": "ServiceAccount", "name": pod["serviceAccountName"], "namespace": "penstock"}
    found: dict[str, list[Object]] = {}
    for binding in of("RoleBinding", objects):
        assert binding["subjects"] == [account]
        assert binding["roleRef"]["kind"] == "Role"
        where = binding["metadata"]["namespace"]
        found.setdefault(where, []).extend(roles.pop((where, binding["roleRef"]["name"])))
    assert roles == {}, "each is bound"
    return found


#: The least: what has no default, as the kustomization has it.
VALUES: Object = {
    "image": {"repository": "registry.example/penstock"},
    "cluster": cluster_of(kustomize.rendered(DEPLOY)),
}
#: What may be said besides, in the cluster and for admission.
STEPS = {"image": f"registry.example/python@{DIGEST}", "memory_mb": 2000000, "cpus": 0.5}
ADMISSION: Object = {"admission": {"enabled": True}}
