"""How our processes run their event loop, and write their log.

Called by whoever starts one that runs commands. Must not know what it runs.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from collections.abc import Coroutine
from typing import TypeVar

T = TypeVar("T")


def log_to_stderr() -> None:
    """What happens, with its time; each request to others is no news."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)


def run(main: Coroutine[None, None, T]) -> T:
    """`asyncio.run`, without a thread for each process that is waited for (as Python itself, from 3.12)."""
    # What was imported is never garbage: the collector need not go through it again and again.
    gc.freeze()
    if sys.platform == "linux" and sys.version_info < (3, 12) and _has_pidfd():
        asyncio.set_child_watcher(asyncio.PidfdChildWatcher())
    return asyncio.run(main)


def _has_pidfd() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):  # another system, an old kernel, a sandbox that forbids it
        return False
    return True
