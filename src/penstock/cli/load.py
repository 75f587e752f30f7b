"""A steady load on some URLs, from a process of its own, that counts what a user would notice.

``python -m penstock.cli.load --url URL --rate 80 --seconds 60 --json FILE``. Called by the demo. Arrivals are
Poisson (seeded), connections are kept alive. *failed by switching* are connection errors, resets and
time-outs, and answers that the proxy gave itself because it had nowhere to send the request. What the
application answered, an error 500 included, is counted to the release that answered. A kept connection that
was closed in good order just as a request went out is tried again on a new one, as browsers do, and counted
as *retried*; one that was reset is not. Must not follow redirects or hide any other failure.
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
    """One URL and its idle connections; an answer may take *seconds*."""

    def __init__(self, url: str, seconds: float = REQUEST_SECONDS) -> None:
        parts = urlsplit(url)
        self._seconds = seconds
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._request = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def get(self, counts: Counts) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._seconds):
                status, headers = await self._answer(counts)
        except (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError, ValueError) as error:
            counts.broken(error)
        else:
            counts.answered(status, headers, time.monotonic() - began)

    def close(self) -> None:
        """Let go of the kept connections."""
        while self._idle:
            self._idle.pop()[1].close()

    async def _answer(self, counts: Counts) -> tuple[int, dict[str, str]]:
        while self._idle:
            reader, writer = self._idle.pop()
            if reader.at_eof() or writer.is_closing():  # closed while it was idle: nothing was asked of it
                writer.close()
                continue
            with contextlib.suppress(Stale):
                return await self._ask(reader, writer)
            counts.retried += 1
            break
        return await self._ask(*await asyncio.open_connection(self._host, self._port), fresh=True)

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, fresh: bool = False
    ) -> tuple[int, dict[str, str]]:
        kept = False
        try:
            writer.write(self._request)
            status, headers = _parsed(await self._head(reader, fresh))
            delimited = await _body(reader, status, headers)
            kept = delimited and headers.get("connection", "").lower() != "close"
            return status, headers
        finally:
            if kept:
                self._idle.append((reader, writer))
            else:
                writer.close()

    async def _head(self, reader: asyncio.StreamReader, fresh: bool) -> bytes:
        try:
            return await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if fresh or error.partial:
                raise
            raise Stale from error


def _parsed(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers, names in lower case. Raises `ValueError` if it is not HTTP/1.1."""
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if version != "HTTP/1.1":
        raise ValueError(f"not an HTTP/1.1 answer: {first[:40]!r}")
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return int(rest[:3]), {name.strip().lower(): value.strip() for name, value in pairs}


async def _body(reader: asyncio.StreamReader, status: int, headers: dict[str, str]) -> bool:
    """Read the body away. Whether it had an end of its own, so that the connection can be kept."""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            await reader.readexactly(size + 2)
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass  # trailers
    elif "content-length" in headers:
        await reader.readexactly(int(headers["content-length"]))
    elif status not in (204, 304):
        await reader.read()
        return False
    return True


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
        due = min(due + chance.expovariate(rate), end)
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
    parser.add_argument("--url", action="append", type=_http_url, required=True)
    parser.add_argument("--rate", type=_positive, default=80.0, help="requests a second, over all URLs")
    parser.add_argument("--seconds", type=_positive, default=60.0, help="inf: until SIGTERM")
    parser.add_argument("--json", type=_new_file, required=True, help="where the counts go")
    given = parser.parse_args()
    asyncio.run(run(given.url, given.rate, given.seconds, given.json))


def _http_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme != "http" or not parts.hostname or (parts.port or 80) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not like http://127.0.0.1:8600/path")
    return text


def _positive(text: str) -> float:
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return number


def _new_file(text: str) -> Path:
    if not (file := Path(text)).parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {file.parent}")
    return file


if __name__ == "__main__":
    main()
