"""Connections that say nothing, or never finish, are bounded; those that are answered are not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from fakes.certificates import Authority
from penstock.server.connections import Bounded, Listener


class Short(Bounded):
    MOST = 20
    SECONDS = 0.2


async def app(scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    """Reads the body, and answers in pieces over a second if asked to."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(10 if scope["path"] == "/slow" else 1):
        await send({"type": "http.response.body", "body": b"piece", "more_body": True})
        await asyncio.sleep(0.1 if scope["path"] == "/slow" else 0)
    await send({"type": "http.response.body", "body": b"end"})


@contextlib.asynccontextmanager
async def serving(config: uvicorn.Config, listener: socket.socket) -> AsyncIterator[int]:
    """The port at which a server answers while the block runs."""
    server = uvicorn.Server(config)
    served = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    yield listener.getsockname()[1]
    server.should_exit = True
    server.force_exit = True
    await served


@pytest.fixture
async def port() -> AsyncIterator[int]:
    config = uvicorn.Config(app, http=Short, log_level="error", lifespan="off")
    async with serving(config, socket.create_server(("127.0.0.1", 0))) as port:
        yield port


async def said(port: int, text: bytes, *, whole: bool = False) -> bytes:
    """What comes back until the server closes; with *whole*, it is asked to close after its answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n") if whole else text)
    try:
        async with asyncio.timeout(20):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


HEAD = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.mark.parametrize(
    "text",
    [b"", b"GET / HTTP/1.1\r\nhost: x\r\n", b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc"],
)
async def test_what_never_arrives_is_not_waited_for(port: int, text: bytes) -> None:
    assert b"200" not in await said(port, text)


async def test_an_answer_takes_as_long_as_it_takes(port: int) -> None:
    answer = await said(port, HEAD.replace(b"/ ", b"/slow "), whole=True)
    assert answer.count(b"piece") == 10
    assert b"end" in answer


async def test_a_flood_takes_no_more_than_its_share_and_passes(port: int) -> None:
    async with asyncio.timeout(60):
        flood = [asyncio.create_task(said(port, b"")) for _ in range(200)]
        # All are closed: those beyond the bound at once, the others when their time is up.
        assert set(await asyncio.gather(*flood)) == {b""}
        assert b"end" in await said(port, HEAD, whole=True)


# --- before TLS ---------------------------------------------------------------------------------------------


class Few(Listener):
    MOST = 12
    OF_ONE = 8


@pytest.fixture
async def closed_door(tmp_path: Path) -> AsyncIterator[int]:
    """The port of a server that speaks TLS."""
    certificate, key = Authority.new().issue(tmp_path, "localhost")
    listener = Few(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, log_level="critical", lifespan="off", ssl_certfile=str(certificate), ssl_keyfile=str(key)
    )
    async with serving(config, listener) as port:
        yield port


async def is_answered(port: int, address: str) -> bool:
    """Whether somebody at *address* gets an answer over TLS; what is hung up on does not."""
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    try:
        async with asyncio.timeout(20):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=anybody, local_addr=(address, 0)
            )
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            answer = await reader.read()
            writer.close()
            return b" 200 " in answer
    except (ConnectionError, ssl.SSLError):
        return False


async def silent(port: int, address: str, count: int) -> list[asyncio.StreamWriter]:
    """So many connections that never begin TLS."""
    return [
        (await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0)))[1] for _ in range(count)
    ]


async def until_answered(port: int, address: str) -> None:
    async with asyncio.timeout(20):
        while not await is_answered(port, address):
            await asyncio.sleep(0.05)


async def test_who_never_begins_tls_does_not_silence_the_others(closed_door: int) -> None:
    kept = await silent(closed_door, "127.0.0.2", 3 * Few.MOST)
    assert not await is_answered(closed_door, "127.0.0.2")
    assert await is_answered(closed_door, "127.0.0.3")
    for writer in kept:
        writer.close()
    await until_answered(closed_door, "127.0.0.2")


async def test_of_all_addresses_together_there_are_so_many(closed_door: int) -> None:
    kept = [*await silent(closed_door, "127.0.0.2", 8), *await silent(closed_door, "127.0.0.3", 8)]
    assert not await is_answered(closed_door, "127.0.0.4")
    for writer in kept:
        writer.close()
    await until_answered(closed_door, "127.0.0.4")
