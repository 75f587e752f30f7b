"""Workers at work for as long as somebody measures: in this process, or in processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from penstock.bootstrap.home import Home
from penstock.engine.worker import Worker


@contextlib.asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[None]:
    """A worker in this process."""
    task = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@dataclass(frozen=True)
class Process:
    """A worker process that is ready; *keyid* is its name in leases."""

    keyid: str
    process: subprocess.Popen[str]


@contextlib.contextmanager
def processes(home: Home, count: int, *options: str) -> Iterator[list[Process]]:
    """So many worker processes for a data folder, killed in the end."""
    made: list[Process] = []
    try:
        for number in range(count):
            process = _started(home, f"w{number}", *options)
            assert process.stdout is not None
            made.append(Process("", process))
        for number, one in enumerate(made):
            assert one.process.stdout is not None
            made[number] = Process(one.process.stdout.readline().strip(), one.process)
        yield made
    finally:
        for one in made:
            one.process.kill()
            one.process.wait()


def _started(home: Home, name: str, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "parts.tensteps", str(home.path), name, *options],
        cwd=Path(__file__).parents[1],
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        text=True,
    )
