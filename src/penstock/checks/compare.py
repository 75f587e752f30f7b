"""Does the dark release answer as the stable one does, request by request?

Called by `acceptance`. What users ask for by GET, as the data plane tells it (a path, no query, no headers),
and the service's own paths go to both releases at the same moment, marked as copies. So nobody's credentials
are recorded or sent, and answers are those that a stranger gets. Envoy's mirror cannot be used for this: it
throws answers away. Must not repeat a value of an answer, nor ask by a path that looks like a secret.
"""

from __future__ import annotations

import asyncio
import base64
import math
import random
import re
import time
from array import array
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from penstock.checks.preview import RELEASE, Dark, Part, percentile
from penstock.checks.reader import Reader
from penstock.checks.sending import UNANSWERED, Answer, Ask, Bounds, Target
from penstock.checks.untrusted.differences import MOST_BYTES, ignored_headers, media, telling
from penstock.checks.untrusted.exchange import CompareCall, Pair, Seen
from penstock.core.acceptance import MOST_EXAMPLES, Compared
from penstock.core.acceptanceconfig import AcceptanceConfig, CompareConfig
from penstock.core.traffic import COPY_HEADER, Visit
from penstock.errors import Invalid, Unavailable

AT_ONCE = 4
POLL_SECONDS = 1.0
#: No more is asked, and no more of what differs is looked into.
MOST_PAIRS = 2000
MOST_DIFFERENT = 200
#: Pairs that go to the other process at once: their bodies are held in memory.
BATCH = 50
SEED = 20261127
UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

#: Tells what users asked for after a moment.
Visits = Callable[[float], Awaitable[Sequence[Visit]]]


@dataclass
class _Tally:
    pairs: int = 0
    sampled: int = 0
    untold: int = 0
    different: int = 0
    first: list[str] = field(default_factory=list)
    paths: set[str] = field(default_factory=set)
    stable_ms: array[float] = field(default_factory=lambda: array("d"))
    dark_ms: array[float] = field(default_factory=lambda: array("d"))
    unequal: list[tuple[str, Pair]] = field(default_factory=list)


async def check(
    config: AcceptanceConfig, dark: Dark, stable: Dark | None, visits: Visits, reader: Reader | None = None
) -> tuple[Compared | None, Part]:
    """Nothing if no comparison is declared, or there is no stable release yet."""
    wanted = config.compare
    if wanted is None:
        return None, Part()
    if stable is None:
        return None, Part(words="compared with nothing: there is no stable release yet")
    run = _Run(wanted, dark, stable, reader or Reader())
    try:
        await run.all(config.paths, visits)
    except Invalid as error:
        return None, Part(failed=1, failing=(f"compare: {error}"[:500],))
    finally:
        run.close()
    found = run.found()
    return found, judged(found, wanted)


class _Run:
    def __init__(self, wanted: CompareConfig, dark: Dark, stable: Dark, reader: Reader) -> None:
        bounds = Bounds(keep=MOST_BYTES + 1)
        self._wanted = wanted
        self._dark, self._stable = (
            (Target(way.address, bounds, {**way.headers, COPY_HEADER: "1"}), way.release)
            for way in (dark, stable)
        )
        self._reader = reader
        self._chance = random.Random(SEED)
        self._tally = _Tally()
        self._ignored = ignored_headers(wanted.ignore)

    def close(self) -> None:
        self._dark[0].close()
        self._stable[0].close()

    async def all(self, paths: Sequence[str], visits: Visits) -> None:
        """The service's own paths once, then samples of what users ask for until the time is over."""
        end, since = time.monotonic() + self._wanted.seconds, 0.0
        await self._turns(paths)
        while not self._enough and time.monotonic() < end:
            chosen, since = await self._more(visits, since, end)
            await self._turns(chosen, end)
        await self._look()

    @property
    def _enough(self) -> bool:
        return self._tally.pairs >= MOST_PAIRS or self._tally.different >= MOST_DIFFERENT

    async def _turns(self, paths: Sequence[str], end: float = math.inf) -> None:
        """So many at once, until enough is known or the time is over."""
        for turn in range(0, len(paths), AT_ONCE):
            if self._enough or time.monotonic() >= end:
                return
            await asyncio.gather(*map(self._pair, paths[turn : turn + AT_ONCE]))
            if len(self._tally.unequal) >= BATCH:
                await self._look()

    async def _more(self, visits: Visits, since: float, end: float) -> tuple[list[str], float]:
        """The next samples; after a moment, if there are none."""
        try:
            found = await visits(since) if self._wanted.share else ()
        except Unavailable:
            found = ()  # the data plane will be asked again
        asked = [visit.path for visit in found if self._chance.random() < self._wanted.share / 100]
        chosen = [path for path in asked if not secret(path)]
        self._tally.sampled += len(chosen)
        if not chosen:
            await asyncio.sleep(max(0.0, min(POLL_SECONDS, end - time.monotonic())))
        return chosen, found[-1].at if found else since

    async def _pair(self, path: str) -> None:
        tally = self._tally
        tally.pairs += 1
        tally.paths.add(path)
        (stable, stable_ms), (dark, dark_ms) = await asyncio.gather(
            self._ask(self._stable, path), self._ask(self._dark, path)
        )
        if stable is None or stable.status >= 500:
            tally.untold += 1
            return
        if dark is None:
            self._differs(path, ("no answer",))
            return
        tally.stable_ms.append(stable_ms)
        tally.dark_ms.append(dark_ms)
        if self._equal(stable, dark):
            return
        again, _ = await self._ask(self._stable, path)
        tally.unequal.append((path, Pair(_seen(stable), _seen(dark), _seen(again) if again else None)))

    async def _ask(self, target: tuple[Target, str], path: str) -> tuple[Answer | None, float]:
        began = time.monotonic()
        try:
            answer = await target[0].ask(Ask(path=path))
        except UNANSWERED:
            return None, 0.0
        served_by = answer.headers.get(RELEASE, target[1])
        return answer if served_by == target[1] else None, 1000 * (time.monotonic() - began)

    def _equal(self, one: Answer, other: Answer) -> bool:
        """Without any pattern: byte for byte."""
        return (
            (one.status, one.size, one.body) == (other.status, other.size, other.body)
            and one.whole
            and media(one.headers) == media(other.headers)
            and telling(one.headers, self._ignored) == telling(other.headers, self._ignored)
        )

    async def _look(self) -> None:
        """Look into those that are not equal, where patterns may run."""
        unequal, self._tally.unequal = self._tally.unequal, []
        if not unequal:
            return
        call = CompareCall("compare", "acceptance.compare", self._wanted.ignore, tuple(p for _, p in unequal))
        found = await self._reader.compare(call)
        for (path, _), difference in zip(unequal, found.pairs, strict=True):
            if difference.places:
                self._differs(path, difference.places)
            elif not difference.told:
                self._tally.untold += 1

    def _differs(self, path: str, places: Sequence[str]) -> None:
        self._tally.different += 1
        words = f"{masked(path)}: {', '.join(places)}"
        if words not in self._tally.first and len(self._tally.first) < MOST_EXAMPLES:
            self._tally.first.append(words)

    def found(self) -> Compared:
        tally = self._tally
        stable, dark = tally.stable_ms, tally.dark_ms
        return Compared(
            pairs=tally.pairs,
            different=tally.different,
            untold=tally.untold,
            ignored=self._wanted.ignore,
            first=tuple(tally.first),
            stable_p50_ms=round(percentile(stable, 0.5), 1),
            dark_p50_ms=round(percentile(dark, 0.5), 1),
            stable_p95_ms=round(percentile(stable, 0.95), 1),
            dark_p95_ms=round(percentile(dark, 0.95), 1),
            paths=len(tally.paths),
            sampled=tally.sampled,
        )


def judged(found: Compared, wanted: CompareConfig) -> Part:
    """One test: passed if enough answers could be compared, and few enough differ."""
    told = found.pairs - found.untold
    words = (
        f"compared with stable: {found.different} of {told} answers differ, "
        f"median {found.dark_p50_ms:g} ms beside {found.stable_p50_ms:g} ms"
    )
    problems = []
    if not told:
        problems.append(f"none of {found.pairs} answers could be compared")
    elif found.different / told > wanted.max_different:
        share = f"{found.different / told:.2%}, at most {wanted.max_different:.2%}"
        problems.append(f"{found.different} of {told} answers differ ({share}): {'; '.join(found.first[:3])}")
    slower = found.dark_p50_ms / max(1.0, found.stable_p50_ms)
    if wanted.max_slower is not None and slower > wanted.max_slower:
        problems.append(f"half of the answers take {slower:.1f} times as long or longer")
    if problems:
        return Part(failed=1, failing=(f"compare: {'; '.join(problems)}",), words=words)
    return Part(passed=1, words=words)


def _seen(answer: Answer) -> Seen:
    short = replace(answer, body=answer.body[:MOST_BYTES])
    return Seen(answer.status, dict(answer.headers), base64.b64encode(short.body).decode(), short.whole)


def secret(path: str) -> bool:
    """Whether a part of a path looks like something that opens a door: long, of letters and digits."""
    return any(
        len(part) >= 20
        and re.search(r"[0-9]", part)
        and re.search(r"[A-Za-z]", part)
        and not UUID.fullmatch(part)
        for part in re.split(r"[/;=]", path)
    )


def masked(path: str) -> str:
    """A path as it may be kept: what tells one thing or person from another is a star."""
    parts = path.partition("?")[0].split("/")
    return "/".join(
        part if re.fullmatch(r"[A-Za-z._~-]{0,40}", part) and "@" not in part else "*" for part in parts
    )[:200]
