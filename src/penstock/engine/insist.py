"""Doing something again and again, for ever, more and more patiently while it fails.

Called by what sends things out in the background. Whatever fails: a background task that died quietly would
look like one with nothing to do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from penstock.errors import PenstockError
from penstock.ports import Store

log = logging.getLogger(__name__)

LONGEST_SECONDS = 60.0
WAKE_SECONDS = 5.0


async def insist(
    store: Store,
    what: str,
    turn: Callable[[], Awaitable[bool]],
    failed: Callable[[Exception], None],
    pause: float,
) -> None:
    """Take turns until cancelled. One that moved nothing waits for a commit, one that failed for longer."""
    failures = 0
    while True:
        try:
            if not await turn():
                await store.wake(WAKE_SECONDS)
            failures = 0
        except Exception as error:
            failures += 1
            failed(error)
            log.warning("%s: %s", what, error, exc_info=not isinstance(error, PenstockError))
            await asyncio.sleep(min(pause * 2.0 ** min(failures - 1, 20), LONGEST_SECONDS))
