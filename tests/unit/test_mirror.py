"""What a mirror shows while news come in an order that a busy cluster may have."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from penstock.adapters._kubernetes import Change, Kind, Listed, Object
from penstock.adapters._kubernetes.kinds import SERVICES
from penstock.adapters._kubernetes.mirror import Mirror
from penstock.errors import Refused


class Told:
    """In a client's place: tells what a test says."""

    def __init__(self) -> None:
        self.news: asyncio.Queue[Listed | Change | Refused] = asyncio.Queue()

    async def watch(self, kind: Kind, **_: Any) -> AsyncIterator[Listed | Change]:
        while True:
            seen = await self.news.get()
            if isinstance(seen, Refused):
                raise seen
            yield seen


def service(name: str, version: int) -> Object:
    return {"metadata": {"name": name, "uid": name, "resourceVersion": str(version)}}


async def begun(told: Told) -> Mirror:
    mirror = Mirror(told, (SERVICES,), "")  # type: ignore[arg-type]
    told.news.put_nowait(Listed((service("web-1", 3),), "5"))
    await mirror.ready()
    return mirror


async def shows(mirror: Mirror, *names: str) -> None:
    def look() -> bool | None:
        there = [name for name in ("web-1", "web-2", "web-3") if mirror.get(SERVICES, name)]
        return there == list(names) or None

    assert await mirror.until(look, 10), names


async def test_what_was_written_since_a_list_was_made_is_not_gone() -> None:
    told = Told()
    mirror = await begun(told)
    mirror.put(SERVICES, service("web-2", 8))  # as a write returned it
    told.news.put_nowait(Listed((service("web-3", 6),), "7"))
    await shows(mirror, "web-2", "web-3")
    told.news.put_nowait(Listed((service("web-3", 6),), "9"))
    await shows(mirror, "web-3")
    await mirror.close()


async def test_a_right_that_is_taken_away_ends_the_waiting() -> None:
    told = Told()
    mirror = await begun(told)
    told.news.put_nowait(Refused("no more"))
    with pytest.raises(Refused, match="no more"):
        await mirror.until(lambda: None, 10)
    told.news.put_nowait(Listed((service("web-2", 4),), "6"))  # it was given back
    await mirror.ready()
    await shows(mirror, "web-2")
    await mirror.close()


async def test_a_right_that_was_taken_away_is_told_to_whoever_asks_next() -> None:
    told = Told()
    mirror = await begun(told)
    told.news.put_nowait(Refused("no more"))
    for _ in range(10):
        await asyncio.sleep(0)
    with pytest.raises(Refused, match="no more"):
        await mirror.ready()
    told.news.put_nowait(Listed((service("web-2", 4),), "6"))
    await mirror.ready()
    await mirror.close()
