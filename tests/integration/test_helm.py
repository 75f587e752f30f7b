"""Our chart, installed, upgraded and removed by real Helm in the fake cluster, which validates strictly.

Helm applies as a server takes it (server-side apply); its own notes are in memory, and not in the cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fakes.helm import ADMISSION, DIGEST, STEPS, VALUES, Chart, Object, helm, merged
from penstock.testing.kubernetes import Behaviour, FakeCluster
from penstock.testing.kubernetes.kinds import DEPLOYMENTS, PODS

REPOSITORY = VALUES["image"]["repository"]
WHOLE = merged(VALUES, ADMISSION, {"cluster": {"steps": {**STEPS, "namespace": "shop-steps"}}})
PATIENCE = 60


class World:
    """A cluster with the namespaces that the values name, and Helm for it."""

    def __init__(self, cluster: FakeCluster, folder: Path) -> None:
        self.cluster = cluster
        cluster.api.namespaces |= {"penstock", "shop", "shop-steps", "ingress"}
        for image in (f"{REPOSITORY}:0.1.0", f"{REPOSITORY}@{DIGEST}"):
            cluster.kubelet.behaviours[image] = Behaviour()
        self.chart = Chart()
        self._config = helm().Config(
            kubeconfig_path=cluster.kubeconfig(folder), namespace="penstock", storage_driver="memory"
        )
        #: The most pods of it that there ever were at a time.
        self.most = 0
        cluster.control(lambda api: self._count(len(api.all(PODS, "penstock"))))

    def _count(self, pods: int) -> None:
        self.most = max(self.most, pods)

    async def install(self, values: Object) -> str:
        return await self._done(self._config.install, self.chart.loaded, "penstock", values)

    async def upgrade(self, values: Object) -> str:
        return await self._done(self._config.upgrade, self.chart.loaded, "penstock", values)

    async def uninstall(self) -> None:
        await asyncio.to_thread(self._config.uninstall, "penstock", timeout=PATIENCE)
        await self.cluster.settled()

    async def _done(self, action: Any, *given: Any) -> str:
        release = await asyncio.to_thread(action, *given, timeout=PATIENCE)
        await self.ready()
        return str(release["status"])

    async def ready(self) -> Object:
        """The Deployment, once every pod of it is one of the newest."""
        async with asyncio.timeout(PATIENCE):
            while True:
                await self.cluster.settled()
                found = self.cluster.api.get(DEPLOYMENTS, "penstock", "penstock")
                wanted = found["spec"]["replicas"]
                if found["status"].get("readyReplicas") == len(self.pods()) == wanted:
                    return found
                await asyncio.sleep(0.02)

    def pods(self) -> list[Object]:
        return self.cluster.api.all(PODS, "penstock")

    def there(self, wanted: Object) -> Object | None:
        """The object of that kind, namespace and name."""
        (kind,) = (kind for kind in self.cluster.api.served if kind.kind == wanted["kind"])
        metadata = wanted["metadata"]
        return self.cluster.api.storage.get(kind.full, metadata.get("namespace", ""), metadata["name"])

    def left(self) -> set[str]:
        served = self.cluster.api.served
        return {kind.kind for kind in served if kind.kind != "Event" and self.cluster.api.all(kind)}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    # Clients in Go send tokens over TLS alone, and this API has none.
    async with FakeCluster(token="") as cluster:
        yield World(cluster, tmp_path)


def holds(live: Any, wanted: Any) -> bool:
    """Whether all that is wanted is there; more may be (what the API fills in)."""
    if isinstance(wanted, dict):
        return all(holds(live.get(name), value) for name, value in wanted.items())
    if isinstance(wanted, list):
        return len(live) == len(wanted) and all(map(holds, live, wanted))
    return bool(live == wanted)


async def test_it_is_installed_upgraded_and_removed(world: World) -> None:
    assert await world.install(WHOLE) == "deployed"
    for wanted in world.chart.objects(WHOLE):
        assert holds(world.there(wanted), wanted), wanted["metadata"]["name"]
    (first,) = world.pods()

    assert await world.upgrade(WHOLE) == "deployed"
    assert [pod["metadata"]["uid"] for pod in world.pods()] == [first["metadata"]["uid"]], "nothing changed"

    newer = merged(WHOLE, {"image": {"digest": DIGEST}, "workers": {"count": 3}})
    assert await world.upgrade(newer) == "deployed"
    (second,) = world.pods()
    containers = {one["name"]: one["image"] for one in second["spec"]["containers"]}
    assert containers == dict.fromkeys(("server", "worker-2", "worker-3"), f"{REPOSITORY}@{DIGEST}")

    await world.upgrade(merged(newer, {"admission": {"enabled": False}}))
    assert not {"Service", "ValidatingWebhookConfiguration"} & world.left()
    assert world.most == 1, "the old pod is gone before there is a new one"

    kept = [one for one in world.chart.objects(WHOLE) if one["kind"] == "PersistentVolumeClaim"]
    volumes = [world.there(one) for one in kept]
    await world.uninstall()
    async with asyncio.timeout(PATIENCE):
        while world.left() != {"PersistentVolumeClaim"}:
            await asyncio.sleep(0.02)
    assert await world.install(WHOLE) == "deployed"
    uids = [[one and one["metadata"]["uid"] for one in found] for found in (volumes, map(world.there, kept))]
    assert uids[0] == uids[1]


async def test_a_changed_cluster_is_read_by_a_pod_that_starts_anew(world: World) -> None:
    await world.install(VALUES)
    (first,) = world.pods()
    await world.upgrade(merged(VALUES, {"cluster": {"reach": "http://10.0.0.5:80"}}))
    (second,) = world.pods()
    assert second["metadata"]["uid"] != first["metadata"]["uid"]


async def test_several_pods_come_up_and_one_again(world: World) -> None:
    several = merged(VALUES, {"replicas": 3, "persistence": {"accessModes": ["ReadWriteMany"]}})
    await world.install(several)
    assert len(world.pods()) == 3
    assert "PodDisruptionBudget" in world.left()
    await world.upgrade(merged(several, {"replicas": 1}))
    assert "PodDisruptionBudget" not in world.left()
    (pod,) = world.pods()
    assert [one["name"] for one in pod["spec"]["containers"]] == ["server", "worker-2"]


async def test_a_namespace_that_is_not_there_is_named(world: World) -> None:
    with pytest.raises(helm().HelmError, match='namespaces "nowhere" not found'):
        await world.install(merged(VALUES, {"cluster": {"namespace": "nowhere"}}))


async def test_a_misspelt_value_changes_nothing(world: World) -> None:
    await world.install(VALUES)
    before = world.cluster.api.storage.version
    with pytest.raises(helm().HelmError, match="'wrokers' not allowed"):
        await world.upgrade({**VALUES, "wrokers": {"count": 3}})
    assert world.cluster.api.storage.version == before
