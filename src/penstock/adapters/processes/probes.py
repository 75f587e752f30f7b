"""Asks instances whether they are ready, and whether they still live. Nobody waits for an answer.

Called by the driver as it tends: a question goes on between two calls. What is kept here is lost with the
agent, and the next one counts anew. Must not start or end anything.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import httpx

from penstock.adapters.processes.record import Place, Record
from penstock.core.traffic import HTTP2
from penstock.core.workload import Isolation, Workload

READY_SECONDS = 2.0
#: How HTTP/2 begins without TLS: the client's preface with an empty frame of settings, and then the server's.
SETTINGS = 4
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, SETTINGS, 0, 0, 0, 0, 0])

#: A question to an address.
Asking = Callable[[str], Coroutine[Any, Any, bool]]


@dataclass
class _Question:
    asked: asyncio.Future[bool] | None = None
    failed: int = 0
    next: float = 0.0


class Probes:
    """The questions that are under way, one for each instance."""

    def __init__(self, isolation: Isolation) -> None:
        self._isolation = isolation
        self._questions: dict[int, _Question] = {}

    def ready(self, record: Record, place: Place, workload: Workload) -> bool:
        """Whether it has answered by now."""
        asking = _asking(workload, workload.health_path, READY_SECONDS)
        return bool(self._answer(record, place, asking))

    def hangs(self, record: Record, place: Place, workload: Workload) -> bool:
        """Whether it has failed to answer as often in a row as is enough."""
        liveness = workload.liveness
        asking = _asking(workload, liveness.path, liveness.timeout)
        question, now = self._question(record), time.monotonic()
        if question.asked is None and now < question.next:
            return False
        answer = self._answer(record, place, asking)
        if answer is not None:
            question.failed = 0 if answer else question.failed + 1
            question.next = now + liveness.every
        return question.failed >= liveness.failures

    def forget(self, record: Record) -> None:
        question = self._questions.pop(id(record), None)
        if question is not None and question.asked is not None:
            question.asked.cancel()

    def _question(self, record: Record) -> _Question:
        return self._questions.setdefault(id(record), _Question())

    def _answer(self, record: Record, place: Place, asking: Asking) -> bool | None:
        """The answer to the question that is under way; one begins if none is."""
        question = self._question(record)
        if question.asked is None:
            address = place.address(record, self._isolation)
            question.asked = asyncio.ensure_future(asking(address))
            return None
        if not question.asked.done():
            return None
        asked, question.asked = question.asked, None
        return asked.result()


def _asking(workload: Workload, path: str, seconds: float) -> Asking:
    """For what is at *path* of an HTTP/2 service only the proxy asks, which speaks all of it."""
    if workload.protocol in HTTP2:
        return functools.partial(speaks_http2, seconds=seconds)
    return functools.partial(answers, path=path, seconds=seconds)


async def speaks_http2(address: str, seconds: float) -> bool:
    """Whether it greets as HTTP/2 does."""
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await _connected(address)
            try:
                writer.write(GREETING)
                head = await reader.readexactly(9)
            finally:
                writer.close()
    except (OSError, EOFError, TimeoutError):
        return False
    return head[3] == SETTINGS


async def _connected(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if address.startswith("unix:"):
        return await asyncio.open_unix_connection(address.removeprefix("unix:"))
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def answers(address: str, path: str, seconds: float) -> bool:
    """Whether it answers at its address: below 500 at *path*, or merely accepts if ""."""
    if not path:
        return await asyncio.to_thread(_accepts, address)
    transport = httpx.AsyncHTTPTransport(
        uds=address.removeprefix("unix:") if address.startswith("unix:") else None, verify=False
    )
    base = "http://workload" if address.startswith("unix:") else f"http://{address}"
    try:
        async with (
            asyncio.timeout(seconds),  # of all of it: an answer that trickles is none
            httpx.AsyncClient(transport=transport, base_url=base, timeout=seconds) as client,
        ):
            return (await client.get(path)).status_code < 500
    except (httpx.HTTPError, OSError):
        return False


def _accepts(address: str) -> bool:
    family = socket.AF_UNIX if address.startswith("unix:") else socket.AF_INET
    host, _, port = address.rpartition(":")
    target = address.removeprefix("unix:") if family == socket.AF_UNIX else (host, int(port))
    with socket.socket(family) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(target) == 0
