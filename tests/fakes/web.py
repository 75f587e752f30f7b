"""A tiny web server on loopback that says its name: what stands behind a router in tests.

Any path with ``err`` in it is answered with 500. Must not know a router.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket


class Website:
    """Serves on a free port between `start` and `stop`; *requests* counts what is not ``/health``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.requests = 0
        self._port = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in tuple(self._open):
            writer.transport.abort()
        while self._open:  # each ends by itself once its transport is gone
            await asyncio.sleep(0)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    self._answer((await reader.readuntil(b"\r\n\r\n")).split()[1], writer)
                    await writer.drain()
        finally:
            writer.close()
            self._open.discard(writer)

    def _answer(self, path: bytes, writer: asyncio.StreamWriter) -> None:
        self.requests += path != b"/health"
        status, body = ("500 Oops" if b"err" in path else "200 OK"), self.name.encode()
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)


def free_port() -> int:
    """A port of loopback at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
