"""A web server on loopback that takes messages: a webhook's receiver, or a collector of traces, with moves.

Answers 204 unless told otherwise. Must not know what is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    path: str
    headers: dict[str, str]
    body: bytes
    status: int


class ReceiverServer:
    """*statuses* are the next answers, then *status* for good; none are given while *open* is not set."""

    def __init__(self) -> None:
        self.got: list[Message] = []
        self.statuses: list[int] = []
        self.status = 204
        self.open = asyncio.Event()
        self.open.set()
        self._port = 0
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/in"

    @property
    def accepted(self) -> list[Message]:
        return [message for message in self.got if message.status < 300]

    async def start(self) -> None:
        """Listen; again on the same port after `stop`."""
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for talk in tuple(self._talks):
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    async def until(self, count: int, seconds: float = 20.0) -> list[Message]:
        """Wait for so many accepted messages."""
        async with asyncio.timeout(seconds):
            while len(self.accepted) < count:
                await asyncio.sleep(0.01)
        return self.accepted

    async def tried(self, count: int, seconds: float = 20.0) -> list[Message]:
        """Wait for so many messages, whatever was answered."""
        async with asyncio.timeout(seconds):
            while len(self.got) < count:
                await asyncio.sleep(0.01)
        return self.got

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._talks.add(task)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    await self._answer(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            writer.close()
            self._talks.discard(task)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        status = self.statuses.pop(0) if self.statuses else self.status
        self.got.append(Message(first.split()[1], headers, body, status))
        await self.open.wait()
        writer.write(f"HTTP/1.1 {status} Said\r\ncontent-length: 0\r\n\r\n".encode())
        await writer.drain()
