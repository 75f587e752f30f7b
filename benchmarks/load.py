"""How fast the load generator asks, how punctual it is, and what it adds to the latency that it measures.

    benchmarks/load.py [--json FILE] [--requests N] [--seconds S]

A server in another process answers after as many milliseconds as the path says, and keeps how long it really
took. The floor is in the same run: one write and one read for each request on a bare asyncio stream, by as
many tasks as there are connections; and for pacing the same sleeps with nothing sent. httpx is what most
people would take. Rates are by the sender's own processor, too, for others may be at work beside us: ratios
are what to compare.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import httpx

from penstock.checks.load import Plan, send
from penstock.checks.preview import Dark, percentile

CONNECTIONS = {1: "1 connection", 64: "64 connections"}
#: Requests a second that are due, each answered after so many milliseconds.
PACES = (100.0, 500.0)
ANSWER_MS = 20
AT_ONCE = 1e6


# --- the server ------------------------------------------------------------------------------------------


class Answering(asyncio.Protocol):
    """``GET /20`` is answered after 20 ms. *took* is shared by all connections."""

    def __init__(self, took: list[float]) -> None:
        self._took = took

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        began, ms = time.perf_counter(), int(data.split(b" ", 2)[1].strip(b"/") or 0)
        if ms:
            asyncio.get_running_loop().call_later(ms / 1000, self._answer, began)
        else:
            self._answer(began)

    def _answer(self, began: float) -> None:
        self._took.append(time.perf_counter() - began)
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


def serve(ours: Connection) -> None:
    """Says its port; then what it took for each request since it was last asked, until it is told to end."""

    async def run() -> None:
        took: list[float] = []
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Answering(took), "127.0.0.1", 0)
        ours.send(server.sockets[0].getsockname()[1])
        while await asyncio.to_thread(ours.recv):
            ours.send(took[:])
            took.clear()

    asyncio.run(run())


@dataclass(frozen=True)
class Server:
    port: int
    theirs: Connection

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def took(self) -> list[float]:
        """Seconds, of every request since this was last asked."""
        self.theirs.send(True)
        found: list[float] = self.theirs.recv()
        return found


@contextlib.contextmanager
def served() -> Iterator[Server]:
    theirs, ours = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(ours,), daemon=True)
    process.start()
    try:
        yield Server(theirs.recv(), theirs)
    finally:
        theirs.send(False)
        process.join(10)


# --- three ways to ask -----------------------------------------------------------------------------------

#: Asks for so many answers over so many connections, as fast as it can.
Way = Callable[[Server, int, int], Awaitable[None]]


async def generator(server: Server, count: int, connections: int) -> None:
    """As a load test of which all is due at once; over one connection, one after another."""
    rate = 0.0 if connections == 1 else AT_ONCE
    sent = await send(Plan(count, ("/0",), rate, connections), Dark("release", server.address, {}))
    assert sent.errors == 0, sent.problems


async def bare(server: Server, count: int, connections: int) -> None:
    waiting = iter(range(count))

    async def ask() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for _ in waiting:
            writer.write(b"GET /0 HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
            await reader.readuntil(b"ok")
        writer.close()

    await asyncio.gather(*(ask() for _ in range(connections)))


async def by_httpx(server: Server, count: int, connections: int) -> None:
    waiting = iter(range(count))
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=connections), timeout=60) as client:

        async def ask() -> None:
            for _ in waiting:
                (await client.get(f"{server.address}/0")).raise_for_status()

        await asyncio.gather(*(ask() for _ in range(connections)))


WAYS: dict[str, Way] = {"generator": generator, "bare loop": bare, "httpx": by_httpx}


def rates(server: Server, count: int) -> dict[str, float]:
    """Requests a second of the wall, and of the sender's processor, in turns."""
    found = {}
    for connections, on in CONNECTIONS.items():
        for name, way in WAYS.items():
            began, worked = time.monotonic(), time.process_time()
            asyncio.run(_asked(way, server, count, connections))
            found[f"{on}, {name}: requests a second"] = count / (time.monotonic() - began)
            found[f"{on}, {name}: requests a second of processor"] = count / (time.process_time() - worked)
    return found


async def _asked(way: Way, server: Server, count: int, connections: int) -> None:
    await way(server, count, connections)
    server.took()


# --- pacing and latency -----------------------------------------------------------------------------------


async def sleeping(per_second: float, seconds: float) -> list[float]:
    """How late the sleeps alone are, in seconds."""
    began, late = time.monotonic(), []
    for number in range(int(per_second * seconds)):
        due = began + number / per_second
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        late.append(time.monotonic() - due)
    return late


async def asking(server: Server, connections: int, per_second: float, seconds: float) -> list[float]:
    """Latencies, in seconds, of bare requests at a rate, from when each was due."""
    began, numbers = time.monotonic(), iter(range(int(per_second * seconds)))
    took: list[float] = []

    async def ask() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for number in numbers:
            due = began + number / per_second
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            writer.write(f"GET /{ANSWER_MS} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode())
            await reader.readuntil(b"ok")
            took.append(time.monotonic() - due)
        writer.close()

    await asyncio.gather(*(ask() for _ in range(connections)))
    return took


def punctuality(server: Server, seconds: float) -> dict[str, float]:
    """Lateness, and how much longer each way says that answers took than the server does; milliseconds."""
    found = {}
    for per_second in PACES:
        connections = max(CONNECTIONS)
        floor = asyncio.run(sleeping(per_second, seconds))
        plan = Plan(int(per_second * seconds), (f"/{ANSWER_MS}",), per_second, connections)
        sent = asyncio.run(send(plan, Dark("release", server.address, {})))
        told = server.took()
        simple = asyncio.run(asking(server, connections, per_second, seconds))
        beside = server.took()
        at = f"{per_second:g} a second"
        found[f"{at}, generator: late, p99 (ms)"] = sent.late_ms
        found[f"{at}, sleeps alone: late, p99 (ms)"] = 1000 * percentile(floor, 0.99)
        for name, share, measured in (("p50", 0.5, sent.p50_ms), ("p99", 0.99, sent.p99_ms)):
            over = measured - 1000 * percentile(told, share)
            least = 1000 * (percentile(simple, share) - percentile(beside, share))
            found[f"{at}, generator: {name} above the server's (ms)"] = over
            found[f"{at}, bare loop: {name} above the server's (ms)"] = least
        found[f"{at}: not answered"] = float(sent.errors)
    return found


def ratios(found: dict[str, float]) -> dict[str, float]:
    """Of the generator to the two others, by the sender's processor."""
    each = "requests a second of processor"
    return {
        f"{on}: generator / {name}": found[f"{on}, generator: {each}"] / found[f"{on}, {name}: {each}"]
        for on in CONNECTIONS.values()
        for name in ("bare loop", "httpx")
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--requests", type=int, default=5000, help="of each way to ask (default 5,000)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of requests at a rate (default 5)")
    given = parser.parse_args()
    if given.requests < 100 or given.seconds < 1:
        parser.error("--requests: 100 or more, --seconds: 1 or more, or there is nothing to tell")
    with served() as server:
        found = rates(server, given.requests)
        found |= ratios(found)
        found |= punctuality(server, given.seconds)
    for name, figure in found.items():
        print(f"{name:60} {figure:12,.2f}")
    if given.json:
        given.json.write_text(json.dumps({"figures": found}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
