"""A service on loopback that behaves as badly as its script says: what the tests in production are tried on.

Each path has a `Reply`; what is not there is a 404 in JSON. Must not know who asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from penstock.checks.preview import Dark

HEADERS = {"penstock-release": "shop-new", "penstock-preview-token": "the-token"}


@dataclass(frozen=True)
class Reply:
    """One answer; it comes after *seconds*, or never ends."""

    body: object = None
    status: int = 200
    kind: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    endless: bool = False
    release: str = "shop-new"

    @property
    def data(self) -> bytes:
        return self.body.encode() if isinstance(self.body, str) else json.dumps(self.body).encode()


NOT_THERE = Reply({"detail": "no such thing"}, 404)
Act = Reply | Callable[[str], Reply]


class Shop:
    """*asked* are the request lines that came, *heads* all of their headers in lower case."""

    def __init__(self, **pages: Act) -> None:
        self.pages: dict[str, Act] = {f"/{name}": act for name, act in pages.items()}
        self.asked: list[str] = []
        self.heads: list[str] = []
        self.at_once = self.most_at_once = 0
        self.url = ""

    @property
    def way(self) -> Dark:
        return Dark("shop-new", self.url, HEADERS)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Shop]:
        tasks: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.add(asyncio.create_task(self._talk(reader, writer)))

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                length = re.search(r"(?i)content-length: *(\d+)", head)
                await reader.readexactly(int(length.group(1)) if length else 0)
                await self._answer(head, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, head: str, writer: asyncio.StreamWriter) -> None:
        method, path, _ = head.split(" ", 2)
        self.asked.append(f"{method} {path}")
        self.heads.append(head.lower())
        page = self.pages.get(path.partition("?")[0], NOT_THERE)
        reply = page if isinstance(page, Reply) else page(path)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(reply.seconds)
        finally:
            self.at_once -= 1
        length = "" if reply.endless else f"content-length: {len(reply.data)}\r\n"
        more = "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
        told = f"content-type: {reply.kind}\r\nx-penstock-release: {reply.release}\r\n{length}{more}\r\n"
        writer.write(f"HTTP/1.1 {reply.status} Word\r\n{told}".encode())
        if method != "HEAD":
            writer.write(reply.data)
        await writer.drain()
        while reply.endless:
            writer.write(b" " * 65536)
            await writer.drain()
