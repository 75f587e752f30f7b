"""A tiny web server on loopback that says its name: what stands behind a router in tests.

Any path with ``err`` in it is answered with 500, and one with ``hold`` once it is `let_go`. Must not know a
router.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import re
import socket
from collections import deque
from collections.abc import Iterator


class Website:
    """Serves on a free port between `start` and `stop`; *requests* counts what is not ``/health``,
    and *heads* keeps the last of it, as it came. *status* is what it answers to that; *held* counts what it
    has not answered yet."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.status = "200 OK"
        self.requests = 0
        self.heads: deque[str] = deque(maxlen=100)
        self.held = 0
        self.let_go = asyncio.Event()
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
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = re.search(rb"(?i)content-length: *(\d+)", head)
                    await reader.readexactly(int(length.group(1)) if length else 0)
                    if b"hold" in head.split()[1]:
                        self.held += 1
                        await self.let_go.wait()
                        self.held -= 1
                    self._answer(head, writer)
                    await writer.drain()
        finally:
            writer.close()
            self._open.discard(writer)

    def _answer(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        path = head.split()[1]
        if path != b"/health":
            self.requests += 1
            self.heads.append(head.decode("latin-1").lower())
        usual = "200 OK" if path == b"/health" else self.status
        status, body = ("500 Oops" if b"err" in path else usual), self.name.encode()
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)


LANES = [range(first, first + 1_100, 20) for first in range(10_000, 32_000, 1_100)]


def _ports() -> Iterator[int]:
    """Each process has a lane of its own for as long as it lives, since a port is chosen long before
    somebody listens there. Beyond as many processes as there are lanes, some share."""
    lanes = random.sample(LANES, len(LANES))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as claim:
        lane = next((lane for lane in lanes if _claimed(claim, lane)), lanes[0])
        yield from itertools.cycle(lane)


def _claimed(claim: socket.socket, lane: range) -> bool:
    """A name without a file: like ports, it is that of one network namespace, and goes with its process."""
    try:
        claim.bind(f"\0penstock-test-ports-{lane.start}")
    except OSError:
        return False
    return True


PORTS = _ports()


def free_port() -> int:
    """A port of loopback at which nobody listens, with some free ones after it.

    Below those that systems give to outgoing connections: it is still free when what was ended starts again.
    """
    for port in PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("they go on for ever")
