"""Releases that the proxy is to let go: whom they have is answered first, and nobody else waits for that."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from fakes.web import Website, free_port
from penstock.adapters.envoy import Envoy
from penstock.core.fence import Fence
from penstock.core.traffic import Backend, TrafficPlan, TrafficState, Weight

FENCE = Fence("web/production", 1, "key")
SECONDS = 20.0


class Slow:
    """Answers its one user when it is told to; ends at once when it is killed."""

    def __init__(self) -> None:
        self.asked, self.go = asyncio.Event(), asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")  # a health check only connects
            self.asked.set()
            await self.go.wait()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()

    def kill(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()


@dataclass(frozen=True)
class Leaving:
    """Users are on ``web-1`` again, but *asking* waits for an answer of ``web-2``, which is *slow*."""

    envoy: Envoy
    state: TrafficState
    slow: Slow
    asking: asyncio.Task[str]

    async def carried_out(self, plan: TrafficPlan) -> TrafficState:
        """What ends a release: it is killed as soon as the proxy has let go of it."""
        state = await self.envoy.apply(plan, fence=FENCE)
        self.slow.kill()
        return state

    def out(self) -> TrafficPlan:
        """As an action takes a release out, before its instances are told to end."""
        return self.state.exposing(Backend("web-2", ()))


@pytest.fixture
async def leaving(short_tmp: Path) -> AsyncIterator[Leaving]:
    envoy, slow, site = Envoy(short_tmp / "envoy", free_port()), Slow(), Website("web-1")
    async with contextlib.AsyncExitStack() as stack:
        await site.start()
        stack.push_async_callback(site.stop)
        await slow.start()
        stack.callback(slow.kill)
        stack.push_async_callback(envoy.stop)
        backends = (
            Backend("web-1", (site.address,), "/health"),
            Backend("web-2", (slow.address,), drain_seconds=SECONDS),
        )
        plan = TrafficPlan("web", "production", backends, (Weight("web-2", 1000),))
        state = await envoy.apply(plan, fence=FENCE)
        asking = asyncio.create_task(ask(state.address))
        await asyncio.wait_for(slow.asked.wait(), SECONDS)
        state = await envoy.apply(state.shifting(Weight("web-1", 1000)), fence=FENCE)
        yield Leaving(envoy, state, slow, asking)
        slow.go.set()
        await asking


async def ask(address: str) -> str:
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(verify=False), timeout=SECONDS) as client:
        answer = await client.get(address)
    return f"{answer.headers.get('x-penstock-release', '')} {answer.status_code}"


@pytest.mark.parametrize("forgotten", [False, True])
async def test_a_release_that_is_taken_out_answers_whom_it_has(leaving: Leaving, forgotten: bool) -> None:
    plan = leaving.state.without("web-2") if forgotten else leaving.out()
    ending = asyncio.create_task(leaving.carried_out(plan))
    # As long as it takes to let go of a release that nobody waits for, and longer.
    await asyncio.wait({ending}, timeout=1.0)
    assert await ask(leaving.state.address) == "web-1 200"
    leaving.slow.go.set()
    assert await leaving.asking == "web-2 200"
    left = {known.release: known.backend.addresses for known in (await ending).backends}
    assert left.pop("web-1")
    assert left == ({} if forgotten else {"web-2": ()})


async def test_copies_that_drain_are_waited_for_when_they_are_taken_out_and_not_before(
    leaving: Leaving,
) -> None:
    known = next(found.backend for found in leaving.state.backends if found.release == "web-2")
    drains = replace(known, addresses=(), draining=known.addresses, elastic=True)
    async with asyncio.timeout(SECONDS / 2):
        state = await leaving.envoy.apply(leaving.state.exposing(drains), fence=FENCE)
    ending = asyncio.create_task(leaving.carried_out(state.exposing(replace(drains, draining=()))))
    await asyncio.wait({ending}, timeout=0.5)
    assert not ending.done()
    leaving.slow.go.set()
    assert await leaving.asking == "web-2 200"
    await ending


async def test_other_services_do_not_wait_for_it(leaving: Leaving) -> None:
    ending = asyncio.create_task(leaving.carried_out(leaving.out()))
    await asyncio.wait({ending}, timeout=0.5)
    till = TrafficPlan("till", "production", (), ())
    assert (await leaving.envoy.apply(till, fence=FENCE)).address
    assert not ending.done()
    leaving.slow.go.set()
    assert await leaving.asking == "web-2 200"
    await ending


async def test_the_wait_has_an_end(leaving: Leaving) -> None:
    """As with an endless stream: whoever takes the release out goes on, and its instances end it."""
    known = next(found.backend for found in leaving.state.backends if found.release == "web-2")
    state = await leaving.envoy.apply(leaving.state.exposing(replace(known, drain_seconds=0.1)), fence=FENCE)
    await leaving.envoy.apply(state.exposing(replace(known, addresses=())), fence=FENCE)
    assert not leaving.asking.done()
