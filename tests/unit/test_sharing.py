"""Readings of Envoy's statistics that are shared by those who ask at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest

from penstock.adapters.envoy.sharing import Shared
from penstock.errors import Unavailable


class Statistics:
    """Answers with the number of the reading, once it may."""

    def __init__(self) -> None:
        self.read = list[set[str]]()
        self.go = asyncio.Event()
        self.fails = False

    async def __call__(self, names: Collection[str]) -> int:
        self.read.append(set(names))
        number = len(self.read)
        await self.go.wait()
        if self.fails:
            raise Unavailable("Envoy does not answer")
        return number


async def begun(statistics: Statistics, readings: int) -> None:
    async with asyncio.timeout(10):
        while len(statistics.read) < readings:
            await asyncio.sleep(0)


async def test_who_asks_during_a_reading_shares_the_next_one() -> None:
    statistics = Statistics()
    shared = Shared(statistics)
    first = asyncio.create_task(shared.ask(["a"]))
    await begun(statistics, 1)
    others = [asyncio.create_task(shared.ask([name])) for name in ("b", "c", "a")]
    await asyncio.sleep(0)
    assert statistics.read == [{"a"}]  # it began before they asked: it is not for them
    statistics.go.set()
    assert await asyncio.gather(first, *others) == [1, 2, 2, 2]
    assert statistics.read == [{"a"}, {"a", "b", "c"}]
    assert await shared.ask(["d"]) == 3


async def test_one_that_is_gone_takes_nothing_from_the_others() -> None:
    statistics = Statistics()
    shared = Shared(statistics)
    gone, stays = (asyncio.create_task(shared.ask([name])) for name in ("a", "b"))
    await begun(statistics, 1)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    statistics.go.set()
    assert await stays == 1


async def test_an_error_is_everybodys_and_the_next_reading_is_new() -> None:
    statistics = Statistics()
    shared = Shared(statistics)
    statistics.fails = True
    statistics.go.set()
    answers = await asyncio.gather(shared.ask(["a"]), shared.ask(["b"]), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable, Unavailable]
    statistics.fails = False
    assert await shared.ask(["a"]) == 2


async def test_an_error_that_nobody_waits_for_is_nobodys() -> None:
    """Warnings are errors here: one of an exception that was never asked for would fail this."""
    statistics = Statistics()
    shared = Shared(statistics)
    statistics.fails = True
    gone = asyncio.create_task(shared.ask(["a"]))
    await begun(statistics, 1)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    statistics.go.set()
    with pytest.raises(Unavailable):
        await shared.ask(["b"])
