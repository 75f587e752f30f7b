"""The router contract on what routes traffic in a cluster: the parts that each can do, and no more."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from contracts.finer import DriftContract, MirrorContract, RulesContract
from contracts.powers import PowersContract
from contracts.router import Subject, Visit, WeightsContract
from fakes.cluster import cluster_and_client
from fakes.router import FakeRouter
from penstock.adapters._kubernetes import Client
from penstock.adapters._meshes import written
from penstock.adapters.gateway_api import Attached, GatewayApi
from penstock.adapters.gateway_api.driver import POWERS, ROUTES
from penstock.adapters.gateway_api.rendering import spec_of
from penstock.core.traffic import Backend, TrafficPlan
from penstock.testing.kubernetes import FakeCluster
from penstock.testing.kubernetes.gateway import Gateways, use_gateway
from penstock.testing.kubernetes.kinds import SERVICES, SLICES

ATTACHED = Attached("public", "default")
PORT = 8080


class ClusterWorld:
    """Releases are Services with one endpoint; users ask the data plane of the fake cluster."""

    def __init__(self, cluster: FakeCluster, client: Client, gateways: Gateways) -> None:
        self.cluster = cluster
        self.client = client
        self.gateways = gateways
        self._number = 0

    async def backend(self, release: str) -> Backend:
        return self._backend(release, ready=True)

    def dead(self, release: str) -> Backend:
        return self._backend(release, ready=False)

    def _backend(self, release: str, *, ready: bool) -> Backend:
        api, namespace = self.cluster.api, self.cluster.namespace
        address = f"10.0.0.{len(api.all(SERVICES, namespace)) + 1}"
        if api.storage.get(SERVICES.full, namespace, release) is None:
            metadata = {"name": release, "namespace": namespace}
            ports = [{"name": "http", "port": PORT}]
            head = {"apiVersion": "v1", "kind": "Service"}
            api.create(SERVICES, {**head, "metadata": metadata, "spec": {"ports": ports}}, manager="platform")
            labels = {"kubernetes.io/service-name": release}
            endpoint = {"addresses": [address], "conditions": {"ready": ready}}
            piece = {
                "apiVersion": SLICES.api_version,
                "kind": SLICES.kind,
                "metadata": {**metadata, "name": f"{release}-1", "labels": labels},
                "addressType": "IPv4",
                "endpoints": [endpoint],
                "ports": [{"name": "http", "port": PORT}],
            }
            api.create(SLICES, piece, manager="platform")
        return Backend(release, (f"{address}:{PORT}",), "/health")

    async def copies(self, release: str, number: int) -> Backend:
        raise NotImplementedError("copies are the platform's, and its Services find them")

    def served(self, release: str) -> Sequence[int]:
        raise NotImplementedError("copies are the platform's, and its Services find them")

    def holding(self, release: str, address: str, count: int) -> AbstractAsyncContextManager[None]:
        raise NotImplementedError("how much is in flight is the gateway's to know")

    def socket(self, name: str) -> str:
        raise NotImplementedError("callers have no address of their own")

    async def visit(self, address: str, headers: dict[str, str], path: str) -> Visit:
        await self.cluster.settled()
        answer = self.gateways.plane.ask(address.removeprefix("http://"), headers, path)
        return Visit(answer.status, answer.service, {})

    def seen(self, release: str) -> Sequence[str]:
        return self.gateways.plane.seen[release]

    async def meddle(self, plan: TrafficPlan) -> None:
        """As another Penstock would: under our own name, and without a word of what was asked."""
        name = written.object_name(plan.service, plan.environment)
        route = await self.client.get(ROUTES, name)
        assert route is not None
        token = written.annotation(route, written.TOKEN)
        ports = {backend.release: PORT for backend in plan.backends}
        mine = ("name", "namespace", "labels", "annotations")
        metadata = {key: value for key, value in route["metadata"].items() if key in mine}
        await self.client.apply(ROUTES, {"metadata": metadata, "spec": spec_of(plan, token, ports, ATTACHED)})


@contextlib.asynccontextmanager
async def over_gateway(folder: Path) -> AsyncIterator[tuple[Subject, ClusterWorld]]:
    async with cluster_and_client(folder) as (cluster, client):
        world = ClusterWorld(cluster, client, use_gateway(cluster))
        yield Subject(GatewayApi(client, ATTACHED), FakeRouter(), world), world


class TestGatewayApi(WeightsContract, RulesContract, DriftContract, MirrorContract, PowersContract):
    powers = POWERS

    @pytest.fixture
    async def subject(self, tmp_path: Path) -> AsyncIterator[Subject]:
        async with over_gateway(tmp_path) as (subject, _):
            yield subject
