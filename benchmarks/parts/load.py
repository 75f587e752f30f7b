"""Load from real tools while something is switched, and what they saw. Used by `benchmarks/switching.py`.

    python -m parts.load URL FILE

is the observer: one kept connection, asked again as soon as it has answered; who answered and when goes into
FILE. What the tools call a failure is counted by their own words, and explained by the proxy's access log.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

#: What each tool is for, and how to get it.
TOOLS = {
    "hey": "constant load over HTTP/1.1: apt-get install hey",
    "curl": "constant load over HTTP/2: apt-get install curl",
    "wrk": "what a request costs: apt-get install wrk",
}
PAUSE_SECONDS = 0.002
#: To stderr, which curl does not keep back until it has a page full.
FORMAT = r"%{stderr}%{http_code} %header{x-penstock-flags} %{errormsg}\n"
LONGEST = "3600s"


def missing(*tools: str) -> str:
    """What to do about tools that are not here; "" if all are."""
    absent = [tool for tool in tools if shutil.which(tool) is None]
    return "\n".join(f"{tool} is not on this machine: {TOOLS[tool]}" for tool in absent)


@dataclass(frozen=True)
class Seen:
    """One answer that the observer got. Times are of the machine's monotonic clock."""

    asked: float
    answered: float
    status: str
    release: str


@dataclass
class Load:
    """What all clients saw. *requests* by client; *failed* by client and reason."""

    requests: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    seen: list[Seen] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.requests.values())


@contextlib.asynccontextmanager
async def load(address: str, folder: Path, *, quick: int, slow: int, second: int) -> AsyncIterator[Load]:
    """So many requests a second over HTTP/1.1 to the quick path, so many at any time to the slow one, and so
    many a second over HTTP/2, until left; then what became of them."""
    found = Load()
    hey = ["hey", "-z", LONGEST, "-t", "20", "-c", "8"]
    commands = {
        "hey": [*hey, "-q", str(quick // 8), f"{address}/quick"],
        "hey, slow requests": ["hey", "-z", LONGEST, "-t", "20", "-c", str(slow), f"{address}/slow"],
        "curl, HTTP/2": [
            *("curl", "--silent", "--http2-prior-knowledge", "--rate", f"{second}/s", "--max-time", "20"),
            *("--output", "/dev/null", "--write-out", FORMAT, _every(address)),
        ],
        "observer": [sys.executable, "-m", "parts.load", f"{address}/observer", str(folder / "seen")],
    }
    running = {name: _started(name, command, folder) for name, command in commands.items()}
    try:
        await asyncio.sleep(2.0)  # all of them are at it
        yield found
        await asyncio.sleep(1.0)  # and see what came of the last switch
    finally:
        for process in running.values():
            process.send_signal(signal.SIGINT)
        for process in running.values():
            await asyncio.to_thread(process.wait, 60)
    _summed(found, folder)


def _every(address: str) -> str:
    """URLs for curl. Its 7.88 cannot use an HTTP/2 connection twice (issue 10634): there, each request
    goes to a name of its own, and so makes its own connection."""
    version = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout
    if not version.startswith("curl 7.88."):
        return f"{address}/curl?[1-10000000]"
    return f"http://c[1-10000000].localhost:{urlsplit(address).port}/curl"


def _started(name: str, command: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    with _output(folder, name).open("wb") as output:
        return subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, cwd=Path(__file__).parents[1]
        )


def _output(folder: Path, name: str) -> Path:
    return folder / f"{name.replace(', ', '-').replace(' ', '-').replace('/', '')}.txt"


def _summed(found: Load, folder: Path) -> None:
    for name in ("hey", "hey, slow requests"):
        _count(found, name, of_hey(_output(folder, name).read_text()))
    _count(found, "curl, HTTP/2", of_curl(_output(folder, "curl, HTTP/2").read_text()))
    found.seen = of_observer((folder / "seen").read_text())
    _count(found, "observer", Counter(one.status for one in found.seen))


def _count(found: Load, client: str, answers: Counter[str]) -> None:
    found.requests[client] = sum(answers.values())
    assert answers["200"], f"{client} got no answer at all: {dict(answers)}"
    for reason, times in answers.items():
        if reason != "200":
            found.failed[f"{client}: {reason}"] = times


def of_hey(text: str) -> Counter[str]:
    """Its summary: answers by status, and errors by their words."""
    found: Counter[str] = Counter()
    _, _, statuses = text.partition("Status code distribution:")
    statuses, _, errors = statuses.partition("Error distribution:")
    for status, times in re.findall(r"\[(\d+)\]\s+(\d+) responses", statuses):
        found[status] += int(times)
    for times, words in re.findall(r"\[(\d+)\]\s+(.+)", errors):
        found[words.strip()] += int(times)
    return found


def of_curl(text: str) -> Counter[str]:
    """A line for each answer; the last may be cut off, because curl was ended."""
    return Counter(line.strip() for line in text.splitlines(keepends=True) if line.endswith("\n"))


def of_observer(text: str) -> list[Seen]:
    rows = [line.rstrip("\n").split("\t") for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [Seen(float(asked), float(answered), *rest) for asked, answered, *rest in rows]


def explained(access_log: Path) -> list[str]:
    """Every request that the proxy itself has as failed, with its reason; those to dark releases too."""
    found = []
    for file in (access_log.with_name(f"{access_log.name}.1"), access_log):
        for line in file.read_text().splitlines() if file.exists() else ():
            with contextlib.suppress(ValueError):  # the last line may be half written
                entry = json.loads(line)
                # DC: whoever asked has gone, as clients do that we end.
                if int(entry["status"] or 0) >= 400 or entry["flags"] not in ("-", "", None, "DC"):
                    found.append(line)
    return found


# --- the observer's process ------------------------------------------------------------------------------


def observe(url: str, file: Path) -> None:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    with file.open("w") as out, contextlib.suppress(KeyboardInterrupt):
        while True:
            asked = time.monotonic()
            try:
                connection.request("GET", parts.path)
                answer = connection.getresponse()
                answer.read()
                flags = answer.headers.get("x-penstock-flags", "")
                status = f"{answer.status} {flags}".strip()
                release = answer.headers.get("x-penstock-release", "")
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                status, release = f"{type(error).__name__} {error}", ""
            out.write(f"{asked}\t{time.monotonic()}\t{status}\t{release}\n")
            time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    observe(sys.argv[1], Path(sys.argv[2]))
