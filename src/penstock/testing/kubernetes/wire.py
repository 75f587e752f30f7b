"""HTTP/1.1 on loopback, as little of it as an API server's clients need: keep-alive, and answers in chunks.

Called by `server`. A hand-written one, because a test must be able to say nothing and to hang up, which no
server meant for users offers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlsplit

MOST_HEAD = 64 * 1024


class HangUp(Exception):
    """Close the connection without a word."""


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    #: As it came: of a name that is given several times, `query` has the last.
    pairs: tuple[tuple[str, str], ...] = ()

    def words(self, name: str) -> list[str]:
        return [value for known, value in self.pairs if known == name]


class Answering:
    """The answer to one request: whole, or line by line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    async def whole(
        self, status: int, value: Any, *, retry_after: int = 0, warnings: Sequence[str] = ()
    ) -> None:
        """*value* is JSON, or text as it is."""
        text = isinstance(value, str)
        body = value.encode() if text else json.dumps(value).encode()
        extra = f"retry-after: {retry_after}\r\n" if retry_after else ""
        extra += "".join(f"warning: 299 - {json.dumps(words)}\r\n" for words in warnings)
        self._head(
            status, "text/plain" if text else "application/json", f"content-length: {len(body)}\r\n{extra}"
        )
        self._writer.write(body)
        await self._writer.drain()

    async def begin(self, media: str = "application/json") -> None:
        self._head(200, media, "transfer-encoding: chunked\r\n")
        await self._writer.drain()

    async def line(self, value: Any) -> None:
        await self.chunk(json.dumps(value).encode() + b"\n")

    async def chunk(self, data: bytes) -> None:
        self._writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        await self._writer.drain()

    async def raw(self, data: bytes) -> None:
        """What is no HTTP any more."""
        self._writer.write(data)
        await self._writer.drain()

    async def end(self) -> None:
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()

    @property
    def closed(self) -> bool:
        return self._writer.transport.is_closing()

    def _head(self, status: int, media: str, more: str) -> None:
        reason = HTTPStatus(status).phrase
        self._writer.write(f"HTTP/1.1 {status} {reason}\r\ncontent-type: {media}\r\n{more}\r\n".encode())


Handler = Callable[[Request, Answering], Awaitable[None]]


class Wire:
    """Serves between `start` and `stop`, on a port of its own."""

    def __init__(self, handler: Handler) -> None:
        self.port = 0
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=MOST_HEAD)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Hang up on everybody; `start` opens the same port again."""
        if self._server is not None:
            self._server.close()
        talks = tuple(self._talks)
        for talk in talks:
            talk.cancel()
        await asyncio.gather(*talks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.ensure_future(self._talk(reader, writer))
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, HangUp):
                while True:
                    await self._handler(await _request(reader), Answering(reader, writer))
        finally:
            writer.transport.abort()


async def _request(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ", 2)
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    parts = urlsplit(target)
    given = tuple(parse_qsl(parts.query))
    return Request(method, parts.path, dict(given), headers, body, given)
