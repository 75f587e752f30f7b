"""A steady load on some URLs, from a process of its own, that counts what a user would notice.

``python -m penstock.cli.load --url URL --rate 80 --seconds 60 --json FILE``. Called by the demo. Arrivals are
Poisson (seeded), connections are kept alive. *failed by switching* are connection errors, resets and
time-outs, and answers that the proxy gave itself because it had nowhere to send the request. What the
application answered, an error 500 included, is counted to the release that answered.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import signal
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

#: Envoy's flags that mean: there was no way to a release, or it went away in the middle.
SWITCHING_FLAGS = {"NR", "NC", "UH", "UF", "UO", "UC", "UR", "UT", "LR", "-"}
REQUEST_SECONDS = 10.0
WRITE_SECONDS = 0.5


class Stale(ConnectionError):
    """A kept connection was closed between two requests: not one byte of an answer came."""


@dataclass
class Counts:
    requests: int = 0
    failed_by_switching: int = 0
    retried: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    by_release: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    latencies: list[float] = field(default_factory=list)

    def answered(self, status: int, headers: dict[str, str], seconds: float) -> None:
        self.requests += 1
        self.latencies.append(seconds)
        release = headers.get("x-penstock-release")
        # The proxy's own replies are flagged, and name the release too if the route was found.
        if release is None or "x-penstock-flags" in headers:
            flags = set(headers.get("x-penstock-flags", "-").split(","))
            self.failed_by_switching += bool(flags & SWITCHING_FLAGS)
            self.errors.update(f"{status} {flag}" for flag in flags)
            return
        self.by_release[release].update(requests=1, errors=int(status >= 500))

    def broken(self, error: Exception) -> None:
        self.requests += 1
        self.failed_by_switching += 1
        self.errors[f"{type(error).__name__}: {error}"] += 1

    def document(self) -> dict[str, object]:
        ordered = sorted(self.latencies)
        share = {f"p{p}": round(1000 * ordered[len(ordered) * p // 100], 1) for p in (50, 95, 99) if ordered}
        return {
            "requests": self.requests,
            "failed_by_switching": self.failed_by_switching,
            "retried": self.retried,
            "errors": dict(self.errors),
            "by_release": {
                name: {"requests": count["requests"], "errors": count["errors"]}
                for name, count in self.by_release.items()
            },
            "latency_ms": share,
        }


class Target:
    """One URL and its idle connections."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        path = parts.path or "/"
        self._request = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def get(self, counts: Counts) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                status, headers = await self._answer(counts)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
            counts.broken(error)
        else:
            counts.answered(status, headers, time.monotonic() - began)

    def close(self) -> None:
        """Let go of the kept connections."""
        while self._idle:
            self._idle.pop()[1].close()

    async def _answer(self, counts: Counts) -> tuple[int, dict[str, str]]:
        if self._idle:
            with contextlib.suppress(Stale):
                return await self._ask(*self._idle.pop())
            counts.retried += 1
        return await self._ask(*await asyncio.open_connection(self._host, self._port), fresh=True)

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, fresh: bool = False
    ) -> tuple[int, dict[str, str]]:
        kept = False
        try:
            writer.write(self._request)
            head = await self._head(reader, fresh)
            lines = head.decode("latin-1").split("\r\n")
            pairs = (line.split(":", 1) for line in lines[1:] if ":" in line)
            headers = {name.strip().lower(): value.strip() for name, value in pairs}
            await _body(reader, headers)
            kept = headers.get("connection", "").lower() != "close"
            return int(lines[0].split(" ", 2)[1]), headers
        finally:
            if kept:
                self._idle.append((reader, writer))
            else:
                writer.close()

    async def _head(self, reader: asyncio.StreamReader, fresh: bool) -> bytes:
        try:
            return await reader.readuntil(b"\r\n\r\n")
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            partial = getattr(error, "partial", b"")
            if fresh or partial:
                raise
            raise Stale from error


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> None:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        await reader.readexactly(int(headers.get("content-length", "0")))
        return
    while size := int(await reader.readuntil(b"\r\n"), 16):
        await reader.readexactly(size + 2)
    await reader.readuntil(b"\r\n")


async def run(urls: list[str], rate: float, seconds: float, file: Path) -> Counts:
    """Send until *seconds* are over or SIGTERM comes, finish what is in flight, write the counts."""
    counts, targets, chance = Counts(), [Target(url) for url in urls], random.Random(20261123)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    flying: set[asyncio.Task[None]] = set()
    due = now = time.monotonic()
    end, written = now + seconds, now
    while not stop.is_set() and now < end:
        due += chance.expovariate(rate)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, due - time.monotonic())):
                await stop.wait()
        if stop.is_set():
            break
        task = asyncio.create_task(chance.choice(targets).get(counts))
        flying.add(task)
        task.add_done_callback(flying.discard)
        now = time.monotonic()
        if now > written + WRITE_SECONDS:
            write(counts, file)
            written = now
    await asyncio.gather(*flying)
    for target in targets:
        target.close()
    write(counts, file)
    return counts


def write(counts: Counts, file: Path) -> None:
    temporary = file.with_suffix(".new")
    temporary.write_text(json.dumps(counts.document(), indent=2))
    temporary.replace(file)


def main() -> None:
    parser = argparse.ArgumentParser(prog="penstock.cli.load", description="A steady load that counts.")
    parser.add_argument("--url", action="append", required=True)
    parser.add_argument("--rate", type=float, default=80.0, help="requests a second, over all URLs")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", type=Path, required=True, help="where the counts go")
    given = parser.parse_args()
    asyncio.run(run(given.url, given.rate, given.seconds, given.json))


if __name__ == "__main__":
    main()
