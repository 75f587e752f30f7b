"""The proxy of the fake cluster, on the wire: what passes it, what it answers itself, what it counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from contracts.test_router_cluster import over_gateway
from fakes.web import Website, free_port
from penstock.testing.kubernetes.dataplane import DataPlane, Known, Way, seconds_of
from penstock.testing.kubernetes.gateway import listen_at
from penstock.testing.kubernetes.proxy import Proxy

#: What an endpoint does with a connection once it has read the head of a request.
Answers = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Fixed(DataPlane):
    """Every request goes the same way."""

    def __init__(self) -> None:
        super().__init__()
        self.the_way = Way([("web-1", 1)])

    def way(self, host: str, given: dict[str, str], path: str) -> Way:
        return self.the_way


class World:
    def __init__(self, plane: Fixed, proxy: Proxy, users: httpx.AsyncClient, stack: AsyncExitStack) -> None:
        self.plane = plane
        self.proxy = proxy
        self.users = users
        self._stack = stack

    def put(self, service: str, *ports: int) -> None:
        known = Known("shop", [("127.0.0.1", port) for port in ports])
        self.plane.services = {**self.plane.services, service: known}

    async def answering(self, answers: Answers, service: str = "web-1") -> None:
        """*service* has an endpoint that does this."""

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await answers(await reader.readuntil(b"\r\n\r\n"), reader, writer)
                await writer.drain()
            except ConnectionError:
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        self._stack.callback(server.close)
        self.put(service, server.sockets[0].getsockname()[1])

    async def site(self, service: str = "web-1") -> Website:
        site = Website(service)
        await site.start()
        self._stack.push_async_callback(site.stop)
        self.put(service, int(site.address.rpartition(":")[2]))
        return site

    def counted(self) -> list[tuple[str, str, str, int]]:
        """(service, code, flags, requests) of each series."""
        found = []
        for line in self.proxy.counted.page().splitlines():
            if line.startswith("istio_requests_total{"):
                pairs, _, number = line.partition("{")[2].rpartition("} ")
                labels = dict(pair.split("=", 1) for pair in pairs.split(","))
                names = ("destination_service_name", "response_code", "response_flags")
                service, code, flags = (labels[name].strip('"') for name in names)
                found.append((service, code, flags, int(number)))
        return found


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        plane = Fixed()
        proxy = await stack.enter_async_context(Proxy(plane))
        users = await stack.enter_async_context(
            httpx.AsyncClient(base_url=proxy.url, trust_env=False, verify=False)
        )
        yield World(plane, proxy, users, stack)


async def echo(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says what it got, head and body, in two pieces of an answer that has no length."""
    length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), b":0")
    body = await reader.readexactly(int(length.partition(b":")[2]))
    writer.write(b"HTTP/1.1 200 OK\r\nx-own: 1\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\r\n" + head)
    await writer.drain()
    writer.write(body)


async def pieces() -> AsyncIterator[bytes]:
    for piece in (b"one ", b"two ", b"three"):
        yield piece


async def test_bodies_and_headers_pass_both_ways(world: World) -> None:
    await world.answering(echo)
    world.plane.the_way = Way([("web-1", 1)], removed=("x-secret",))
    given = {"x-secret": "s", "x-mine": "m", "host": "web.example.org"}
    for content in (b"one two three", pieces()):
        answer = await world.users.post("/cart?n=1", content=content, headers=given)
        assert answer.status_code == 200
        assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]
        head, _, body = answer.content.partition(b"\r\n\r\n")
        assert body == b"one two three"
        lines = head.lower().split(b"\r\n")
        assert lines[0] == b"post /cart?n=1 http/1.1"
        assert {b"x-mine: m", b"host: web.example.org", b"x-forwarded-proto: http"} <= set(lines)
        assert not [line for line in lines if line.startswith((b"x-secret", b"transfer-encoding"))]


async def test_a_large_body_goes_through_whole(world: World) -> None:
    await world.answering(echo)
    body = bytes(range(256)) * 20_000
    answer = await world.users.post("/", content=body)
    assert answer.content.endswith(body)


async def test_a_connection_serves_many_requests_and_a_head_has_no_body(world: World) -> None:
    await world.site()
    reader, writer = await asyncio.open_connection("127.0.0.1", world.proxy.port)
    for method in (b"GET", b"HEAD", b"GET"):
        writer.write(method + b" / HTTP/1.1\r\nhost: web\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK")
        assert await reader.readexactly(5 if method == b"GET" else 0) in (b"web-1", b"")
    writer.close()


async def test_who_waits_to_be_asked_for_a_body_is_asked(world: World) -> None:
    await world.answering(echo)
    reader, writer = await asyncio.open_connection("127.0.0.1", world.proxy.port)
    writer.write(b"POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
    writer.write(b"ab")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_an_answer_comes_as_it_is_written(world: World) -> None:
    go_on = asyncio.Event()

    async def events(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nfirst\n")
        await go_on.wait()
        writer.write(b"second\n")

    await world.answering(events)
    async with world.users.stream("GET", "/") as answer:
        lines = answer.aiter_lines()
        assert await anext(lines) == "first"
        go_on.set()
        assert await anext(lines) == "second"


async def silent(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(5)


async def hangs_up(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"")


async def half_a_head(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 20")


async def no_http(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    await writer.drain()
    await asyncio.sleep(5)


@pytest.mark.parametrize(
    ("answers", "status", "flags"),
    [(silent, 504, "UT"), (hangs_up, 503, "UC"), (half_a_head, 503, "UC"), (no_http, 502, "UPE")],
)
async def test_what_an_endpoint_does_wrong(world: World, answers: Answers, status: int, flags: str) -> None:
    await world.answering(answers)
    world.plane.the_way = Way([("web-1", 1)], seconds=0.5)
    answer = await world.users.get("/")
    assert (answer.status_code, answer.headers["server"]) == (status, "istio-envoy")
    assert world.counted() == [("web-1", str(status), flags, 1)]


async def test_an_answer_that_is_cut_off_does_not_look_whole(world: World) -> None:
    async def cut(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")

    await world.answering(cut)
    with pytest.raises(httpx.RemoteProtocolError):
        await world.users.get("/")
    assert world.counted() == [("web-1", "200", "UC", 1)]


async def test_where_nobody_can_be_connected_to_others_are_tried(world: World) -> None:
    site = await world.site()
    there, gone = int(site.address.rpartition(":")[2]), free_port()
    world.put("web-1", gone, there)
    assert {(await world.users.get("/")).status_code for _ in range(4)} == {200}
    world.plane.the_way = Way([("web-1", 1)], retries=0)
    assert {(await world.users.get("/")).status_code for _ in range(4)} == {200, 503}
    assert sorted(world.counted()) == [("web-1", "200", "-", 6), ("web-1", "503", "UF", 2)]


async def test_what_the_proxy_says_itself(world: World) -> None:
    world.put("web-1")
    for way, status in (
        (Way([("web-1", 1)]), 503),
        (Way([("web-9", 1)]), 500),
        (Way(status=404), 404),
        (Way(status=503), 503),
    ):
        world.plane.the_way = way
        assert (await world.users.get("/")).status_code == status
    assert world.counted() == [
        ("web-1", "503", "UH", 1),
        ("unknown", "500", "-", 1),
        ("unknown", "404", "NR", 1),
        ("unknown", "503", "-", 1),
    ]


@pytest.mark.parametrize(
    "said",
    [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nhost: web\r\nx: " + b"y" * 20_000],
)
async def test_what_is_no_request_is_refused(world: World, said: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", world.proxy.port)
    writer.write(said)
    assert (await reader.read()).startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))
    writer.close()


async def test_an_endpoint_that_goes_ends_what_it_has_begun(world: World) -> None:
    old, new = await world.site(), await world.site("web-2")
    begun = asyncio.ensure_future(world.users.get("/hold"))
    async with asyncio.timeout(10):
        while not old.held:
            await asyncio.sleep(0.01)
    world.put("web-1", int(new.address.rpartition(":")[2]))
    assert [(await world.users.get("/")).text for _ in range(3)] == ["web-2"] * 3
    old.let_go.set()
    assert (await begun).text == "web-1"


async def test_a_user_who_leaves_has_no_answer_and_no_error(world: World) -> None:
    site = await world.site()
    _, writer = await asyncio.open_connection("127.0.0.1", world.proxy.port)
    writer.write(b"GET /hold HTTP/1.1\r\nhost: web\r\n\r\n")
    async with asyncio.timeout(10):
        while not site.held:
            await asyncio.sleep(0.01)
        writer.close()
        await writer.wait_closed()
        site.let_go.set()
        while not world.counted():
            await asyncio.sleep(0.01)
    assert world.counted() == [("web-1", "0", "DC", 1)]


async def test_copies_reach_the_mirror_and_nobody_counts_them(world: World) -> None:
    await world.site()
    mirror = await world.site("web-2")
    world.plane.the_way = Way([("web-1", 1)], mirrored=("web-2", 1000.0))
    for _ in range(3):
        assert (await world.users.get("/", headers={"host": "web.example.org"})).text == "web-1"
    async with asyncio.timeout(10):
        while len(mirror.heads) < 3:
            await asyncio.sleep(0.01)
    assert all("host: web.example.org-shadow\r\n" in head for head in mirror.heads)
    assert world.counted() == [("web-1", "200", "-", 3)]


async def test_what_was_counted_is_told_at_a_port_of_its_own(world: World) -> None:
    await world.site()
    await world.users.get("/")
    url = f"http://127.0.0.1:{world.proxy.metrics_port}"
    async with httpx.AsyncClient(base_url=url, trust_env=False, verify=False) as prometheus:
        page = (await prometheus.get("/stats/prometheus")).text
        assert (await prometheus.get("/")).status_code == 404
        async with world.proxy.unread():
            with pytest.raises(httpx.TransportError):
                await prometheus.get("/stats/prometheus")
        assert (await prometheus.get("/stats/prometheus")).text == page
    assert page == world.proxy.counted.page()
    assert 'reporter="source",source_workload="public-istio"' in page
    assert 'destination_service="web-1.shop.svc.cluster.local"' in page
    assert 'destination_service_namespace="shop"' in page
    assert page.count("istio_request_duration_milliseconds_bucket{") == 20
    assert 'le="3600000"} 1' in page


async def test_a_gateway_has_the_port_that_the_proxy_listens_at(tmp_path: Path) -> None:
    async with over_gateway(tmp_path) as (subject, world, _):
        listen_at(world.cluster, world.proxy.port)
        state = await subject.serving("web-1")
        assert state.address == f"http://web.production.localhost:{world.proxy.port}"
        assert await subject.fetch(state.address, {}, "/") == (200, "web-1")


@pytest.mark.parametrize(("said", "seconds"), [("", 0), ("1.5s", 1.5), ("250ms", 0.25), ("1h1m1s", 3661)])
def test_durations(said: str, seconds: float) -> None:
    assert seconds_of(said) == seconds
