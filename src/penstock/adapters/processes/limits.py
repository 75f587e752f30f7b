"""What an instance may use of its machine, and how far that can be enforced here without control groups.

Called by `instance` as it starts one, and by the driver as it tends. Open files are bounded by the system;
memory by looking every second and ending what has too much, which a quick burst can outrun; processor time
is not bounded, nor are copies counted by it, and that is told (`advisory`).
"""

from __future__ import annotations

import contextlib
import time

import psutil

from penstock.adapters.processes.record import Record
from penstock.core.workload import Limits, Workload

EVERY_SECONDS = 1.0
MEGABYTE = 1024 * 1024


def advisory(workload: Workload) -> tuple[str, ...]:
    """What was declared and does nothing here: nobody bounds processor time, or counts copies by it."""
    asked = {"cpus": workload.limits.cpus, "scaling.cpu": workload.scaling.cpu or 0}
    return tuple(name for name, value in asked.items() if value)


def bounded(command: tuple[str, ...], limits: Limits) -> tuple[str, ...]:
    """*command*, with the limits that every process of it inherits."""
    if not limits.open_files:
        return command
    return ("/bin/sh", "-c", 'ulimit -n "$0" && exec "$@"', str(limits.open_files), *command)


class Watch:
    """Looks at each instance's memory now and then."""

    def __init__(self) -> None:
        self._next: dict[int, float] = {}

    def exceeded(self, record: Record, limits: Limits) -> str:
        """What it has too much of, in words; "" if nothing, or if it is not time to look."""
        now = time.monotonic()
        if not limits.memory_mb or now < self._next.get(id(record), 0.0):
            return ""
        self._next[id(record)] = now + EVERY_SECONDS
        used = _memory(record.pid) // MEGABYTE
        if used <= limits.memory_mb:
            return ""
        return f"out of memory: it used {used} MB, its limit is {limits.memory_mb} MB, and it was ended"

    def forget(self, record: Record) -> None:
        self._next.pop(id(record), None)


def _memory(pid: int) -> int:
    """Bytes of a process and all that it started; what they share counts once."""
    total = 0
    with contextlib.suppress(psutil.Error):
        first = psutil.Process(pid)
        for process in (first, *first.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                found = process.memory_full_info()
                total += getattr(found, "pss", 0) or found.rss
    return total
