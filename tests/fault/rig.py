"""A whole Penstock whose processes are killed on purpose, somebody who starts them again, and the checks.

Used by `matrix`. One rig is one data folder and one store; it serves many deliveries of one small service.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import psutil

from penstock.bootstrap import boundaries
from penstock.bootstrap.down import down
from penstock.bootstrap.processes import is_held
from penstock.errors import Unavailable
from tests.e2e.machine import Machine
from tests.fakes.postgres import PostgresServer
from tests.fakes.web import free_port
from tests.fault.checks import Shape, View, record_wrong, world_wrong
from tests.fault.listening import PAUSE, Kill, Listener, Reached, Run

LEASE_SECONDS = 2.0
#: How long a delivery may take, kills and all; how long the data plane may take to agree afterwards.
DELIVERY_SECONDS = 60.0
SETTLE_SECONDS = 20.0
POLL_SECONDS = 0.1

CONFIG = """\
service: shop
run: python3 serve.py
health: /healthz
checks:
  tests: {run: cp report.xml junit.xml, junit: junit.xml}
acceptance: {paths: [/], requests: 20, p95_ms: 10000}
canary: {steps: [50], seconds_per_step: 0.3, look_every: 0.3, patience: 0}
"""
REPORT = '<testsuite><testcase classname="shop" name="serves"/></testsuite>'
#: There are no users here, so nothing that a canary could tell.
POLICY = """\
policy: operations-lead
owner: operations-lead
scope: organisation
guards: [promote]
environments: [production]
rules:
  - id: canary
    when: release.first || evidence.canary.verdict != 'FAIL'
    say: "'no worse'"
    else: "'worse'"
"""

#: What somebody comes by who has ended a delivery: by itself, or with its last step.
ENDS = ("commit drive._finish #1 after", "promote/promote/0 commit drive._commit #1 after")
SERVER, NODE = ("serve",), ("node",)

#: What goes wrong with one write of a cluster's API, or with those who watch it, at that moment.
AT_WRITES = ("busy", "quota", "meddler", "history")

T = TypeVar("T")


@dataclass(frozen=True)
class Configuration:
    """*target* is where releases run: this machine's ``node``, or a ``cluster``, where the Gateway API leads
    users, or ``istio``."""

    store: str
    workers: int
    target: str = "node"

    def __str__(self) -> str:
        words = f"{self.store}, {self.workers} worker{'s' if self.workers > 1 else ''}"
        return words if self.target == "node" else f"{words}, {self.target}"

    @property
    def victims(self) -> tuple[str, ...]:
        """*worker* is the process that drives the delivery; a *server* beside other workers may not be it."""
        server = ["server"] if self.workers > 1 else []
        world = ("node", "envoy") if self.target == "node" else ("api", "pods")
        return ("worker", *server, *world, *(["postgres"] if self.store == "postgres" else []))

    def victims_at(self, boundary: str) -> tuple[str, ...]:
        """Those of every boundary, and before a write of a cluster's API what may go wrong with that."""
        writes = " api." in boundary and boundary.endswith(" before")
        return (*self.victims, *(AT_WRITES if writes else ()))


@dataclass(frozen=True)
class Delivered:
    """One delivery with its kills. *wrong* is empty if all is as if nobody had been killed."""

    run: Run
    view: View
    wrong: tuple[str, ...]
    seconds: float


class Rig:
    def __init__(self, configuration: Configuration, postgres: PostgresServer | None) -> None:
        self.configuration = configuration
        self.folder = Path(tempfile.mkdtemp(prefix="ps-m-", dir="/tmp"))
        self.machine = Machine(self.folder)
        self.home = self.machine.home
        self.postgres = postgres
        #: Of the repository, beside its own (`Machine.commit`).
        self.files = {"penstock__yaml": CONFIG, "report__xml": REPORT}
        self.versions = 0
        #: How long the database stays away once it is killed.
        self.database_seconds = 0.0
        #: Processes that were stopped instead of killed: for so long, or until another one ends the delivery.
        self.paused: list[int] = []
        self.pause_seconds = 0.0
        self._listener = Listener(self.folder / "boundaries.sock", self._kill, self._passed)
        self._started: dict[tuple[str, ...], subprocess.Popen[bytes]] = {}
        self._keep = threading.Event()
        self._database_lost = threading.Event()
        self._keeper = threading.Thread(target=self._keep_up, daemon=True)
        self._run = Run((), {})

    # --- from start to end ----------------------------------------------------------------------------

    def open(self) -> None:
        """Start everything, and deliver twice: only then is there a live release and one before it."""
        os.environ[boundaries.VARIABLE] = str(self.folder / "boundaries.sock")
        os.environ.pop("PENSTOCK_STORE", None)
        if self.postgres is not None:
            os.environ["PENSTOCK_STORE"] = self.postgres.url(self.postgres.schema())
        self.home.create()
        self.home.keep(replace(self.home.settings, lease_seconds=LEASE_SECONDS))
        workers = ["--workers", str(self.configuration.workers)] if self.configuration.workers > 1 else []
        self.machine.penstock("up", *self._options, *workers)
        until(lambda: all(map(is_held, self._locks.values())) or None, SETTLE_SECONDS)
        self._keeper.start()
        policy = self.folder / "operations-lead.yaml"
        policy.write_text(POLICY)
        self.machine.penstock("policy", "publish", str(policy))
        for _ in range(2):
            view = self._await_end(self._ship(self._commit()))
            assert view["outcome"] == "promoted", view["reason"]

    @property
    def _options(self) -> list[str]:
        """What `up` is told."""
        return ["--port", str(free_port()), "--ingress-port", str(free_port())]

    def close(self, *, keep: bool = False) -> None:
        self.resume()
        self._keep.set()
        if self._keeper.is_alive():
            self._keeper.join()
        down(self.home)
        for process in self._started.values():
            process.terminate()  # one that has only just begun has no lock yet, by which `down` knows it
            process.wait(SETTLE_SECONDS)
        self._listener.close()
        self.machine.close()
        for name in (boundaries.VARIABLE, "PENSTOCK_STORE"):  # the next test has its own, or none
            os.environ.pop(name, None)
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    # --- a supervisor ---------------------------------------------------------------------------------

    def _keep_up(self) -> None:
        """What a supervisor does: start again what has ended. Envoy is the agent's to bring back."""
        gone: dict[tuple[str, ...], float] = {}
        while not self._keep.wait(0.05):
            if self.postgres is not None and self._database_lost.is_set():
                self._database_lost.clear()
                self._keep.wait(self.database_seconds)
                self._start_database(self.postgres)
            for command, lock in self._locks.items():
                started = self._started.get(command)
                if is_held(lock) or (started is not None and started.poll() is None):
                    gone.pop(command, None)
                elif time.monotonic() >= gone.setdefault(command, time.monotonic()) + self._away(command):
                    self._started[command] = self._start(command)

    def _away(self, command: tuple[str, ...]) -> float:
        """How long somebody stays away. Where others can take over, they are given the time to."""
        others = self.configuration.workers > 1 and command != NODE
        return LEASE_SECONDS + 1.0 if others else 0.0

    def _start(self, command: tuple[str, ...]) -> subprocess.Popen[bytes]:
        env = {**os.environ, "PENSTOCK_HOME": str(self.home.path)}
        arguments = [sys.executable, "-m", "penstock.cli.main", *command]
        with (self.home.logs / f"{command[0]}{''.join(command[2:])}.log").open("ab") as log:
            return subprocess.Popen(arguments, env=env, stdout=log, stderr=log, start_new_session=True)

    def _start_database(self, postgres: PostgresServer) -> None:
        deadline = time.monotonic() + DELIVERY_SECONDS
        while True:
            try:
                return postgres.start()
            except Exception:  # what is left of the killed one may still be in its way
                if time.monotonic() > deadline:
                    raise
                postgres.stop(signal.SIGKILL)

    @property
    def _locks(self) -> dict[tuple[str, ...], Path]:
        locks = {SERVER: self.home.run / "server.lock", NODE: self.home.node / "agent.lock"}
        names = map(str, range(2, self.configuration.workers + 1))
        return {**locks, **{("worker", "--name", name): self.home.worker_lock(name) for name in names}}

    # --- killing --------------------------------------------------------------------------------------

    def _kill(self, victim: str, reached: Reached) -> None:
        if victim == "postgres":
            self._kill_database()
        elif victim == PAUSE:
            os.kill(reached.pid, signal.SIGSTOP)
            self.paused.append(reached.pid)
            if self.pause_seconds:
                threading.Timer(self.pause_seconds, self.resume).start()
        else:
            self._end(self._pid(victim, reached))

    def _passed(self, reached: Reached) -> None:
        if self.paused and reached.pid not in self.paused and reached.name.endswith(ENDS):
            self.resume()

    def resume(self) -> None:
        """Let the paused ones go on; they do not know how much time has gone by."""
        while self.paused:
            os.kill(self.paused.pop(), signal.SIGCONT)

    def _pid(self, victim: str, reached: Reached) -> int:
        if victim == "worker":
            return reached.pid if reached.process != "node" else self._driver()
        if victim in ("server", "node"):
            return self.machine.pid(self._locks[SERVER if victim == "server" else NODE])
        return int(json.loads((self.home.node / "envoy" / "envoy.pid").read_text())["pid"])

    def _driver(self) -> int:
        return self._run.driver or self.machine.pid(self._locks[SERVER])

    def _end(self, pid: int) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            process.send_signal(signal.SIGKILL)
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.002)

    def _kill_database(self) -> None:
        """The server and what it has started, as when the machine's memory runs out."""
        assert self.postgres is not None
        first = psutil.Process(self.postgres.pid)
        family = first.children()
        self.postgres.stop(signal.SIGKILL)
        for process in family:
            self._end(process.pid)
        self._database_lost.set()

    # --- one delivery ---------------------------------------------------------------------------------

    def deliver(
        self, plan: Sequence[Kill] = (), usual: dict[str, int] | None = None, shape: Shape | None = None
    ) -> Delivered:
        """Deliver a new version, kill as planned, and say what is wrong afterwards."""
        revision = self._commit()
        run = self._run = Run(tuple(plan), usual or {})
        began = time.monotonic()
        with self._listener.watching(run):
            view = self._await_end(self._ship(revision))
            wrong = self._settled(view)
        seconds = time.monotonic() - began
        if plan and shape is not None:
            wrong += record_wrong(view, shape)
        wrong += self._ledger_wrong(revision)
        return Delivered(run, view, tuple(wrong), seconds)

    @contextmanager
    def killing(self, *plan: Kill) -> Iterator[Run]:
        """Kill as planned while somebody else delivers."""
        run = self._run = Run(plan, {})
        with self._listener.watching(run):
            yield run

    @property
    def _seconds(self) -> float:
        return DELIVERY_SECONDS + self.database_seconds

    def _commit(self) -> str:
        self.versions += 1
        return self.machine.commit(f"v{self.versions}", **self.files)

    def _ship(self, revision: str) -> str:
        """Ship as a careful caller does: after a failure, look whether it was queued before trying again."""

        def once() -> str | None:
            listed = self.machine.client.get("/v1/deliveries")["deliveries"]
            found = [d["id"] for d in listed if d["change"]["revision"] == revision]
            return found[0] if found else self.machine.ship()

        return until(once, self._seconds) or ""

    def _await_end(self, delivery: str) -> View:
        def ended() -> View | None:
            view: View = self.machine.client.get(f"/v1/deliveries/{delivery}")
            return view if view["ended"] else None

        view = until(ended, self._seconds) if delivery else None
        return view or {"id": delivery, "outcome": "", "steps": [], "evidence": [], "reason": "no end"}

    # --- what must hold -------------------------------------------------------------------------------

    def _settled(self, view: View) -> list[str]:
        """What the data plane does not agree with, once it had its time."""
        if not view["outcome"]:
            return [f"{view['id']} did not end in {self._seconds:.0f} s"]
        if view["outcome"] != "promoted":
            return [f"ended as {view['outcome']}: {view['reason']}"]
        wrong: list[str] = []

        def agrees() -> bool | None:
            wrong[:] = self._world_wrong(view)
            return not wrong or None

        until(agrees, SETTLE_SECONDS)
        return wrong

    def _world_wrong(self, view: View) -> list[str]:
        return world_wrong(self.machine, view)

    def wrong_now(self, view: View) -> list[str]:
        """What does not hold any more of a delivery that ended well."""
        (later,) = [
            d for d in self.machine.client.get("/v1/deliveries")["deliveries"] if d["id"] == view["id"]
        ]
        same = later["outcome"] == view["outcome"]
        return self._world_wrong(view) + ([] if same else [f"now it is {later['outcome']}"])

    def _ledger_wrong(self, revision: str) -> list[str]:
        def look() -> tuple[View, View]:
            client = self.machine.client
            return client.post("/v1/ledger/verify"), client.get("/v1/deliveries")

        found = until(look, SETTLE_SECONDS)
        if found is None:
            return ["nobody answers"]
        report, listed = found
        own = [d["id"] for d in listed["deliveries"] if d["change"]["revision"] == revision]
        wrong = [] if report["verified"] else [f"the ledger: {report['problems']}"]
        return wrong + ([] if len(own) == 1 else [f"deliveries of one commit: {own}"])


@contextmanager
def database(configuration: Configuration) -> Iterator[PostgresServer | None]:
    if configuration.store != "postgres":
        yield None
        return
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


def until(ask: Callable[[], T | None], seconds: float) -> T | None:
    """What *ask* returns once that is not None. A server that is away is asked again."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(Unavailable):
            found = ask()
            if found is not None:
                return found
        time.sleep(POLL_SECONDS)
    return None
