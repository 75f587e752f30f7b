"""A service in a cluster is an account of its own, or one that was given to it, and nobody else's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from penstock.adapters._kubernetes import Access
from penstock.adapters.kubernetes import Kubernetes, Settings
from penstock.core.fence import Fence
from penstock.core.workload import Workload
from penstock.errors import Conflict
from penstock.testing.kubernetes import FakeCluster

FENCE = Fence("web/production", 1, "key")
ARTIFACT = "sha256:" + "1" * 64
WORKLOAD = Workload("web", "production", "web-1", ARTIFACT, ("serve",))
OURS = "app.kubernetes.io/managed-by"


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    async with FakeCluster() as cluster:
        yield cluster


@pytest.fixture
async def platform(cluster: FakeCluster, tmp_path: Path) -> AsyncIterator[Kubernetes]:
    platform = Kubernetes(Settings("registry.test/shop"), Access.of_files([cluster.kubeconfig(tmp_path)]))
    yield platform
    await platform.close()


def account(cluster: FakeCluster, labels: dict[str, str]) -> None:
    """As somebody else makes it."""
    kind = cluster.api.named("serviceaccounts")
    assert kind is not None
    metadata = {"name": "web", "namespace": "default", "labels": labels}
    value = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
    cluster.api.create(kind, value, manager="kubectl")


async def test_a_service_does_not_become_an_account_that_somebody_else_made(
    cluster: FakeCluster, platform: Kubernetes
) -> None:
    """Its rights would be there for whoever calls a service so."""
    account(cluster, {})
    with pytest.raises(Conflict, match="a ServiceAccount web that is not ours") as caught:
        await platform.place(WORKLOAD, fence=FENCE)
    assert f"kubectl label serviceaccount web {OURS}=penstock" in caught.value.next_move
    assert cluster.api.storage.get("services", "default", "web-1") is None
    placed = cluster.api.storage.get("deployments.apps", "default", "web-1")
    assert placed is not None
    assert placed["spec"]["paused"], "it gets no pods"


async def test_a_service_may_be_an_account_that_was_given_to_it(
    cluster: FakeCluster, platform: Kubernetes
) -> None:
    account(cluster, {OURS: "penstock"})
    await platform.place(WORKLOAD, fence=FENCE)
    assert cluster.api.storage.get("services", "default", "web-1") is not None
