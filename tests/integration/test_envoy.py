"""Envoy under load: that the order of updates matters, that no request is lost, and that it is kept alive."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import psutil
import pytest

from fakes.web import Website, free_port
from penstock.adapters.envoy import Envoy, config
from penstock.adapters.envoy.keys import Keys
from penstock.adapters.envoy.routes import routes
from penstock.cli.load import Counts
from penstock.cli.load import run as load
from penstock.core.fence import Fence
from penstock.core.traffic import (
    PREVIEW_HEADER,
    TOKEN_HEADER,
    Backend,
    TrafficPlan,
    TrafficState,
    Weight,
)

FENCE = Fence("web/production", 1, "key")
SWITCHES = 8
RATE = 200.0
SECONDS = 20.0


class Scene:
    """An Envoy in *folder*, two sites behind it, and users."""

    def __init__(self, folder: Path, sites: tuple[Website, Website]) -> None:
        self.folder = folder / "envoy"
        self.port = free_port()
        self.envoy = self.driver()
        self.sites = sites
        self._scratch = folder / "load.json"

    def driver(self) -> Envoy:
        """One more driver over the same folder, as the next node agent makes one."""
        return Envoy(self.folder, self.port)

    def backend(self, number: int) -> Backend:
        return Backend(self.sites[number].name, (self.sites[number].address,), "/health")

    async def serving(self) -> TrafficState:
        """All users on the first site, the second not known yet."""
        plan = TrafficPlan("web", "production", (self.backend(0),), (Weight("web-1", 1000),))
        return await self.envoy.apply(plan, fence=FENCE)

    async def loaded(self, address: str, doing: Callable[[], Awaitable[None]]) -> Counts:
        """Steady load while *doing* lasts, and a second longer."""
        ended = asyncio.Event()

        async def work() -> None:
            try:
                await doing()
            finally:
                ended.set()

        working = asyncio.create_task(work())
        total = Counts()
        while not ended.is_set() or not total.requests:
            _add(total, await load([f"{address}/"], RATE, 0.5, self._scratch))
        await working
        _add(total, await load([f"{address}/"], RATE, 0.5, self._scratch))
        return total

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(json.loads((self.folder / "envoy.pid").read_text())["pid"])


def _add(total: Counts, more: Counts) -> None:
    total.requests += more.requests
    total.failed_by_switching += more.failed_by_switching
    total.errors += more.errors
    for release, counted in more.by_release.items():
        total.by_release[release] += counted


@pytest.fixture
async def scene(short_tmp: Path) -> AsyncIterator[Scene]:
    async with contextlib.AsyncExitStack() as stack:
        sites = Website("web-1"), Website("web-2")
        for site in sites:
            await site.start()
            stack.push_async_callback(site.stop)
        found = Scene(short_tmp, sites)
        stack.push_async_callback(found.envoy.stop)
        yield found


# --- the order of updates ----------------------------------------------------------------------------------


async def test_the_safe_order_loses_nothing(scene: Scene) -> None:
    state = await scene.serving()

    async def switch_and_forget() -> None:
        now = state
        for turn in range(SWITCHES):
            to, from_ = scene.backend((turn + 1) % 2), scene.backend(turn % 2)
            now = await scene.envoy.apply(now.exposing(to), fence=FENCE)
            now = await scene.envoy.apply(now.shifting(Weight(to.release, 1000)), fence=FENCE)
            now = await scene.envoy.apply(now.without(from_.release), fence=FENCE)
            await asyncio.sleep(0.1)  # some users on each side of every switch

    counts = await scene.loaded(state.address, switch_and_forget)
    assert counts.requests > 200
    assert counts.by_release.keys() == {"web-1", "web-2"}
    assert (counts.failed_by_switching, dict(counts.errors)) == (0, {})


async def test_the_unsafe_order_loses_requests(scene: Scene) -> None:
    """The same switches, but the old cluster goes before the route leaves it: so the test above can fail."""
    state = await scene.serving()
    files = Files(scene)

    async def forget_and_switch() -> None:
        for turn in range(SWITCHES):
            to = scene.backend((turn + 1) % 2)
            await files.clusters(to)
            await files.routes(to, "any")
            await asyncio.sleep(0.1)

    counts = await scene.loaded(state.address, forget_and_switch)
    assert counts.failed_by_switching > 0
    assert set(counts.errors) & {"503 NC", "503 UH", "503 NR"}


class Files:
    """Writes what Envoy reads with no regard to order, and waits until Envoy has taken it."""

    def __init__(self, scene: Scene) -> None:
        self._folder = scene.folder
        self._version = 0

    async def clusters(self, backend: Backend) -> None:
        stat = "cluster_manager.cds.version_text"
        await self._put("cds.json", config.clusters([backend]), f"/stats?filter={stat}")

    async def routes(self, backend: Backend, token: str) -> None:
        plan = TrafficPlan("web", "production", (backend,), (Weight(backend.release, 1000),))
        # Old and new side by side are impossible here, so Envoy must not insist that clusters exist.
        rendered = routes(plan, Keys(token)) | {"validate_clusters": False}
        await self._put("rds-web.production.json", [rendered], "/config_dump?resource=dynamic_route_configs")

    async def _put(self, file: str, resources: list[config.Json], asking: str) -> None:
        self._version += 1
        version = f"unsafe-{self._version}"
        temporary = self._folder / f"{file}.unsafe"
        temporary.write_text(config.document(version, resources))
        temporary.replace(self._folder / file)
        transport = httpx.AsyncHTTPTransport(uds=str(self._folder / "admin.sock"), verify=False)
        async with httpx.AsyncClient(transport=transport) as admin, asyncio.timeout(SECONDS):
            while version not in (await admin.get(f"http://envoy{asking}")).text:
                await asyncio.sleep(0.005)


# --- kept alive ----------------------------------------------------------------------------------------


async def answers(address: str) -> str | None:
    """Which release answers at *address*; None if nobody does."""
    transport = httpx.AsyncHTTPTransport(verify=False)
    async with httpx.AsyncClient(transport=transport) as client:
        with contextlib.suppress(httpx.TransportError):
            return str((await client.get(address)).headers.get("x-penstock-release", ""))
    return None


async def test_a_killed_envoy_comes_back_as_it_was(scene: Scene) -> None:
    state = await scene.serving()
    state = await scene.envoy.apply(state.exposing(scene.backend(1)), fence=FENCE)
    state = await scene.envoy.apply(state.shifting(Weight("web-2", 1000)), fence=FENCE)
    epoch = (await scene.envoy.counters("web", "production"))[0].epoch
    killed = scene.process
    killed.kill()
    async with asyncio.timeout(SECONDS):
        while await answers(state.address) != "web-2":
            await scene.envoy.tend()
            await asyncio.sleep(0.02)
        while (now := await scene.envoy.read("web", "production")) != state:
            assert now.weights == state.weights
            await asyncio.sleep(0.02)  # until its health checks are through
    assert scene.process.pid != killed.pid
    assert (await scene.envoy.counters("web", "production"))[0].epoch != epoch


async def test_a_new_driver_adopts_what_runs(scene: Scene) -> None:
    state = await scene.serving()
    running = scene.process
    adopting = scene.driver()
    await adopting.tend()
    assert await adopting.read("web", "production") == state
    state = await adopting.apply(state.exposing(scene.backend(1)), fence=FENCE)
    state = await adopting.apply(state.shifting(Weight("web-2", 1000)), fence=FENCE)
    assert await answers(state.address) == "web-2"
    assert scene.process == running
    await adopting.stop()
    assert await answers(state.address) is None
    assert not running.is_running() or running.status() == psutil.STATUS_ZOMBIE


async def test_what_was_stopped_stays_down_until_the_next_agent(scene: Scene) -> None:
    state = await scene.serving()
    await scene.envoy.stop()
    await scene.envoy.tend()
    assert await answers(state.address) is None
    scene.envoy = scene.driver()
    try:
        async with asyncio.timeout(SECONDS):
            while await answers(state.address) != "web-1":
                await scene.envoy.tend()
                await asyncio.sleep(0.02)
    finally:
        await scene.envoy.stop()


async def test_counters_are_what_users_sent(scene: Scene) -> None:
    state = await scene.serving()
    state = await scene.envoy.apply(state.exposing(scene.backend(1)), fence=FENCE)
    preview = {PREVIEW_HEADER: "web-2", TOKEN_HEADER: state.preview_token}
    transport = httpx.AsyncHTTPTransport(verify=False)
    async with httpx.AsyncClient(transport=transport, base_url=state.address) as client:
        for number in range(30):
            await client.get("/err" if number % 10 == 0 else "/")
            await client.get("/", headers=preview)
    first, second = await scene.envoy.counters("web", "production")
    assert (first.release, first.requests, first.errors) == ("web-1", 30, 3)
    assert (second.release, second.requests, second.errors) == ("web-2", 0, 0)
    assert max(first.latency.values()) == 30
    assert [site.requests for site in scene.sites] == [30, 30]
