"""Envoy and its users, one by one: previews in a browser, places that are kept, chains that end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest

from fakes.web import Website, free_port
from penstock.adapters.envoy import Envoy
from penstock.core.fence import Fence
from penstock.core.traffic import (
    PREVIEW_COOKIE,
    PREVIEW_HEADER,
    TOKEN_HEADER,
    Backend,
    Egress,
    TrafficPlan,
    TrafficState,
    Weight,
    preview_host,
    sticky_cookie,
)
from penstock.errors import Invalid

FENCE = Fence("web/production", 1, "key")
SECONDS = 20.0
USERS = 10_000
#: Thousandths of users, as a canary may raise them.
STEPS = (1, 50, 250, 500, 999, 1000)
RESTART = 250


class Town:
    def __init__(self, folder: Path, stack: contextlib.AsyncExitStack) -> None:
        self.folder = folder / "envoy"
        self.sockets = folder
        self.port = free_port()
        self.stack = stack
        self.sites: dict[str, Website] = {}
        self.envoy = self.driver()

    def driver(self) -> Envoy:
        envoy = Envoy(self.folder, self.port)
        self.stack.push_async_callback(envoy.stop)
        return envoy

    async def backend(self, name: str) -> Backend:
        self.sites[name] = site = Website(name)
        await site.start()
        self.stack.push_async_callback(site.stop)
        return Backend(name, (site.address,), "/health")

    async def serving(self) -> TrafficState:
        """Users on the first release; the second is dark."""
        known = (await self.backend("web-1"), await self.backend("web-2"))
        plan = TrafficPlan("web", "production", known, (Weight("web-1", 1000),))
        return await self.envoy.apply(plan, fence=FENCE)

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(json.loads((self.folder / "envoy.pid").read_text())["pid"])


@pytest.fixture
async def town(short_tmp: Path) -> AsyncIterator[Town]:
    async with contextlib.AsyncExitStack() as stack:
        yield Town(short_tmp, stack)


async def raw(port: int, *lines: str) -> str:
    """The head of the answer to a request of exactly these lines."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write("\r\n".join((*lines, "", "")).encode())
        async with asyncio.timeout(SECONDS):
            return (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    finally:
        writer.close()


# --- previews ----------------------------------------------------------------------------------------------


async def test_headers_given_twice_open_no_more_than_given_once(town: Town) -> None:
    state = await town.serving()
    token = f"{TOKEN_HEADER}: {state.preview_token}"
    halves = state.preview_token[:20], state.preview_token[20:]
    host, named = f"host: {preview_host('web-2')}", f"{PREVIEW_HEADER}: web-2"
    seen = {
        lines: "x-penstock-release: web-2" in await raw(town.port, "GET / HTTP/1.1", *lines)
        for lines in (
            (host, token),
            ("host: web", named, token),
            ("host: web", named.replace("penstock", "PENSTOCK"), token.replace("penstock", "Penstock")),
            (host, *[f"{TOKEN_HEADER}: guessed"] * 2),
            (host, *(f"{TOKEN_HEADER}: {half}" for half in halves)),
            ("host: web", named, named),
            ("host: web", f"{PREVIEW_HEADER}: web-9", f"{PREVIEW_HEADER}: web-1", token),
            (host, f"cookie: {PREVIEW_COOKIE}={state.preview_token.upper()}"),
        )
    }
    assert list(seen.values()) == [True, True, True, False, False, False, False, False]


async def test_a_browser_opens_a_dark_release_by_a_link(town: Town) -> None:
    state = await town.serving()
    link = f"/cart/7?{TOKEN_HEADER}={state.preview_token}"
    async with httpx.AsyncClient(base_url=state.address, verify=False) as browser:
        there = {"host": preview_host("web-2")}
        for stranger in ({"host": "web"}, {"host": preview_host("web-9")}):
            assert (await browser.get(link, headers=stranger)).headers["x-penstock-release"] == "web-1"
        sent = await browser.get(link, headers=there)
        assert (sent.status_code, sent.headers["location"]) == (303, f"http://{preview_host('web-2')}/cart/7")
        assert "httponly" in sent.headers["set-cookie"].lower()
        cookie = {"cookie": sent.headers["set-cookie"].partition(";")[0]}
        shown = await browser.get("/cart/7", headers=there | cookie)
        assert (shown.status_code, shown.text) == (200, "web-2")
        browser.cookies.clear()
        for wrong in ("", "x", state.preview_token[:-1]):
            refused = await browser.get(f"/?{TOKEN_HEADER}={wrong}", headers=there)
            assert (refused.status_code, refused.text) == (200, "web-1")
    async with asyncio.timeout(SECONDS):
        while (log := (town.folder / "access.log").read_text()).count("/cart/7") < 4:
            await asyncio.sleep(0.02)
    assert state.preview_token not in log


# --- chains ------------------------------------------------------------------------------------------------


async def test_a_chain_ends_on_connections_that_are_open_already(town: Town) -> None:
    await town.serving()
    shop = replace(
        await town.backend("shop-1"), egress=(Egress("web", f"127.0.0.1:{free_port()}"),), chain=("web-2",)
    )
    fence = Fence("shop/production", 1, "key")
    state = await town.envoy.apply(TrafficPlan("shop", "production", (shop,), ()), fence=fence)
    async with httpx.AsyncClient(base_url=f"http://{shop.egress[0].address}", verify=False) as caller:
        assert (await caller.get("/")).text == "web-2"
        await town.envoy.apply(state.shifting(Weight("shop-1", 1000)), fence=fence)
        assert [(await caller.get("/")).text for _ in range(20)] == ["web-1"] * 20


async def test_a_chain_ends_though_its_driver_died_on_the_way(town: Town) -> None:
    """The plan without the chain was kept, and nothing else was done."""
    await town.serving()
    egress = (Egress("web", f"127.0.0.1:{free_port()}"),)
    shop = replace(await town.backend("shop-1"), egress=egress, chain=("web-2",))
    fence = Fence("shop/production", 1, "key")
    state = await town.envoy.apply(TrafficPlan("shop", "production", (shop,), ()), fence=fence)
    file = town.folder / "state.json"
    file.write_text(file.read_text().replace('"chain": ["web-2"]', '"chain": []'))
    town.envoy = town.driver()
    await town.envoy.apply(state.shifting(Weight("shop-1", 1000)), fence=fence)
    async with httpx.AsyncClient(base_url=f"http://{shop.egress[0].address}", verify=False) as caller:
        assert (await caller.get("/")).text == "web-1"


# --- who keeps his place -----------------------------------------------------------------------------------


class Crowd:
    """Users with a browser each, who come again and again; many at a time on each of a few connections."""

    def __init__(self, port: int, salt: str) -> None:
        self._port = port
        self._cookie = sticky_cookie(salt)
        self.cookies = [""] * USERS
        self.release = [""] * USERS

    async def come(self) -> Counter[tuple[str, str]]:
        """Everybody asks once. How many were where before, and are where now."""
        groups = [range(start, USERS, 8) for start in range(8)]
        moves: Counter[tuple[str, str]] = Counter()
        async with asyncio.timeout(120):
            for found in await asyncio.gather(*(self._group(group) for group in groups)):
                moves += found
        return moves

    async def _group(self, users: Sequence[int]) -> Counter[tuple[str, str]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        moves: Counter[tuple[str, str]] = Counter()
        try:
            for start in range(0, len(users), 50):
                some = users[start : start + 50]
                writer.write(b"".join(self._request(user) for user in some))
                got = b""
                while got.count(b"\r\n\r\n") < len(some) or not got.endswith(Names.ENDS):
                    got += await reader.read(1 << 16)
                for user, answer in zip(some, got.decode().split("HTTP/1.1 200 OK")[1:], strict=True):
                    moves[self.release[user], self._keep(user, answer)] += 1
        finally:
            writer.close()
        return moves

    def _request(self, user: int) -> bytes:
        cookie = f"cookie: {self._cookie}={self.cookies[user]}\r\n" if self.cookies[user] else ""
        return f"GET / HTTP/1.1\r\nhost: web\r\n{cookie}\r\n".encode()

    def _keep(self, user: int, answer: str) -> str:
        given = re.search(rf"set-cookie: {self._cookie}=([^;]+);", answer)
        assert (given is None) == bool(self.cookies[user]), "a cookie is given once"
        self.cookies[user] = given.group(1) if given else self.cookies[user]
        self.release[user] = answer.rpartition("\r\n\r\n")[2]
        return self.release[user]


class Names(asyncio.Protocol):
    """A site that says its name, quickly: one of *ENDS*."""

    ENDS = (b"web-1", b"web-2")

    def __init__(self, name: str) -> None:
        self._answer = f"HTTP/1.1 200 OK\r\ncontent-length: {len(name)}\r\n\r\n{name}".encode()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(self._answer)  # a proxy asks for one thing at a time


async def quick(town: Town, name: str) -> Backend:
    server = await asyncio.get_running_loop().create_server(lambda: Names(name), "127.0.0.1", 0)
    town.stack.callback(server.close)
    return Backend(name, (f"127.0.0.1:{server.sockets[0].getsockname()[1]}",))


async def traced(town: Town, collector: str) -> None:
    """Turn tracing on in every listener: by itself, Envoy then writes a reason into request ids."""
    file = town.folder / "lds.json"
    found = json.loads(file.read_text())
    uri = {"uri": "http://127.0.0.1/v1/traces", "cluster": collector, "timeout": "1s"}
    exporter = {
        "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
        "http_service": {"http_uri": uri},
    }
    for listener in found["resources"]:
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        provider = {"name": "envoy.tracers.opentelemetry", "typed_config": exporter}
        manager["tracing"] = {"random_sampling": {"value": 20.0}, "provider": provider}
    found["version_info"] = version = f"traced-{found['version_info']}"
    temporary = file.with_suffix(".traced")
    temporary.write_text(json.dumps(found))
    temporary.replace(file)
    transport = httpx.AsyncHTTPTransport(uds=str(town.folder / "admin.sock"), verify=False)
    async with httpx.AsyncClient(transport=transport) as admin, asyncio.timeout(SECONDS):
        while version not in (await admin.get("http://envoy/stats?filter=lds.version_text")).text:
            await asyncio.sleep(0.01)


async def restarted(town: Town) -> None:
    """Kill Envoy, and look after it until users are served again."""
    town.process.kill()
    async with (
        asyncio.timeout(SECONDS),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{town.port}", verify=False) as client,
    ):
        while True:
            await town.envoy.tend()
            with contextlib.suppress(httpx.TransportError):
                if (await client.get("/")).status_code == 200:
                    return
            await asyncio.sleep(0.02)


async def test_ten_thousand_users_move_once_each_though_requests_are_traced(town: Town) -> None:
    known = (await quick(town, "web-1"), await quick(town, "web-2"), await town.backend("web-3"))
    plan = TrafficPlan("web", "production", known, (Weight("web-1", 1000),))
    state = await town.envoy.apply(plan, fence=FENCE)
    plan = replace(state.shifting(Weight("web-1", 999), Weight("web-2", 1)), sticky="web-2")
    state = await town.envoy.apply(plan, fence=FENCE)
    crowd = Crowd(town.port, "web-2")
    for share in STEPS:
        weights = (Weight("web-1", 1000 - share), Weight("web-2", share))
        state = await town.envoy.apply(state.shifting(*weights), fence=FENCE)
        if share == STEPS[0]:
            await traced(town, "web-3+preview")
        moves = await crowd.come()
        assert moves["web-2", "web-1"] == 0, f"users went back at {share / 10:g}%"
        there, expected = crowd.release.count("web-2"), USERS * share / 1000
        assert abs(there - expected) <= 5 * expected**0.5, f"{there} users at {share / 10:g}%"
        if share == RESTART:
            await restarted(town)
            assert set(await crowd.come()) == {("web-1", "web-1"), ("web-2", "web-2")}
            state = await town.envoy.apply(state.plan, fence=FENCE)
            await traced(town, "web-3+preview")
    assert crowd.release.count("web-2") == USERS
    assert any("post /v1/traces" in head for head in town.sites["web-3"].heads)
    await town.envoy.apply(state.settling("web-1"), fence=FENCE)
    assert (await crowd.come()) == {("web-2", "web-1"): USERS}


# --- what Envoy would refuse -------------------------------------------------------------------------------


async def test_what_envoy_would_refuse_never_reaches_it(town: Town) -> None:
    state = await town.serving()
    before = {file.name: file.read_text() for file in town.folder.glob("?ds*.json")}
    long = replace(await town.backend("web-3"), health_path="/a\r\nb: c")
    for bad in (Backend("web-3", ("999.1.1.1:80",)), Backend("web-3", ("127.0.0.1:70000",)), long):
        with pytest.raises(Invalid, match="would refuse"):
            await town.envoy.apply(state.exposing(bad), fence=FENCE)
    assert {file.name: file.read_text() for file in town.folder.glob("?ds*.json")} == before
    transport = httpx.AsyncHTTPTransport(uds=str(town.folder / "admin.sock"), verify=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://envoy") as admin:
        counted = (await admin.get("/stats?filter=update_(rejected|failure)")).text
    assert set(re.findall(r": (\d+)", counted)) == {"0"}
    assert await town.envoy.read("web", "production") == state


# --- sick instances ----------------------------------------------------------------------------------------


async def test_a_sick_instance_is_passed_over_though_its_health_is_good(town: Town) -> None:
    """Its own health check passes, and users get 503 from it: at most a few of them."""
    well, sick = await town.backend("web-1"), await town.backend("web-0")
    town.sites["web-0"].status = "503 Sick"
    both = replace(well, addresses=(*well.addresses, *sick.addresses))
    plan = TrafficPlan("web", "production", (both,), (Weight("web-1", 1000),))
    state = await town.envoy.apply(plan, fence=FENCE)
    async with httpx.AsyncClient(base_url=state.address, verify=False) as client:
        seen = [(await client.get("/")).status_code for _ in range(30)]
    assert seen.count(503) == 5
    assert set(seen[-15:]) == {200}
    assert (await town.envoy.read("web", "production")).ready("web-1")
