"""The other end of ``PENSTOCK_BOUNDARIES``: names each boundary that is reached, and kills when it is time.

Used by `rig`. It knows no boundary by name; it must not answer a process before its kill is done.
"""

from __future__ import annotations

import contextlib
import json
import socketserver
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: Longer than a worker goes without renewing its lease (`rig.LEASE_SECONDS` / 4).
HOLD_SECONDS = 1.5
RENEW = "commit journal.renew"
#: How often a lease is renewed, or let go of while waiting, depends on the time and on who comes first.
BY_CHANCE = (RENEW, "commit journal.release")
#: Not killed but stopped.
PAUSE = "paused worker"


@dataclass(frozen=True)
class Kill:
    """Kill *victim* when *boundary* is reached."""

    boundary: str
    victim: str


@dataclass(frozen=True)
class Reached:
    """One line from a process, with the name that it has in the matrix."""

    pid: int
    process: str
    name: str


@dataclass
class Run:
    """One delivery, as the listener sees it. *plan* is done from the front.

    *seen* holds each boundary in order, with the number of kills that had been done when it was first met.
    """

    plan: tuple[Kill, ...]
    usual: Mapping[str, int]
    seen: dict[str, int] = field(default_factory=dict)
    times: Counter[tuple[int, str]] = field(default_factory=Counter)
    killed: list[Kill] = field(default_factory=list)
    driver: int = 0
    #: What is being performed.
    intent: str = "-"
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def due(self) -> Kill | None:
        return self.plan[len(self.killed)] if len(self.killed) < len(self.plan) else None

    def counts(self) -> dict[str, int]:
        """How often one process came by each boundary, numbers aside."""
        most: dict[str, int] = {}
        for (_, raw), count in self.times.items():
            most[raw] = max(count, most.get(raw, 0))
        return most

    def name(self, pid: int, process: str, boundary: str) -> str:
        """A boundary with its number. What is repeated only because it was tried again, or because time went
        by, is the same boundary: numbers go no further than those of the undisturbed run (*usual*)."""
        raw = f"node: {boundary}" if process == "node" else boundary
        self.times[pid, raw] += 1
        chance = any(name in raw for name in BY_CHANCE)
        most = 1 if chance else self.usual.get(raw, 1) if self.usual else 10**6
        number = min(self.times[pid, raw], most)
        place, _, moment = raw.rpartition(" ")
        return f"{place} #{number} {moment}"


class Listener:
    """*kill* is told the victim and the process that reached the boundary; it returns when it is dead.
    *passed* is told of every boundary."""

    def __init__(
        self, path: Path, kill: Callable[[str, Reached], None], passed: Callable[[Reached], None]
    ) -> None:
        self._kill = kill
        self._passed = passed
        self._lock = threading.Lock()
        self._run: Run | None = None
        self._server = _Server(str(path), self._talk)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @contextlib.contextmanager
    def watching(self, run: Run):  # type: ignore[no-untyped-def]
        with self._lock:
            self._run = run
        try:
            yield run
        finally:
            with self._lock:
                self._run = None
                run.done.set()

    def come_by(self, boundary: str) -> None:
        """Somebody who is asked by whoever drives the delivery (a cluster's API) has come to a boundary."""
        with self._lock:
            run = self._run
        if run is not None and run.driver:
            self._reached(run.driver, "", f"{run.intent} {boundary}")

    def _talk(self, line: bytes) -> None:
        said = json.loads(line)
        self._reached(said["pid"], said["process"], said["boundary"])

    def _reached(self, pid: int, process: str, boundary: str) -> None:
        with self._lock:
            run = self._run
            if run is None:
                return
            if process != "node":
                run.driver = pid
                run.intent = run.intent if boundary.startswith("- ") else boundary.partition(" ")[0]
            kill = run.due
            if boundary.endswith(" begins"):
                # A lease is renewed only if something takes long enough.
                hold = kill is not None and kill.boundary.startswith(f"- {RENEW}")
                name = ""
            else:
                hold, name = False, run.name(pid, process, boundary)
                run.seen.setdefault(name, len(run.killed))
            if kill is not None and kill.boundary == name:
                # Under the lock: nobody passes another boundary while one is being killed.
                self._kill(kill.victim, Reached(pid, process, name))
                run.killed.append(kill)
                if run.due is None:
                    run.done.set()
            self._passed(Reached(pid, process, name))
        if hold:
            run.done.wait(HOLD_SECONDS)


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: str, talk: Callable[[bytes], None]) -> None:
        super().__init__(path, _Handler)
        self.talk = talk


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(OSError):
            if line := self.rfile.readline():
                self.server.talk(line)  # type: ignore[attr-defined]
                self.wfile.write(b"go on\n")
