"""How the processes of one data folder are started, and know of one another: a lock while one runs, its pid
from the moment it is started, and a word of why it could not.

Called by `up` and `down`, and by each process for itself. Must not know what a process does.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from penstock.bootstrap.home import Home
from penstock.errors import Conflict, PenstockError, Unavailable, from_wire

START_SECONDS = 30.0


def spawn(home: Home, command: str, *options: str) -> int:
    """Start ``penstock <command>`` in a session of its own, writing to its log. Returns the pid."""
    log = home.logs / f"{'-'.join([command, *options[1:]])}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock.cli.main", command, *options],
            env={**os.environ, "PENSTOCK_HOME": str(home.path)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    pid_file(home, log.stem).write_text(str(process.pid))
    return process.pid


def pid_file(home: Home, name: str) -> Path:
    """Who was started as it: until that process has a lock, nothing else says so."""
    return home.run / f"{name}.pid"


def failure_file(home: Home, name: str) -> Path:
    """Where a process leaves word of why it could not start."""
    return home.run / f"{name}.failed"


@contextlib.contextmanager
def reporting(home: Home, name: str) -> Iterator[None]:
    """Leave word of why a process cannot start, for `up`, which waits for it: its user reads no log."""
    try:
        yield
    except (PenstockError, OSError) as error:
        told = (
            error if isinstance(error, PenstockError) else Unavailable(str(error), where=f"penstock {name}")
        )
        temporary = failure_file(home, f"{name}.new")
        temporary.write_text(json.dumps(told.to_wire()))
        temporary.replace(failure_file(home, name))
        raise


def wait_for(home: Home, met: Callable[[], bool], *processes: str) -> None:
    """Wait until something is so; what one of the *processes* died of is raised here."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if met():
            return
        for name in processes:
            if failure_file(home, name).exists():
                raise from_wire(json.loads(failure_file(home, name).read_text()))
        time.sleep(0.05)
    tails = "\n".join(f"--- {name}.log\n{_tail(home.logs / f'{name}.log')}" for name in processes)
    move = "penstock up again: it may only be slow, and goes on starting; if it does not, penstock doctor"
    raise Unavailable(f"not up after {START_SECONDS:.0f} s:\n{tails}", next_move=move)


def answers(path: Path) -> bool:
    """Whether somebody listens at a unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _tail(path: Path, characters: int = 1500) -> str:
    return path.read_text(errors="replace")[-characters:] if path.exists() else "(no log)"


@contextlib.contextmanager
def locked(path: Path, problem: str) -> Iterator[IO[str]]:
    """Hold a file lock with our pid in it; `Conflict` if somebody else does."""
    with path.open("a+") as file:
        # Whoever asks whether it `is_held` holds it for a moment.
        deadline = time.monotonic() + 1.0
        while not _taken(file):
            if time.monotonic() > deadline:
                file.seek(0)
                holder = file.read().strip() or "?"
                raise Conflict(f"{problem} (pid {holder})", where=str(path.parent))
            time.sleep(0.02)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield file


def _taken(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def is_held(path: Path) -> bool:
    """Whether a running process holds the lock file."""
    if not path.exists():
        return False
    with path.open("r") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
