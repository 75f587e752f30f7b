"""Copies that come and go behind a real Envoy: who waits for an answer gets it, and nothing is begun anew."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest
from tests.integration.test_envoy_drain import SECONDS, Slow, ask

from fakes.web import Website, free_port
from penstock.adapters.envoy import Envoy
from penstock.core.fence import Fence
from penstock.core.traffic import Backend, TrafficPlan, TrafficState, Weight
from penstock.errors import Unavailable

FENCE = Fence("web/production", 1, "key")


@dataclass(frozen=True)
class Held:
    """Users are on ``web-1``, which has two copies; *asking* waits for an answer of the slow one."""

    folder: Path
    envoy: Envoy
    state: TrafficState
    slow: Slow
    site: Website
    asking: asyncio.Task[str]

    @property
    def backend(self) -> Backend:
        return self.state.backends[0].backend

    def leaving(self) -> Backend:
        return replace(self.backend, addresses=(self.site.address,), draining=(self.slow.address,))

    async def others_are_answered(self) -> None:
        before = self.site.requests
        for _ in range(10):
            assert await ask(self.state.address) == "web-1 200"
        assert self.site.requests == before + 10


@pytest.fixture
async def held(short_tmp: Path) -> AsyncIterator[Held]:
    envoy, slow, site = Envoy(short_tmp / "envoy", free_port()), Slow(), Website("web-1")
    async with contextlib.AsyncExitStack() as stack:
        await site.start()
        stack.push_async_callback(site.stop)
        await slow.start()
        stack.callback(slow.kill)
        stack.push_async_callback(envoy.stop)
        backend = Backend("web-1", (slow.address,), elastic=True, drain_seconds=SECONDS)
        state = await envoy.apply(
            TrafficPlan("web", "production", (backend,), (Weight("web-1", 1000),)), fence=FENCE
        )
        asking = asyncio.create_task(ask(state.address))
        await asyncio.wait_for(slow.asked.wait(), SECONDS)
        both = replace(backend, addresses=(slow.address, site.address))
        state = await envoy.apply(state.exposing(both), fence=FENCE)
        yield Held(short_tmp / "envoy", envoy, state, slow, site, asking)
        slow.go.set()
        await asking


async def test_a_copy_that_drains_is_known_to_be_at_work_until_it_has_answered(held: Held) -> None:
    state = await held.envoy.apply(held.state.exposing(held.leaving()), fence=FENCE)
    await held.others_are_answered()
    (known,) = (await held.envoy.read("web", "production")).backends
    assert (known.busy, known.active) == ((held.slow.address,), 1)
    held.slow.go.set()
    assert await held.asking == "web-1 200"
    async with asyncio.timeout(SECONDS):
        while known.busy:
            (known,) = (await held.envoy.read("web", "production")).backends
    gone = replace(held.leaving(), draining=())
    (known,) = (await held.envoy.apply(state.exposing(gone), fence=FENCE)).backends
    assert (known.total, known.backend.draining) == (1, ())


async def test_who_waits_for_a_copy_that_is_taken_away_all_the_same_gets_an_answer(held: Held) -> None:
    """As an endless stream: it is waited for, but not for ever, and then its copy is told to end."""
    gone = replace(held.backend, addresses=(held.site.address,))
    await held.envoy.apply(held.state.exposing(gone), fence=FENCE)
    await held.others_are_answered()
    held.slow.go.set()
    assert await held.asking == "web-1 200"


async def test_an_envoy_that_comes_back_finds_the_copies_as_they_were(held: Held) -> None:
    state = await held.envoy.apply(
        held.state.exposing(replace(held.backend, addresses=(held.site.address,))), fence=FENCE
    )
    held.slow.go.set()
    await held.asking
    pid = json.loads((held.folder / "envoy.pid").read_text())["pid"]
    process = psutil.Process(pid)
    process.kill()
    async with asyncio.timeout(SECONDS):
        while (again := await readable(held.envoy)) is None or not again.ready("web-1"):
            await held.envoy.tend()
            await asyncio.sleep(0.02)
    assert again.backends == state.backends
    await held.others_are_answered()


async def test_the_next_driver_goes_on_with_the_same_counts(held: Held) -> None:
    held.slow.go.set()
    await held.asking
    await held.envoy.apply(
        held.state.exposing(replace(held.backend, addresses=(held.site.address,))), fence=FENCE
    )
    (before,) = await held.envoy.counters("web", "production")
    port = int(held.state.address.rpartition(":")[2])
    driver = Envoy(held.folder, port)
    state = await driver.read("web", "production")
    both = replace(held.backend, addresses=(held.site.address, held.slow.address))
    await driver.apply(state.exposing(both), fence=FENCE)
    (after,) = await driver.counters("web", "production")
    assert (after.epoch, after.requests) == (before.epoch, before.requests)


async def readable(envoy: Envoy) -> TrafficState | None:
    with contextlib.suppress(Unavailable):
        return await envoy.read("web", "production")
    return None
