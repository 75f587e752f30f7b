"""What can go wrong around Envoy: instances that hang or go, updates it refuses, agents that die half-way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest

from fakes.web import Website, free_port
from penstock.adapters.envoy import Envoy
from penstock.adapters.envoy.admin import Admin
from penstock.adapters.envoy.process import LOG_BYTES, Process
from penstock.core.fence import Fence
from penstock.core.traffic import Backend, Counters, Egress, TrafficPlan, TrafficState, Weight
from penstock.errors import Broken, Invalid, Unavailable

FENCE = Fence("web/production", 1, "key")
SECONDS = 20.0


class Town:
    """An Envoy in *folder*, and whoever stands behind it."""

    def __init__(self, folder: Path, stack: contextlib.AsyncExitStack) -> None:
        self.folder = folder / "envoy"
        self.port = free_port()
        self.sockets = folder
        self._stack = stack

    def driver(self, folder: Path | None = None) -> Envoy:
        """One more driver: over the same folder it is the one of the next node agent."""
        envoy = Envoy(folder or self.folder, self.port)
        self._stack.push_async_callback(envoy.stop)
        return envoy

    async def site(self, name: str) -> Website:
        site = Website(name)
        await site.start()
        self._stack.push_async_callback(site.stop)
        return site

    async def hanging(self) -> str:
        """The address of something that takes connections, and never answers."""
        taken: list[asyncio.StreamWriter] = []
        server = await asyncio.start_server(lambda _, writer: taken.append(writer), "127.0.0.1", 0)

        def close() -> None:
            server.close()
            for writer in taken:
                writer.transport.abort()

        self._stack.callback(close)
        return f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.fixture
async def town(short_tmp: Path) -> AsyncIterator[Town]:
    async with contextlib.AsyncExitStack() as stack:
        yield Town(short_tmp, stack)


def backend(*sites: Website) -> Backend:
    return Backend(sites[0].name, tuple(site.address for site in sites), "/health")


def all_on(served: Backend, *dark: Backend) -> TrafficPlan:
    return TrafficPlan("web", "production", (served, *dark), (Weight(served.release, 1000),))


def shop_calling(address: str) -> TrafficPlan:
    shop = Backend("shop-1", (f"127.0.0.1:{free_port()}",), "/health", (Egress("web", address),))
    return TrafficPlan("shop", "production", (shop,), ())


async def ask(address: str, times: int = 1) -> Counter[str]:
    """What *times* users get, each on a connection of his own: ``release status``, or ``nobody``."""
    uds = address.removeprefix("unix:") if address.startswith("unix:") else None
    url = "http://callee/" if uds else address
    seen: Counter[str] = Counter()
    for _ in range(times):
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=uds, verify=False)) as client:
            try:
                answer = await client.get(url)
                seen[f"{answer.headers.get('x-penstock-release', '')} {answer.status_code}"] += 1
            except httpx.TransportError:
                seen["nobody"] += 1
    return seen


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0)


async def tended_until(envoy: Envoy, address: str, wanted: str) -> None:
    """Look after Envoy, as an agent does, until users at *address* get what they should."""
    async with asyncio.timeout(SECONDS):
        while await ask(address) != {wanted: 1}:
            await envoy.tend()
            await asyncio.sleep(0.02)


def envoys_of(folder: Path) -> list[int]:
    """The pids of all Envoys that run on *folder*."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(folder / "envoy.json") in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


async def counters_of(envoy: Envoy, release: str) -> Counters:
    return next(c for c in await envoy.counters("web", "production") if c.release == release)


# --- instances ---------------------------------------------------------------------------------------------


async def test_a_backend_that_hangs_is_known_and_not_ready(town: Town) -> None:
    """Or the next plan, which is made of what was read, would forget it."""
    envoy, site = town.driver(), await town.site("web-1")
    state = await envoy.apply(all_on(backend(site)), fence=FENCE)
    hanging = Backend("web-2", (await town.hanging(),), "/health")
    state = await envoy.apply(state.exposing(hanging), fence=FENCE)
    assert {found.release: (found.ready, found.total) for found in state.backends} == {
        "web-1": (1, 1),
        "web-2": (0, 1),
    }


async def test_one_instance_of_two_may_go(town: Town) -> None:
    envoy, stays, goes = town.driver(), await town.site("web-1"), await town.site("web-1")
    state = await envoy.apply(all_on(backend(stays, goes)), fence=FENCE)
    await ask(state.address, 10)
    await goes.stop()
    answers = await asyncio.gather(*(ask(state.address, 10) for _ in range(5)))
    assert sum(answers, Counter()) == {"web-1 200": 50}
    await goes.start()  # to be stopped with the rest


async def test_what_users_did_not_get_is_an_error(town: Town) -> None:
    envoy, site = town.driver(), await town.site("web-1")
    state = await envoy.apply(all_on(backend(site)), fence=FENCE)
    await ask(state.address, 3)
    await site.stop()
    assert await ask(state.address, 4) == {"web-1 503": 4}
    counted = await counters_of(envoy, "web-1")
    assert (counted.requests, counted.errors) == (7, 4)
    await site.start()


async def test_users_behind_other_proxies_count(town: Town) -> None:
    """Envoy counts apart whom it takes for its own network; a header must not make anybody one of those."""
    envoy, site = town.driver(), await town.site("web-1")
    state = await envoy.apply(all_on(backend(site)), fence=FENCE)
    pipe = f"unix:{town.sockets / 'shop.sock'}"
    await envoy.apply(shop_calling(pipe), fence=FENCE)
    transport = httpx.AsyncHTTPTransport(verify=False)
    async with httpx.AsyncClient(transport=transport, base_url=state.address) as client:
        for claimed in ("10.1.1.1", "127.0.0.1", "192.168.1.2, 10.0.0.1", "203.0.113.9"):
            await client.get("/", headers={"x-forwarded-for": claimed, "x-envoy-internal": "true"})
    await ask(pipe, 2)
    assert (await counters_of(envoy, "web-1")).requests == 6


async def test_counts_that_restart_have_another_epoch(town: Town) -> None:
    envoy, one, more = town.driver(), await town.site("web-1"), await town.site("web-1")
    dark = backend(await town.site("web-2"))
    state = await envoy.apply(all_on(backend(one), dark), fence=FENCE)
    await ask(state.address, 5)
    before = await counters_of(envoy, "web-1")

    shifted = await envoy.apply(state.shifting(Weight("web-1", 999), Weight("web-2", 1)), fence=FENCE)
    same = await counters_of(envoy, "web-1")
    assert (same.epoch, same.requests) == (before.epoch, 5)

    grown = await envoy.apply(shifted.exposing(backend(one, more)), fence=FENCE)
    after = await counters_of(envoy, "web-1")
    assert after.epoch != before.epoch  # Envoy makes a new cluster of it, which counts from nought

    await envoy.apply(grown.shifting(Weight("web-1", 1000)), fence=FENCE)
    assert (await counters_of(envoy, "web-1")).epoch == after.epoch


# --- updates that Envoy refuses ---------------------------------------------------------------------------


async def test_refused_routes_leave_the_last_good_ones(town: Town) -> None:
    envoy, site = town.driver(), await town.site("web-1")
    state = await envoy.apply(all_on(backend(site)), fence=FENCE)
    odd = Backend("web%2", (site.address,))  # a fine name for a cluster; not for a header's format
    with pytest.raises(Invalid, match="Couldn't find valid command"):
        await envoy.apply(state.exposing(odd), fence=FENCE)
    assert await envoy.read("web", "production") == state
    assert await ask(state.address, 5) == {"web-1 200": 5}
    state = await envoy.apply(all_on(backend(await town.site("web-2"))), fence=FENCE)
    assert await ask(state.address, 5) == {"web-2 200": 5}


async def test_a_change_of_weights_alone_touches_nobody_elses_configuration(town: Town) -> None:
    envoy, one, two = town.driver(), await town.site("web-1"), await town.site("web-2")
    state = await envoy.apply(all_on(backend(one), backend(two)), fence=FENCE)
    shared = [town.folder / "cds.json", town.folder / "lds.json"]
    before = [file.stat().st_mtime_ns for file in shared]
    state = await envoy.apply(state.shifting(Weight("web-2", 1000)), fence=FENCE)
    assert await ask(state.address, 5) == {"web-2 200": 5}
    assert [file.stat().st_mtime_ns for file in shared] == before
    # It is not taken for granted of another Envoy, nor by another driver.
    psutil.Process(envoys_of(town.folder)[0]).kill()
    state = await envoy.apply(state.shifting(Weight("web-1", 1000)), fence=FENCE)
    assert await ask(state.address, 5) == {"web-1 200": 5}
    state = await town.driver().apply(state.shifting(Weight("web-2", 1000)), fence=FENCE)
    assert await ask(state.address, 5) == {"web-2 200": 5}


async def test_an_address_in_use_is_refused(town: Town) -> None:
    envoy, site = town.driver(), await town.site("web-1")
    state = await envoy.apply(all_on(backend(site)), fence=FENCE)
    with pytest.raises(Invalid, match="Address already in use"):
        await envoy.apply(shop_calling(site.address), fence=FENCE)
    assert await envoy.read("shop", "production") == TrafficState("shop", "production")
    assert await ask(state.address, 5) == {"web-1 200": 5}


async def test_a_port_is_never_shared(town: Town) -> None:
    """Two homes that were given the same port while the other was down: users must not meet both."""
    first, second = town.driver(), town.driver(town.sockets / "other")
    ours, theirs = await town.site("web-1"), await town.site("web-2")
    state = await first.apply(all_on(backend(ours)), fence=FENCE)
    await first.stop()
    assert (await second.apply(all_on(backend(theirs)), fence=FENCE)).address == state.address
    back = town.driver()
    with pytest.raises(Invalid, match="Address already in use"):
        await back.apply(all_on(backend(ours)), fence=FENCE)
    assert await ask(state.address, 20) == {"web-2 200": 20}
    with pytest.raises(Unavailable):  # "no traffic" would be taken for the truth by whoever plans next
        await back.read("web", "production")


# --- deaths ------------------------------------------------------------------------------------------------


async def test_an_agent_that_dies_half_way_loses_nobody(town: Town) -> None:
    envoy, old, new = town.driver(), await town.site("web-1"), await town.site("web-2")
    state = await envoy.apply(all_on(backend(old)), fence=FENCE)
    routes = town.folder / "rds-web.production.json"
    half_way = asyncio.create_task(envoy.apply(all_on(backend(new)), fence=FENCE))
    await until(lambda: "web-2" in routes.read_text())
    half_way.cancel()
    assert isinstance((await asyncio.gather(half_way, return_exceptions=True))[0], asyncio.CancelledError)

    heir = town.driver()
    assert (await heir.read("web", "production")).drift == "", "it was asked for, though nobody kept that"
    await heir.apply(shop_calling(f"unix:{town.sockets / 'shop.sock'}"), fence=FENCE)  # someone else's turn
    assert await ask(state.address, 5) == {"web-2 200": 5}
    read = await heir.read("web", "production")
    assert (read.weights, read.drift) == ((Weight("web-2", 1000),), "")
    assert {found.release for found in read.backends} == {"web-1", "web-2"}
    state = await heir.apply(all_on(backend(old)), fence=FENCE)  # what it was told before is a change now
    assert state.weights == (Weight("web-1", 1000),)
    assert await ask(state.address, 5) == {"web-1 200": 5}


async def test_an_agent_that_dies_at_a_first_deployment_is_in_nobodys_way(town: Town) -> None:
    envoy, site = town.driver(), await town.site("web-1")
    pipe = f"unix:{town.sockets / 'shop.sock'}"
    shop = shop_calling(pipe)
    await envoy.apply(shop, fence=FENCE)
    half_way = asyncio.create_task(envoy.apply(all_on(backend(site)), fence=FENCE))
    await until(lambda: "web-1" in (town.folder / "cds.json").read_text())
    half_way.cancel()
    assert isinstance((await asyncio.gather(half_way, return_exceptions=True))[0], asyncio.CancelledError)

    heir = town.driver()
    assert await heir.read("web", "production") == TrafficState("web", "production")
    await heir.apply(replace(shop, service="till", backends=()), fence=FENCE)
    assert await ask(pipe) == {" 503": 1}
    state = await heir.apply(all_on(backend(site)), fence=FENCE)
    assert await ask(state.address) == await ask(pipe) == {"web-1 200": 1}


async def test_callers_come_back_too(town: Town) -> None:
    """A killed Envoy leaves its sockets behind; they must not keep the next one from its addresses."""
    envoy, site = town.driver(), await town.site("web-1")
    state = await envoy.apply(all_on(backend(site)), fence=FENCE)
    pipe, port = f"unix:{town.sockets / 'shop.sock'}", f"127.0.0.1:{free_port()}"
    shop = shop_calling(pipe)
    till = Backend("till-1", shop.backends[0].addresses, "/health", (Egress("web", port),))
    await envoy.apply(shop, fence=FENCE)
    await envoy.apply(TrafficPlan("till", "production", (till,), ()), fence=FENCE)
    (pid,) = envoys_of(town.folder)
    psutil.Process(pid).kill()
    for address in (state.address, pipe, f"http://{port}"):
        await tended_until(envoy, address, "web-1 200")
    assert (town.sockets / "shop.sock").stat().st_mode & 0o777 == 0o600


async def test_an_envoy_that_nobody_wrote_down_is_found(town: Town) -> None:
    envoy, site = town.driver(), await town.site("web-1")
    state = await envoy.apply(all_on(backend(site)), fence=FENCE)
    running = envoys_of(town.folder)
    (town.folder / "envoy.pid").unlink()
    heir = town.driver()
    await heir.tend()
    assert await heir.read("web", "production") == state
    assert envoys_of(town.folder) == running
    (town.folder / "envoy.pid").unlink()
    await heir.stop()
    assert envoys_of(town.folder) == []


async def test_an_answer_on_its_way_is_waited_for(town: Town) -> None:
    envoy = town.driver()
    asked, go = asyncio.Event(), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")  # a health check only connects
            asked.set()
            await go.wait()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        state = await envoy.apply(all_on(Backend("web-1", (f"127.0.0.1:{port}",))), fence=FENCE)
        asking = asyncio.create_task(ask(state.address))
        await asyncio.wait_for(asked.wait(), SECONDS)
        stopping = asyncio.create_task(envoy.stop())
        # Longer than Envoy is given if nobody is waiting, shorter than it is given if somebody is.
        await asyncio.sleep(0.6)
        go.set()
        assert await asking == {"web-1 200": 1}
        await stopping
    finally:
        server.close()


# --- files -------------------------------------------------------------------------------------------------


async def test_logs_stay_bounded(town: Town) -> None:
    envoy, site = town.driver(), await town.site("web-1")
    state = await envoy.apply(all_on(backend(site)), fence=FENCE)
    access, own = town.folder / "access.log", town.folder / "envoy.log"
    await ask(state.address)
    for log in (access, own):
        os.truncate(log, LOG_BYTES + 1)  # a sparse file: it takes no space
    await envoy.tend()
    assert own.stat().st_size < LOG_BYTES
    await ask(state.address)
    async with asyncio.timeout(SECONDS):
        while not (access.exists() and access.read_text().endswith("\n")):
            await asyncio.sleep(0.05)
    line = json.loads(access.read_text().splitlines()[-1])
    assert (line["service"], line["release"], line["status"]) == ("web.production", "web-1", 200)
    assert access.stat().st_size < LOG_BYTES


async def test_an_envoy_that_cannot_start_says_why(short_tmp: Path) -> None:
    folder = short_tmp / ("long" * 30)
    folder.mkdir()
    with pytest.raises(Broken, match="socket path size"):
        await Process(folder, Admin(folder / "admin.sock")).ready(seconds=1.5)


async def test_a_damaged_state_says_where(town: Town) -> None:
    town.driver()
    state = town.folder / "state.json"
    for damaged in (state.read_text()[:-5], "[]", '{"token": 7}'):
        state.write_text(damaged)
        with pytest.raises(Broken, match=r"state\.json"):
            town.driver()
