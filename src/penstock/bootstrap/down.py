"""Stopping the processes of one machine, those that still start among them.

Called by the CLI's ``down`` and ``demo``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

import psutil

from penstock.bootstrap.home import Home
from penstock.bootstrap.processes import answers, failure_file, is_held, pid_file, spawn, wait_for
from penstock.errors import Unavailable
from penstock.node.client import NodeClient

#: A process that was asked to end is ended after so long.
STOP_SECONDS = 15.0


def down(home: Home) -> None:
    """Stop the workers and the control plane, then workloads, proxy and node agent. Data stays. What an `up`
    that gave up has left starting is stopped like what runs; an agent that died is started once more, since
    nobody else knows what it had in its care."""
    workers = sorted({path.stem for end in ("lock", "pid") for path in home.run.glob(f"worker-*.{end}")})
    for name in workers:
        _stop(home, name, home.run / f"{name}.lock")
    _stop(home, "serve", home.run / "server.lock")
    if pid_file(home, "node").exists() and not is_held(home.node / "agent.lock"):
        if not _starting(home, "node"):
            failure_file(home, "node").unlink(missing_ok=True)
            spawn(home, "node")
        wait_for(home, lambda: answers(home.node_socket), "node")
    if is_held(home.node / "agent.lock"):
        with contextlib.suppress(Unavailable):
            asyncio.run(NodeClient(home.node_socket).stop_everything())
    _stop(home, "node", home.node / "agent.lock")


def _starting(home: Home, name: str) -> int:
    """The pid of the process that was started last as *name* for this folder, if it runs; else 0. The number
    may be somebody else's by now, so what it runs is looked at."""
    with contextlib.suppress(OSError, ValueError, psutil.Error):
        process = psutil.Process(int(pid_file(home, name).read_text()))
        ours = process.environ().get("PENSTOCK_HOME") == str(home.path)
        if ours and name.partition("-")[0] in process.cmdline():
            return process.pid
    return 0


def _stop(home: Home, name: str, lock: Path) -> None:
    """End who holds the *lock*, or is on the way to it."""
    pid = _starting(home, name)
    pid_file(home, name).unlink(missing_ok=True)
    if is_held(lock):
        pid = int(lock.read_text() or 0)
    elif not pid:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline:
            if not is_held(lock) and not _exists(pid):
                return
            time.sleep(0.05)


def _exists(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be reaped by us does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
