"""Counts what the copies of a release say of themselves: counters that they expose, lines that they wrote.

Called by the driver, for metrics of canaries. A copy is asked at its own socket and its log is its own file,
so it can speak for no release but its own. Bounded in time and size, whatever a copy does; nothing that it
says is repeated in an error. Must not start or end anything.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from penstock.adapters.processes.record import Place, Record
from penstock.core.canary import Count, Part
from penstock.core.canaryconfig import Metric
from penstock.core.exposed import Selector, Told, selector, told
from penstock.core.loglines import bad_lines
from penstock.core.workload import Isolation, Phase
from penstock.errors import Invalid, Unavailable

SECONDS = 3.0
HEADERS = {"accept": "text/plain", "accept-encoding": "identity"}
MAX_BYTES = 1024 * 1024
#: Of one copy's log, from one count to the next: more cannot be looked at.
MOST_LOG = 8 * 1024 * 1024
#: So many bytes before it tell a place in a log from the same place in another one.
MARK = 64


@dataclass
class _Log:
    """How far one copy's log has been counted: *mark* is what stands before *offset*."""

    offset: int = 0
    mark: bytes = b""


@dataclass
class _Tally:
    """Bad lines of one release by one metric; *epoch* is another one after each loss."""

    epoch: str
    bad: int
    logs: dict[str, _Log]


class Counting:
    def __init__(self, isolation: Isolation, seconds: float = SECONDS) -> None:
        self._isolation = isolation
        self._seconds = seconds
        self._tallies: dict[tuple[str, Metric], _Tally] = {}
        self._turn = asyncio.Lock()

    async def count(
        self, metric: Metric, release: str, place: Place, records: Sequence[Record]
    ) -> Count | None:
        """What is known of a release with these copies; None without any."""
        if metric.source == "logs":
            async with self._turn:
                return await asyncio.to_thread(self._written, metric, release, place, records)
        return await self._exposed(metric, release, place, records)

    def forget(self, release: str) -> None:
        self._tallies = {key: tally for key, tally in self._tallies.items() if key[0] != release}

    # --- what they expose ----------------------------------------------------------------------------

    async def _exposed(
        self, metric: Metric, release: str, place: Place, records: Sequence[Record]
    ) -> Count | None:
        ready = [record for record in records if record.phase is Phase.READY]
        wanted = selector(metric.bad), selector(metric.total)
        asked = (self._part(metric, wanted, record, place) for record in ready)
        found = [part for part in await asyncio.gather(*asked) if part is not None]
        if len(found) < len(ready) or not ready:
            return None  # of one that says nothing nobody knows how much
        times = [at for _, at in found if at is not None]
        return Count(release, min(times, default=time.time()), "", tuple(part for part, _ in found))

    async def _part(
        self, metric: Metric, wanted: tuple[Selector, Selector], record: Record, place: Place
    ) -> tuple[Part, float | None] | None:
        path = metric.path or "/metrics"
        where = f"copy {record.id}{path}"
        text = await self._get(place.address(record, self._isolation), path, where)
        try:
            bad, total = (told(text, one) for one in wanted)
        except Invalid as error:
            raise Unavailable(error.what, where=f"{where}: {error.where}") from error
        if bad is None or total is None:
            return None
        part = Part(f"{record.id}-{record.pid}-{record.created:.2f}", bad.value, total.value)
        return part, _oldest(bad, total)

    async def _get(self, address: str, path: str, where: str) -> str:
        socket = address.removeprefix("unix:") if address.startswith("unix:") else None
        transport = httpx.AsyncHTTPTransport(uds=socket, verify=False)
        base = "http://workload" if socket else f"http://{address}"
        try:
            async with (
                asyncio.timeout(self._seconds),  # of all of it: an answer that trickles is none
                httpx.AsyncClient(transport=transport, base_url=base, timeout=self._seconds) as client,
                client.stream(
                    "GET", path, headers={"accept": "text/plain", "accept-encoding": "identity"}
                ) as answer,
            ):
                if answer.status_code != 200:
                    raise Unavailable(f"answered {answer.status_code}{_wait(answer)}", where=where)
                return await _text(answer, where)
        except TimeoutError as error:
            raise Unavailable(f"no answer in {self._seconds:g} s", where=where) from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise Unavailable(f"no answer: {error or type(error).__name__}", where=where) from error

    # --- what they wrote -----------------------------------------------------------------------------

    def _written(self, metric: Metric, release: str, place: Place, records: Sequence[Record]) -> Count | None:
        if not records:
            return None
        tally = self._tallies.get((release, metric))
        if tally is None:  # what was written before anybody asked is nobody's concern
            logs = {record.id: _at_end(place.log(record)) for record in records}
            tally = self._tallies[release, metric] = _Tally(os.urandom(8).hex(), 0, logs)
        for record in records:
            log = tally.logs.setdefault(record.id, _Log())
            fresh = _unread(place.log(record), log)
            if fresh is None:
                del self._tallies[release, metric]  # it begins anew, in another epoch
                raise Unavailable(
                    "its log was emptied faster than it could be counted", where=f"copy {record.id}"
                )
            tally.bad += bad_lines(metric, fresh.splitlines())
        return Count(release, time.time(), tally.epoch, (Part("log", tally.bad, 0),))


def _oldest(*said: Told) -> float | None:
    return min((one.at for one in said if one.at is not None), default=None)


def _wait(answer: httpx.Response) -> str:
    seconds = answer.headers.get("retry-after", "")
    return f", and asks to wait {seconds} s" if seconds.isdecimal() and len(seconds) < 10 else ""


async def _text(answer: httpx.Response, where: str) -> str:
    body = b""
    async for chunk in answer.aiter_raw():  # what is packed all the same is no text
        body += chunk
        if len(body) > MAX_BYTES:
            raise Unavailable(f"more than {MAX_BYTES} bytes", where=where)
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise Unavailable("not text (UTF-8)", where=where) from error


def _at_end(log: Path) -> _Log:
    size = log.stat().st_size if log.exists() else 0
    return _Log(size, _read(log, max(0, size - MARK), min(size, MARK)))


def _unread(log: Path, known: _Log) -> bytes | None:
    """Whole lines that were written since, and *known* is brought up to date; None if some are lost.

    One that was emptied meanwhile (`record.rotate`) goes on from its beginning; its rest is in its copy.
    """
    rest = b""
    if not _goes_on(log, known):
        before = log.with_suffix(".log.1")
        if not _goes_on(before, known):
            return None
        rest = _read(before, known.offset, MOST_LOG + 1)
        known.offset, known.mark = 0, b""
    fresh = _read(log, known.offset, MOST_LOG + 1)
    if len(rest) + len(fresh) > MOST_LOG:
        return None
    whole = fresh[: fresh.rfind(b"\n") + 1]
    known.offset += len(whole)
    known.mark = (known.mark + whole)[-MARK:]
    return rest + whole


def _goes_on(log: Path, known: _Log) -> bool:
    """Whether the place up to which it was counted is still there."""
    return _read(log, known.offset - len(known.mark), len(known.mark)) == known.mark


def _read(log: Path, offset: int, size: int) -> bytes:
    try:
        with log.open("rb") as file:
            file.seek(offset)
            return file.read(size)
    except FileNotFoundError:
        return b""
