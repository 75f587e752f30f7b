"""An HTTP server, on loopback or on a unix socket, that answers as a test tells it: well, badly, or never.

Must not know who asks, nor what a good answer is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Question:
    method: str
    path: str
    given: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class Answer:
    """*never*: nothing comes, and the connection stays open."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    never: bool = False


class Answering:
    """Serves between `start` and `stop`; *asked* keeps the questions."""

    def __init__(self, answer: Callable[[Question], Answer]) -> None:
        self.answer = answer
        self.asked: list[Question] = []
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()
        self.address = ""

    async def start(self, socket: Path | None = None) -> None:
        if socket is not None:
            self._server = await asyncio.start_unix_server(self._accept, socket)
            self.address = f"unix:{socket}"
            return
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for talk in tuple(self._talks):
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.create_task(self._talk(reader, writer))
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    await self._answer(reader, writer)
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        length = re.search(r"(?i)content-length: *(\d+)", head)
        body = await reader.readexactly(int(length[1])) if length else b""
        first, *lines = head.strip().split("\r\n")
        method, target, _ = first.split(" ")
        given = dict(parse_qsl(urlsplit(target).query) + parse_qsl(_text(body)))
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        question = Question(method, urlsplit(target).path, given, headers, body)
        self.asked.append(question)
        answer = self.answer(question)
        if answer.never:
            await asyncio.Event().wait()
        told = {"content-length": str(len(answer.body)), **answer.headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in told.items())
        body = b"" if method == "HEAD" else answer.body
        writer.write(f"HTTP/1.1 {answer.status} Said\r\n{head}\r\n".encode() + body)
        await writer.drain()


def _text(body: bytes) -> str:
    """A form; "" if it is something else."""
    return body.decode() if body.isascii() else ""


class FakePrometheus:
    """Prometheus's HTTP API over what a test writes: *values* by query. A query with ``((`` in it is none.

    *ahead* is how far its clock is off, in seconds.
    """

    def __init__(self) -> None:
        self.values: dict[str, float | str] = {}
        self.ahead = 0.0
        self.server = Answering(self.answer)

    @property
    def url(self) -> str:
        return f"http://{self.server.address}"

    def answer(self, question: Question) -> Answer:
        query = question.given.get("query", "")
        if question.path != "/api/v1/query":
            return Answer(b"404 page not found\n", 404)
        if "((" in query:
            problem = {"status": "error", "errorType": "bad_data", "error": 'parse error: unexpected "("'}
            return Answer(json.dumps(problem).encode(), 400)
        at = float(question.given.get("time", time.time() + self.ahead))
        return Answer(vector(at, *([self.values[query]] if query in self.values else [])))


def vector(at: float, *values: float | str, warnings: list[str] | None = None) -> bytes:
    """An instant vector of so many series, as Prometheus writes it."""
    result = [{"metric": {"n": str(n)}, "value": [at, str(value)]} for n, value in enumerate(values)]
    said: dict[str, Any] = {"status": "success", "data": {"resultType": "vector", "result": result}}
    return json.dumps({**said, "warnings": warnings} if warnings else said).encode()
