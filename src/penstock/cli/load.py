"""Puts a steady load on some URLs, from its own process, and counts what a user would notice.

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
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from penstock.checks.sending import UNANSWERED, Ask, Target

#: Envoy's flags that mean: there was no way to a release, or it went away in the middle.
SWITCHING_FLAGS = {"NR", "NC", "UH", "UF", "UO", "UC", "UR", "UT", "LR", "-"}
WRITE_SECONDS = 0.5


@dataclass
class Counts:
    requests: int = 0
    failed_by_switching: int = 0
    retried: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    by_release: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    latencies: list[float] = field(default_factory=list)

    def answered(self, status: int, headers: Mapping[str, str], seconds: float) -> None:
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


async def get(target: Target, counts: Counts) -> None:
    """Ask for the target's own URL once, and count what came of it."""

    def retried() -> None:
        counts.retried += 1

    began = time.monotonic()
    try:
        answer = await target.ask(Ask(), retried)
    except UNANSWERED as error:
        counts.broken(error)
    else:
        counts.answered(answer.status, answer.headers, time.monotonic() - began)


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
        task = asyncio.create_task(get(chance.choice(targets), counts))
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
