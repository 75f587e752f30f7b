"""What is in flight when a release goes: real Envoy, real processes, the real actions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest
from tests.integration.processes.house import FENCE, SECONDS, House, workload

from fakes.web import Website, free_port
from penstock.actions import promote, rollback
from penstock.adapters.envoy import Envoy
from penstock.config import ServiceConfig
from penstock.core.digest import digest
from penstock.core.fence import Fence
from penstock.core.pipeline import Intent
from penstock.core.release import Artifact, Change, EnvironmentData, Release
from penstock.core.traffic import WHOLE, Backend, TrafficPlan, Weight
from penstock.core.workload import Placement
from penstock.ports import Task

DATA = EnvironmentData("web", "production")
OLD, NEW = (Release("web", "production", digest(name), DATA.digest) for name in (b"1", b"2"))


class Street:
    """A house behind a real proxy. The price list that its releases call is a site of its own."""

    def __init__(self, house: House, envoy: Envoy) -> None:
        self.house, self.envoy = house, envoy
        self.address = ""

    async def open(self, drain_seconds: float) -> None:
        """Both releases are ready; users are on the old one."""
        backends = [(await self.placed(release, drain_seconds)).backend for release in (OLD, NEW)]
        plan = TrafficPlan("web", "production", tuple(backends), (Weight(OLD.id, WHOLE),))
        self.address = (await self.envoy.apply(plan, fence=FENCE)).address
        async with asyncio.timeout(SECONDS):
            while not (await self.envoy.read("web", "production")).ready(NEW.id):
                await asyncio.sleep(0.05)

    async def placed(self, release: Release, drain_seconds: float) -> Placement:
        wanted = replace(
            workload(self.house.artifact),
            release=release.id,
            drain_seconds=drain_seconds,
        )
        placed = await self.house.platform.place(wanted, fence=FENCE)
        async with asyncio.timeout(SECONDS):
            while not placed.ready:
                await self.house.platform.tend()
                await asyncio.sleep(0.02)
                placed = await self.house.platform.observe(release.id) or placed
        return placed

    async def said(self, release: Release, words: str) -> None:
        async with asyncio.timeout(SECONDS):
            while words not in await self.house.platform.logs(release.id, 9):
                await asyncio.sleep(0.01)


@pytest.fixture
async def street(house: House, short_tmp: Path) -> AsyncIterator[Street]:
    envoy = Envoy(short_tmp / "envoy", free_port())
    site = Website("price-list-1")
    await site.start()
    catalog = Backend(site.name, (site.address,), "/health")
    try:
        await envoy.apply(
            TrafficPlan("price-list", "production", (catalog,), (Weight(site.name, WHOLE),)),
            fence=Fence("price-list/production", 1, "key"),
        )
        yield Street(house, envoy)
    finally:
        await envoy.stop()
        await site.stop()
        for release in (OLD, NEW):
            await house.platform.remove(release.id, fence=FENCE)


def task(verb: str) -> Task:
    return Task(
        delivery="web-1",
        intent=Intent(verb, verb),
        change=Change("code", "web", "production", "/repo", "1" * 40, "Dana", "A change"),
        config=ServiceConfig(service="web"),
        fence=FENCE,
        work=Path("/work"),
        log=Path("/log"),
        data=DATA,
        artifact=Artifact("web", NEW.artifact),
        release=NEW,
    )


async def get(url: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=SECONDS, verify=False) as client:
        return await client.get(url)


async def test_a_long_request_ends_well_though_its_release_is_replaced_and_removed(street: Street) -> None:
    """It even calls a neighbour through the proxy after its release was told to end."""
    await street.open(drain_seconds=20)
    answer = asyncio.ensure_future(get(f"{street.address}/long"))
    await street.said(OLD, "long has begun")
    outcome = await promote.perform(task("promote"), router=street.envoy, platform=street.house.platform)
    assert await street.house.platform.observe(OLD.id) is None
    answered = await answer
    assert (answered.status_code, answered.text) == (200, "price-list-1")
    assert answered.headers["x-penstock-release"] == OLD.id
    assert "SIGTERM" not in outcome.reason


async def test_a_long_request_ends_well_though_its_release_is_rolled_back(street: Street) -> None:
    await street.open(drain_seconds=20)
    state = await street.envoy.read("web", "production")
    await street.envoy.apply(state.shifting(Weight(NEW.id, WHOLE)), fence=FENCE)
    answer = asyncio.ensure_future(get(f"{street.address}/long"))
    await street.said(NEW, "long has begun")
    undone = replace(task("rollback"), baseline=OLD)
    await rollback.undo(undone, router=street.envoy, platform=street.house.platform, metrics=street.envoy)
    assert await street.house.platform.observe(NEW.id) is None
    assert (await answer).status_code == 200


async def test_a_stream_is_ended_at_the_limit_and_that_is_told(street: Street) -> None:
    await street.open(drain_seconds=1)
    began = asyncio.Event()

    async def listen() -> int:
        ticks = 0
        with contextlib.suppress(httpx.TransportError):  # cut off: that is the point
            async with (
                httpx.AsyncClient(timeout=SECONDS, verify=False) as client,
                client.stream("GET", f"{street.address}/events") as events,
            ):
                async for _ in events.aiter_bytes():
                    ticks += 1
                    began.set()
        return ticks

    listening = asyncio.ensure_future(listen())
    await began.wait()
    outcome = await promote.perform(task("promote"), router=street.envoy, platform=street.house.platform)
    assert await listening > 1
    assert f"{OLD.id}: instance 0 was still at work 1 s after SIGTERM, and was killed" in outcome.reason


async def test_a_long_farewell_keeps_no_other_release_waiting(street: Street) -> None:
    others = street.house.processes()
    placed = await street.placed(OLD, drain_seconds=300)
    leavers = street.house.processes() - others
    endless = asyncio.ensure_future(get_at(placed.instances[0].address, "/events"))
    await asyncio.sleep(0)
    leaving = asyncio.ensure_future(street.house.platform.remove(OLD.id, fence=FENCE))
    try:
        await street.placed(NEW, drain_seconds=0)
    finally:
        for process in leavers:
            with contextlib.suppress(psutil.Error):
                process.kill()
        await asyncio.gather(leaving, endless)


async def get_at(address: str, path: str) -> None:
    uds = address.removeprefix("unix:") if address.startswith("unix:") else None
    transport = httpx.AsyncHTTPTransport(uds=uds, verify=False)
    with contextlib.suppress(httpx.TransportError):
        async with httpx.AsyncClient(transport=transport, timeout=SECONDS) as client:
            await client.get(f"http://{'workload' if uds else address}{path}")
