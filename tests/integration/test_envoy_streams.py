"""What talks for long, through a real Envoy: it goes on past the time limit of answers, stays with the
release where it began while users move, and ends with that release's instances."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import httpx
import pytest

from fakes.streams import EVERY_SECONDS, GrpcTalker, Talker
from fakes.web import free_port
from penstock.adapters.envoy import Envoy
from penstock.checks.load import EMPTY_MESSAGE, GRPC_HEADERS
from penstock.core.fence import Fence
from penstock.core.traffic import Backend, Handling, Mirror, TrafficPlan, TrafficState, Weight
from penstock.telemetry.rollups import difference

FENCE = Fence("web/production", 1, "key")
SECONDS = 10.0
#: Far less than the streams below last.
HANDLING = Handling(timeout_seconds=0.5, idle_seconds=2.0)
DRAIN = 1.0
#: How different users notice that a stream has ended.
ENDS = (httpx.HTTPError, ConnectionError, grpc.RpcError, asyncio.InvalidStateError)

#: Says who answers, each time it is called; raises once the stream has ended.
Following = Callable[[], Awaitable[str]]
Open = Callable[[str], AbstractAsyncContextManager[Following]]


# --- users -----------------------------------------------------------------------------------------------


def client(*, http2: bool = False, seconds: float = SECONDS) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(verify=False, http1=not http2, http2=http2)
    return httpx.AsyncClient(transport=transport, timeout=seconds)


@asynccontextmanager
async def events(address: str, *, http2: bool = False) -> AsyncIterator[Following]:
    async with client(http2=http2) as user, user.stream("GET", f"{address}/events") as answer:
        assert answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
        lines = (line async for line in answer.aiter_lines() if line)

        async def following() -> str:
            return (await anext(lines)).removeprefix("data: ")

        yield following


@asynccontextmanager
async def events_http2(address: str) -> AsyncIterator[Following]:
    async with events(address, http2=True) as following:
        yield following


@asynccontextmanager
async def websocket(address: str) -> AsyncIterator[Following]:
    parts = urlsplit(address)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    key = base64.b64encode(os.urandom(16)).decode()
    lines = ("GET /ws HTTP/1.1", f"host: {parts.netloc}", "connection: upgrade", "upgrade: websocket")
    asked = (*lines, f"sec-websocket-key: {key}", "sec-websocket-version: 13", "", "")
    writer.write("\r\n".join(asked).encode())
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")

    async def following() -> str:
        await asyncio.sleep(EVERY_SECONDS)
        writer.write(b"hello\n")
        line = (await reader.readline()).decode()
        if not line:
            raise ConnectionError("closed")
        return line.split()[0]

    with contextlib.closing(writer):
        yield following


@asynccontextmanager
async def grpc_stream(address: str) -> AsyncIterator[Following]:
    async with grpc.aio.insecure_channel(urlsplit(address).netloc) as channel:
        call = channel.unary_stream("/talk/Stream")(b"")

        async def following() -> str:
            message = await call.read()
            if message is grpc.aio.EOF:
                raise ConnectionError("closed")
            return bytes(message).decode()

        yield following


@asynccontextmanager
async def grpc_chat(address: str) -> AsyncIterator[Following]:
    async with grpc.aio.insecure_channel(urlsplit(address).netloc) as channel:
        call = channel.stream_stream("/talk/Chat")()

        async def following() -> str:
            await asyncio.sleep(EVERY_SECONDS)
            await call.write(b"hello")
            message = await call.read()
            if message is grpc.aio.EOF:
                raise ConnectionError("closed")
            return bytes(message).decode().split()[0]

        yield following


KINDS: dict[str, tuple[Open, type[Talker] | type[GrpcTalker]]] = {
    "events": (events, Talker),
    "events over HTTP/2": (events_http2, Talker),
    "WebSocket": (websocket, Talker),
    "gRPC stream": (grpc_stream, GrpcTalker),
    "gRPC chat": (grpc_chat, GrpcTalker),
}


async def until_it_ends(following: Following) -> None:
    while True:
        assert await following() == "web-1"


# --- two releases behind an Envoy ------------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """web-1 has the users, web-2 is dark."""

    envoy: Envoy
    talkers: dict[str, Talker | GrpcTalker]
    state: TrafficState

    async def apply(self, plan: TrafficPlan) -> TrafficState:
        return await self.envoy.apply(plan, fence=FENCE)


@asynccontextmanager
async def scene(folder: Path, kind: type[Talker] | type[GrpcTalker]) -> AsyncIterator[Scene]:
    envoy, talkers = Envoy(folder / "envoy", free_port()), {name: kind(name) for name in ("web-1", "web-2")}
    spoken, health = ("grpc", "") if kind is GrpcTalker else ("http/1.1", "/health")
    async with contextlib.AsyncExitStack() as stack:
        for talker in talkers.values():
            await talker.start()
            stack.push_async_callback(talker.kill)
        stack.push_async_callback(envoy.stop)
        backends = tuple(
            Backend(name, (talker.address,), health, drain_seconds=DRAIN, protocol=spoken)
            for name, talker in talkers.items()
        )
        users = (Weight("web-1", 1000),)
        plan = TrafficPlan("web", "production", backends, users, handling=HANDLING)
        yield Scene(envoy, talkers, await envoy.apply(plan, fence=FENCE))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_stays_where_it_began_until_its_release_ends(short_tmp: Path, kind: str) -> None:
    opened, talker = KINDS[kind]
    async with asyncio.timeout(60), scene(short_tmp, talker) as s, opened(s.state.address) as following:
        began = time.monotonic()
        while time.monotonic() < began + 3 * HANDLING.timeout_seconds:  # and longer than it may be silent
            assert await following() == "web-1"
        state = await s.apply(s.state.shifting(Weight("web-2", 1000)))
        assert await following() == "web-1"
        async with opened(s.state.address) as other:
            assert await other() == "web-2"
            # It is waited for, and goes on; but not for ever, nor are its messages held back meanwhile.
            known = next(found.backend for found in state.backends if found.release == "web-1")
            began = time.monotonic()
            leaving = asyncio.create_task(s.apply(state.exposing(replace(known, addresses=()))))
            while not leaving.done():
                assert await following() == "web-1"
                assert await other() == "web-2"
            await leaving
            assert time.monotonic() >= began + DRAIN
            assert await following() == "web-1"
            await s.talkers["web-1"].kill()
            with pytest.raises(ENDS):
                await until_it_ends(following)
            assert await other() == "web-2"


async def test_plain_requests_are_bounded(short_tmp: Path) -> None:
    async with scene(short_tmp, Talker) as s, client() as user:
        began = time.monotonic()
        late = await user.get(f"{s.state.address}/late")
        assert (late.status_code, late.headers["x-penstock-flags"]) == (504, "UT")
        assert time.monotonic() >= began + HANDLING.timeout_seconds
        # It has begun, and then says nothing: there is an end to that, too.
        began = time.monotonic()
        with pytest.raises(httpx.HTTPError) as ended:
            async with user.stream("GET", f"{s.state.address}/silent") as silent:
                assert [chunk async for chunk in silent.aiter_bytes()] == []
        assert not isinstance(ended.value, httpx.TimeoutException), "it was the user who gave up"
        assert time.monotonic() >= began + HANDLING.idle_seconds


async def test_users_of_any_protocol_reach_services_of_any_protocol(short_tmp: Path) -> None:
    async with scene(short_tmp, Talker) as s, client(http2=True) as user:
        answer = await user.get(f"{s.state.address}/")
        assert (answer.http_version, answer.text) == ("HTTP/2", "web-1")
    async with scene(short_tmp / "2", GrpcTalker) as s:
        async with grpc.aio.insecure_channel(urlsplit(s.state.address).netloc) as channel:
            assert await channel.unary_unary("/talk/Once")(b"hello") == b"web-1 hello"
            with pytest.raises(grpc.RpcError) as refused:
                await channel.unary_unary("/talk/Nothing")(b"hello")
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
        async with client() as user:  # as acceptance asks it
            for path, status in (("/talk/Once", None), ("/", "12")):
                url = f"{s.state.address}{path}"
                answer = await user.post(url, headers=GRPC_HEADERS, content=EMPTY_MESSAGE)
                told = (answer.headers["x-penstock-release"], answer.status_code)
                assert (*told, answer.headers.get("grpc-status")) == ("web-1", 200, status)


# --- what the canary and error budgets see ---------------------------------------------------------------


async def failed(channel: grpc.aio.Channel, method: str, asked: str = "") -> grpc.StatusCode:
    call = channel.unary_stream(f"/talk/{method}")(asked.encode())
    with contextlib.suppress(grpc.RpcError):
        while await call.read() is not grpc.aio.EOF:
            pass
    return await call.code()


async def seen(envoy: Envoy) -> dict[str, tuple[int, int]]:
    """Requests and errors of each release."""
    counted = await envoy.counters("web", "production")
    return {counters.release: (counters.requests, counters.errors) for counters in counted}


async def test_statuses_of_grpc_are_errors_of_the_release_that_answered(short_tmp: Path) -> None:
    async with asyncio.timeout(60), scene(short_tmp, GrpcTalker) as s:
        before = await s.envoy.counters("web", "production")
        # A copy of each goes to the dark release, which is not asked by users.
        await s.apply(replace(s.state.plan, mirror=Mirror("web-2", 1000)))
        async with grpc.aio.insecure_channel(urlsplit(s.state.address).netloc) as channel:
            for errors, status in enumerate(("INTERNAL", "UNKNOWN", "UNAVAILABLE", "DATA_LOSS"), 1):
                assert await failed(channel, "Fail", status) is grpc.StatusCode[status]
                assert await seen(s.envoy) == {"web-1": (errors, errors), "web-2": (0, 0)}
            for status in ("NOT_FOUND", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"):
                assert await failed(channel, "Fail", status) is grpc.StatusCode[status]
            assert await failed(channel, "Nothing") is grpc.StatusCode.UNIMPLEMENTED
            assert await seen(s.envoy) == {"web-1": (8, 5), "web-2": (0, 0)}
            # What the proxy answers itself is one error, not two.
            assert await failed(channel, "Late") is grpc.StatusCode.UNAVAILABLE
            assert await seen(s.envoy) == {"web-1": (9, 6), "web-2": (0, 0)}
            state = await s.envoy.read("web", "production")
            await s.apply(state.shifting(Weight("web-2", 1000)))
            assert await failed(channel, "Fail", "INTERNAL") is grpc.StatusCode.INTERNAL
            assert await failed(channel, "Once") is grpc.StatusCode.OK
        after = await s.envoy.counters("web", "production")
        assert await seen(s.envoy) == {"web-1": (9, 6), "web-2": (2, 1)}
        spent = difference(before, after)
        assert (spent.requests, spent.errors) == (11, 7), "error budgets are of the same counts"


async def test_a_plain_server_that_fails_is_an_error_as_before(short_tmp: Path) -> None:
    async with asyncio.timeout(60), scene(short_tmp, Talker) as s, client() as user:
        assert (await user.get(f"{s.state.address}/")).status_code == 200
        assert (await user.get(f"{s.state.address}/late")).status_code == 504
        call = await user.post(f"{s.state.address}/late", headers=GRPC_HEADERS, content=EMPTY_MESSAGE)
        assert (call.status_code, call.headers["grpc-status"]) == (200, "14")
        assert (await seen(s.envoy))["web-1"] == (3, 2)
