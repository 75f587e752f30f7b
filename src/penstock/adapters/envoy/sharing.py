"""Shares one reading of Envoy's statistics among all who ask at the same time.

Called by the driver. Envoy walks through all its statistics for each question, however small: reading two
hundred services one by one would be two hundred such walks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """*read* is called with all names that were asked for while its last call was under way."""

    def __init__(self, read: Callable[[Collection[str]], Awaitable[T]]) -> None:
        self._read = read
        self._turn = asyncio.Lock()
        self._wanted: set[str] = set()
        self._next: asyncio.Future[T] | None = None

    async def ask(self, names: Collection[str]) -> T:
        """What a reading gives that holds these names, and began after this call."""
        self._wanted |= set(names)
        if self._next is None:
            self._next = asyncio.ensure_future(self._take_turn())
            self._next.add_done_callback(_seen)
        # One who asked may be gone before it is answered; the others wait for the same.
        return await asyncio.shield(self._next)

    async def _take_turn(self) -> T:
        async with self._turn:
            names, self._wanted, self._next = self._wanted, set(), None
            return await self._read(names)


def _seen(done: asyncio.Future[T]) -> None:
    """An error is told to whoever waits; if nobody does any more, it is nobody's."""
    if not done.cancelled():
        done.exception()
