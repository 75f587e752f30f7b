"""Every manifest that we write is valid under strict validation with the schemas of Kubernetes 1.36."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from penstock.adapters._kubernetes import Object
from penstock.adapters.kubernetes import Settings, manifests
from penstock.core.fence import Fence
from penstock.core.workload import NO_LIMITS, PROCESS_LIVES, Limits, Liveness, Workload
from penstock.testing.kubernetes.shapes import BUILT_IN, complaints

DEPLOY = Path(__file__).parents[2] / "deploy"
FULL = Workload(
    service="web",
    environment="production",
    release="web-1",
    artifact="sha256:" + "1" * 64,
    command=("python3", "/app/program.py"),
    env={"COLOUR": "blue", "TOKEN": "sesame-open"},
    secrets=("sesame-open",),
    calls=("price-list",),
    health_path="/health",
    liveness=Liveness("/live", every=0.1, timeout=0.5, failures=2),
    drain_seconds=0.5,
    limits=Limits(memory_mb=200, cpus=0.3, open_files=256),
)
BARE = Workload(service="web", environment="production", release="web-1", artifact=FULL.artifact, command=())
GRPC = replace(FULL, protocol="grpc", limits=NO_LIMITS, liveness=PROCESS_LIVES)


def of(workload: Workload) -> Iterator[Object]:
    """Each with what the client adds: what it is."""
    settings = Settings("registry.test/shop", pull_secrets=("registry",))
    owner = manifests.deployment(
        workload, settings.image(workload), settings, "shop", Fence("web/production", 7, "key")
    )
    yield {"apiVersion": "apps/v1", "kind": "Deployment", **owner}
    yield {"apiVersion": "v1", "kind": "ServiceAccount", **manifests.account(workload, "shop")}
    owner["metadata"]["uid"] = "00000000-0000-4000-8000-000000000001"
    for kind, value in manifests.children(workload, owner):
        yield {"apiVersion": kind.api_version, "kind": kind.name, **value}


def valid(value: Object) -> None:
    kubernetes_validate.validate(value, "1.36", strict=True)


@pytest.mark.parametrize("workload", [FULL, BARE, GRPC], ids=["full", "bare", "grpc"])
def test_what_a_release_is_made_of_is_valid(workload: Workload) -> None:
    kinds = []
    for value in of(workload):
        valid(value)
        assert list(complaints(value, BUILT_IN[value["kind"]])) == [], "the fake cluster is no stricter"
        kinds.append(value["kind"])
    secret = ["Secret"] if workload.secrets else []
    assert kinds == [
        "Deployment",
        "ServiceAccount",
        "Service",
        "PodDisruptionBudget",
        "ConfigMap",
        *secret,
    ]


def test_what_is_to_be_applied_by_hand_is_valid() -> None:
    for file in ("rbac.yaml", "binding.yaml"):
        for document in yaml.safe_load_all((DEPLOY / "kubernetes" / file).read_text()):
            valid(document)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "replica"), 1),
        (("spec", "template", "spec", "containers", 0, "imagee"), "x"),
        (("spec", "replicas"), "two"),
        (("spec", "template", "spec", "containers", 0, "ports", 0, "containerPort"), "http"),
    ],
)
def test_what_is_not_valid_is_found_by_both(path: tuple[str | int, ...], value: object) -> None:
    wrong = copy.deepcopy(next(of(FULL)))
    at = wrong
    for part in path[:-1]:
        at = at[part]  # type: ignore[index]
    at[path[-1]] = value  # type: ignore[index]
    with pytest.raises(kubernetes_validate.ValidationError):
        valid(wrong)
    assert list(complaints(wrong, BUILT_IN["Deployment"]))


def test_a_secret_is_in_the_secret_alone() -> None:
    for value in of(FULL):
        assert value["kind"] == "Secret" or "sesame" not in str(value)


def test_what_the_platform_says_wins_over_what_was_given() -> None:
    named = replace(FULL, env={"HOST": "example.org", "PORT": "1", "PRICE_LIST_URL": "x", "COLOUR": "red"})
    (container,) = next(of(named))["spec"]["template"]["spec"]["containers"]
    names = [entry["name"] for entry in container["env"]]
    assert sorted(names) == ["COLOUR", "HOST", "PORT", "PRICE_LIST_URL"]
    assert {"name": "PORT", "value": "8080"} in container["env"]
