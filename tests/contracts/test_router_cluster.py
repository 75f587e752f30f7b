"""The router contract on what routes traffic in a cluster: the parts that each can do, and no more."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx
import pytest

from contracts.finer import DriftContract, MirrorContract, RulesContract
from contracts.powers import PowersContract
from contracts.router import Subject, Visit, WeightsContract
from fakes.cluster import cluster_and_client, put_endpoint
from fakes.router import FakeRouter
from fakes.web import Website, free_port
from penstock.adapters._kubernetes import Client, Kind, Object, previews
from penstock.adapters._meshes import written
from penstock.adapters.gateway_api import Attached, GatewayApi
from penstock.adapters.gateway_api import rendering as gateway_api
from penstock.adapters.istio import Istio, Meshed
from penstock.adapters.istio import rendering as istio
from penstock.core.traffic import Backend, TrafficPlan
from penstock.testing.kubernetes import FakeCluster
from penstock.testing.kubernetes.dataplane import DataPlane
from penstock.testing.kubernetes.gateway import Gateways, use_gateway
from penstock.testing.kubernetes.istio import Mesh, use_istio
from penstock.testing.kubernetes.proxy import Proxy

ATTACHED = Attached("public", "default")
MESHED = Meshed()
#: What a router writes, and how it writes a plan.
Written = tuple[Kind, Callable[[TrafficPlan, str, Mapping[str, int]], Object]]
PORT = 8080


class ClusterWorld:
    """Releases are Services, one for users and one for previews, with one endpoint, a website; users ask the
    proxy of the fake cluster."""

    def __init__(self, cluster: FakeCluster, client: Client, proxy: Proxy, written: Written) -> None:
        self.cluster = cluster
        self.client = client
        self.proxy = proxy
        self._written = written
        self._users = httpx.AsyncClient(base_url=proxy.url, trust_env=False, verify=False)
        self._sites: dict[str, Website] = {}

    async def close(self) -> None:
        await self._users.aclose()
        for site in self._sites.values():
            await site.stop()

    async def backend(self, release: str) -> Backend:
        if release not in self._sites:
            self._sites[release] = Website(release)
            await self._sites[release].start()
        return self._backend(release, self._sites[release].address, ready=True)

    def dead(self, release: str) -> Backend:
        return self._backend(release, f"127.0.0.1:{free_port()}", ready=False)

    def _backend(self, release: str, address: str, *, ready: bool) -> Backend:
        own = previews.service_of(release)
        put_endpoint(self.cluster, own, address, ready=ready)
        put_endpoint(self.cluster, release, address, ready=ready, annotations={previews.PREVIEWS: own})
        return Backend(release, (address,), "/health")

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
        host = address.removeprefix("http://")
        answer = await self._users.get(path, headers={"host": host, **headers})
        served = answer.headers.get("server") != "istio-envoy"
        return Visit(answer.status_code, answer.text if served else "", {})

    def seen(self, release: str) -> Sequence[str]:
        return self._sites[release].heads if release in self._sites else ()

    async def meddle(self, plan: TrafficPlan) -> None:
        """As another Penstock would: under our own name, and without a word of what was asked."""
        kind, spec_of = self._written
        live = await self.client.get(kind, written.object_name(plan.service, plan.environment))
        assert live is not None
        releases = [backend.release for backend in plan.backends]
        ports = dict.fromkeys([*releases, *map(previews.service_of, releases)], PORT)
        mine = ("name", "namespace", "labels", "annotations")
        metadata = {key: value for key, value in live["metadata"].items() if key in mine}
        spec = spec_of(plan, written.annotation(live, written.TOKEN), ports)
        await self.client.apply(kind, {"metadata": metadata, "spec": spec})


def as_route(plan: TrafficPlan, token: str, ports: Mapping[str, int]) -> Object:
    return gateway_api.spec_of(plan, token, ports, ATTACHED)


def as_virtual(plan: TrafficPlan, token: str, ports: Mapping[str, int]) -> Object:
    return istio.spec_of(plan, token, ports, MESHED, "default")


@contextlib.asynccontextmanager
async def over_gateway(folder: Path) -> AsyncIterator[tuple[Subject, ClusterWorld, Gateways]]:
    async with cluster_and_client(folder) as (cluster, client):
        gateways = use_gateway(cluster)
        async with world_of(cluster, client, gateways.plane, (GatewayApi.kind, as_route)) as world:
            yield Subject(GatewayApi(client, ATTACHED), FakeRouter(), world), world, gateways


@contextlib.asynccontextmanager
async def over_istio(folder: Path) -> AsyncIterator[tuple[Subject, ClusterWorld, Mesh]]:
    async with cluster_and_client(folder) as (cluster, client):
        mesh = use_istio(cluster)
        async with world_of(cluster, client, mesh, (Istio.kind, as_virtual)) as world:
            yield Subject(Istio(client, MESHED), FakeRouter(), world), world, mesh


@contextlib.asynccontextmanager
async def world_of(
    cluster: FakeCluster, client: Client, plane: DataPlane, written: Written
) -> AsyncIterator[ClusterWorld]:
    async with Proxy(plane) as proxy:
        world = ClusterWorld(cluster, client, proxy, written)
        try:
            yield world
        finally:
            await world.close()


class ClusterContract(WeightsContract, RulesContract, DriftContract, MirrorContract, PowersContract):
    """What both can do, and that the rest is refused."""


class TestGatewayApi(ClusterContract):
    powers = GatewayApi.powers

    @pytest.fixture
    async def subject(self, tmp_path: Path) -> AsyncIterator[Subject]:
        async with over_gateway(tmp_path) as (subject, _, _):
            yield subject


class TestIstio(ClusterContract):
    powers = Istio.powers

    @pytest.fixture
    async def subject(self, tmp_path: Path) -> AsyncIterator[Subject]:
        async with over_istio(tmp_path) as (subject, _, _):
            yield subject
