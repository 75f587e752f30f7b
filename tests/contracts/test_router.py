"""The router contract on the fake, on Envoy, and on the fake behind a node agent's socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import httpx
import pytest

from contracts.admission import AdmissionContract
from contracts.elastic import ElasticContract
from contracts.finer import FinerContract
from contracts.metrics import CountersContract, PreviewsContract
from contracts.router import RouterContract, Subject, Visit
from fakes.node import agent_at
from fakes.platform import FakePlatform
from fakes.router import FakeRouter
from fakes.web import Website, free_port
from penstock.adapters.envoy import Envoy, config
from penstock.adapters.envoy.keys import Keys
from penstock.adapters.envoy.routes import routes
from penstock.core.traffic import Backend, TrafficPlan
from penstock.node.client import NodeMetrics, NodeRouter

MEDDLED = "meddled"


class World:
    """Websites for an Envoy that really asks them."""

    def __init__(self, folder: Path, stack: contextlib.AsyncExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._sites: dict[str, Website] = {}
        self._copies: dict[str, list[Website]] = {}

    async def backend(self, release: str) -> Backend:
        self._sites[release] = await self._site(release)
        return Backend(release, (self._sites[release].address,), "/health")

    async def copies(self, release: str, number: int) -> Backend:
        self._copies[release] = sites = [await self._site(release) for _ in range(number)]
        return Backend(release, tuple(site.address for site in sites), "/health", elastic=True)

    def served(self, release: str) -> Sequence[int]:
        return [site.requests for site in self._copies[release]]

    async def _site(self, release: str) -> Website:
        site = Website(release)
        await site.start()
        self._stack.push_async_callback(site.stop)
        return site

    def dead(self, release: str) -> Backend:
        return Backend(release, (f"127.0.0.1:{free_port()}",), "/health")

    def socket(self, name: str) -> str:
        return f"unix:{self._folder / name}.sock"

    async def visit(self, address: str, headers: dict[str, str], path: str) -> Visit:
        uds = address.removeprefix("unix:") if address.startswith("unix:") else None
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=uds, verify=False)) as client:
            answer = await client.get(("http://callee" if uds else address) + path, headers=headers)
        release = answer.headers.get("x-penstock-release", "")
        itself = "x-penstock-flags" in answer.headers
        assert not release or itself or answer.text == release, "header and answer must be of one release"
        return Visit(answer.status_code, release, dict(answer.cookies))

    def seen(self, release: str) -> Sequence[str]:
        return self._sites[release].heads

    @contextlib.asynccontextmanager
    async def holding(self, release: str, address: str, count: int) -> AsyncIterator[None]:
        site = self._sites[release]
        asked = [asyncio.ensure_future(self.visit(address, {}, "/hold")) for _ in range(count)]
        try:
            async with asyncio.timeout(10):
                while site.held < count:
                    await asyncio.sleep(0.01)
            yield
        finally:
            site.let_go.set()
            await asyncio.gather(*asked)

    async def meddle(self, plan: TrafficPlan) -> None:
        name = f"{plan.service}.{plan.environment}"
        self._replace(f"rds-{name}.json", [routes(plan, Keys("another"))])
        self._replace("cds.json", config.clusters(plan.backends))
        transport = httpx.AsyncHTTPTransport(uds=str(self._folder / "envoy" / "admin.sock"), verify=False)
        asking = ("/config_dump?resource=dynamic_route_configs", "/stats?type=TextReadouts&filter=cds")
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://envoy") as admin,
            asyncio.timeout(10),
        ):
            while not all([MEDDLED in (await admin.get(path)).text for path in asking]):
                await asyncio.sleep(0.01)

    def _replace(self, name: str, resources: list[config.Json]) -> None:
        file = self._folder / "envoy" / name
        other = file.with_suffix(".other")
        other.write_text(config.document(MEDDLED, resources))
        other.replace(file)


class FakeWorld:
    """Addresses that the fake router takes for ready."""

    def __init__(self, router: FakeRouter) -> None:
        self._router = router
        self._copies: dict[str, tuple[str, ...]] = {}

    async def copies(self, release: str, number: int) -> Backend:
        self._copies[release] = found = tuple(f"unix:/fake/{release}/{copy}" for copy in range(number))
        self._router.up.update(found)
        return Backend(release, found, "/health", elastic=True)

    def served(self, release: str) -> Sequence[int]:
        return [self._router.served[address] for address in self._copies[release]]

    async def backend(self, release: str) -> Backend:
        address = f"unix:/fake/{release}"
        self._router.up.add(address)
        return Backend(release, (address,), "/health")

    def dead(self, release: str) -> Backend:
        return Backend(release, (f"unix:/nobody/{release}",), "/health")

    def socket(self, name: str) -> str:
        return f"unix:/egress/{name}"

    async def visit(self, address: str, headers: dict[str, str], path: str) -> Visit:
        return Visit(*self._router.ask(address, headers, path))

    def seen(self, release: str) -> Sequence[str]:
        return self._router.seen[release]

    @contextlib.asynccontextmanager
    async def holding(self, release: str, address: str, count: int) -> AsyncIterator[None]:
        for _ in range(count):
            assert self._router.ask(address, {}, "/hold")[:2] == (200, release)
        self._router.held[release] += count
        yield
        self._router.held[release] -= count

    async def meddle(self, plan: TrafficPlan) -> None:
        self._router.meddled[plan.service, plan.environment] = plan


class EmbeddedContract(
    RouterContract, FinerContract, AdmissionContract, ElasticContract, CountersContract, PreviewsContract
):
    """Everything."""


class TestFake(EmbeddedContract):
    @pytest.fixture
    def subject(self) -> Subject:
        router = FakeRouter()
        world = FakeWorld(router)
        return Subject(router, router, world)


class TestEnvoy(EmbeddedContract):
    @pytest.fixture
    async def subject(self, short_tmp: Path) -> AsyncIterator[Subject]:
        async with contextlib.AsyncExitStack() as stack:
            envoy = Envoy(short_tmp / "envoy", free_port())
            stack.push_async_callback(envoy.stop)
            world = World(short_tmp, stack)
            yield Subject(envoy, envoy, world)


class TestNode(EmbeddedContract):
    @pytest.fixture
    async def subject(self, short_tmp: Path) -> AsyncIterator[Subject]:
        router = FakeRouter()
        world = FakeWorld(router)
        async with agent_at(short_tmp / "node", FakePlatform(), router) as client:
            yield Subject(NodeRouter(client), NodeMetrics(client), world)
