"""What the fake cluster makes of workloads as others write them: volumes of every kind, one pod at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fakes.cluster import IMAGE, cluster_and_client, deployment
from penstock.adapters._kubernetes import Client, Object
from penstock.adapters._kubernetes.kinds import DEPLOYMENTS, PODS
from penstock.errors import Invalid
from penstock.testing.kubernetes import Behaviour, FakeCluster
from penstock.testing.kubernetes.kinds import PODS as SERVED_PODS

SECONDS = 10.0


class World:
    def __init__(self, cluster: FakeCluster, client: Client) -> None:
        self.cluster = cluster
        self.client = client

    async def pod(self, wanted: str) -> Object:
        """The only one, once it waits for that or, with "", is ready."""
        async with asyncio.timeout(SECONDS):
            while True:
                pods = (await self.client.list(PODS)).items
                states = [pod.get("status", {}).get("containerStatuses", [{}])[0] for pod in pods]
                if len(pods) == 1 and (states[0].get("ready") if not wanted else wanted in str(states)):
                    return pods[0]
                await asyncio.sleep(0.01)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with cluster_and_client(tmp_path) as (cluster, client):
        yield World(cluster, client)


def with_volume(**volume: Any) -> Object:
    made = deployment()
    spec = made["spec"]["template"]["spec"]
    spec["volumes"] = [{"name": "data", **volume}]
    spec["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    return made


VOLUMES = [
    {"emptyDir": {}},
    {"configMap": {"name": "notes"}},
    {"secret": {"secretName": "keys", "optional": True}},
    {"persistentVolumeClaim": {"claimName": "data"}},
]


@pytest.mark.parametrize("volume", VOLUMES, ids=str)
async def test_a_stub_has_volumes_of_every_kind_and_a_process_none(
    world: World, volume: Object, tmp_path: Path
) -> None:
    await world.client.create(DEPLOYMENTS, with_volume(**volume))
    await world.pod("")
    await world.client.delete(DEPLOYMENTS, "web")
    world.cluster.kubelet.behaviours[IMAGE] = Behaviour(root=tmp_path)
    await world.cluster.settled()
    await world.client.create(DEPLOYMENTS, with_volume(**volume))
    await world.pod("this node mounts images, and no other volumes")


@pytest.mark.parametrize("volume", [{}, {"emptyDir": {}, "configMap": {"name": "notes"}}], ids=str)
async def test_a_volume_is_one_thing(world: World, volume: Object) -> None:
    with pytest.raises(Invalid, match="must specify one volume type"):
        await world.client.create(DEPLOYMENTS, with_volume(**volume))


async def test_recreating_ends_the_old_pod_before_there_is_a_new_one(world: World) -> None:
    counts = []
    world.cluster.control(lambda api: counts.append(len(api.all(SERVED_PODS))))
    made = deployment()
    made["spec"]["strategy"] = {"type": "Recreate"}
    await world.client.create(DEPLOYMENTS, made)
    first = await world.pod("")
    made["spec"]["template"]["metadata"]["annotations"] = {"newer": "yes"}
    await world.client.apply(DEPLOYMENTS, made)
    async with asyncio.timeout(SECONDS):
        while (await world.pod(""))["metadata"]["uid"] == first["metadata"]["uid"]:
            await asyncio.sleep(0.01)
    assert max(counts) == 1


async def test_general_clients_find_out_what_is_served(world: World) -> None:
    headers = {"authorization": f"Bearer {world.cluster.token}"}
    async with httpx.AsyncClient(base_url=world.cluster.url, headers=headers, trust_env=False) as client:

        async def said(path: str) -> Any:
            return (await client.get(path)).raise_for_status().json()

        groups = {group["name"]: group for group in (await said("/apis"))["groups"]}
        assert groups["apps"]["preferredVersion"]["groupVersion"] == "apps/v1"
        listed = {one["name"]: one for one in (await said("/apis/apps/v1"))["resources"]}
        assert (listed["deployments"]["kind"], listed["deployments"]["namespaced"]) == ("Deployment", True)
        assert "pods" in {one["name"] for one in (await said("/api/v1"))["resources"]}
        documents = (await said("/openapi/v3"))["paths"]
        paths = (await said(documents["apis/apps/v1"]["serverRelativeURL"]))["paths"]
        patch = paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
        assert [one["name"] for one in patch["parameters"]] == ["fieldValidation"]
        for path in ("/apis/nothing.example/v1", "/openapi/v3/apis/nothing.example/v1", "/nothing"):
            assert (await client.get(path)).status_code == 404
