"""One running copy of a release: starting it, telling whether it lives and answers, ending it.

Called by the driver. What must survive the agent is in `Record`; a process is known by pid and start
time. Its output goes to a file, never to a pipe of ours, and it has a session of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path

import psutil

from penstock.adapters._birth import birth_of, is_same
from penstock.adapters._handed import Handed
from penstock.adapters.processes.images import Unpacked
from penstock.adapters.processes.limits import bounded
from penstock.adapters.processes.record import Place, Record
from penstock.core.workload import Isolation, Mount, Phase, Step, Workload
from penstock.errors import Unavailable
from penstock.ports import Sandbox

#: Inside a sandbox every workload has a loopback of its own, so these can be the same for all.
INNER_PORT = 8080
INNER_EGRESS = 15000
BACKOFF = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
KILL_SECONDS = 10.0
#: In the environment of an instance's first process: whose it is, should nobody have written its pid down.
MARK = "PENSTOCK_INSTANCE"


class Runner:
    """Starts, observes and ends instances in one kind of sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def start(
        self, record: Record, place: Place, workload: Workload, image: Unpacked, egress: tuple[int, ...]
    ) -> None:
        folder = place.instance(record)
        shutil.rmtree(folder, ignore_errors=True)
        for path in (folder, place.logs, place.data, place.sockets / "out"):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.ExitStack() as ours:
            kept = self._kept(record, place, ours)
            step = self._step(record, place, workload, image, (egress, kept))
            output = ours.enter_context(place.log(record).open("ab"))
            handed = ours.enter_context(Handed())
            try:
                child = subprocess.Popen(
                    bounded(self.sandbox.enclose(step, outlives_us=True, hand=handed.hand), workload.limits),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    env={MARK: place.mark(record)},
                    pass_fds=(*kept, *handed.descriptors),
                )
            except OSError as error:
                raise Unavailable(f"cannot start a process: {error}", where=workload.release) from error
        self._children[child.pid] = child
        record.pid, record.started, record.phase = child.pid, time.time(), Phase.STARTING
        record.created, record.ready_since, record.reason = psutil.Process(child.pid).create_time(), 0.0, ""
        record.birth, record.ended_for = birth_of(psutil.Process(child.pid)), ""

    def _kept(self, record: Record, place: Place, ours: contextlib.ExitStack) -> tuple[int, ...]:
        """What the shim inherits: its socket, bound but refusing until it listens, and its exit note.

        Made out here: had the sandbox a folder for them, the workload could put a link there, and what
        the proxy connects to would be of its choosing.
        """
        if self.sandbox.isolation is Isolation.NONE:
            return ()
        inbound = ours.enter_context(socket.socket(socket.AF_UNIX))
        inbound.bind(str(place.instance(record) / "in.sock"))
        note = ours.enter_context((place.instance(record) / "exit").open("wb"))
        return inbound.fileno(), note.fileno()

    def _step(
        self,
        record: Record,
        place: Place,
        workload: Workload,
        image: Unpacked,
        given: tuple[tuple[int, ...], tuple[int, ...]],
    ) -> Step:
        bare = self.sandbox.isolation is Isolation.NONE
        egress, kept = given
        command = workload.command or image.command
        ports = egress if bare else tuple(INNER_EGRESS + n for n in range(len(workload.calls)))
        env = {**image.env, **workload.env, "HOST": "127.0.0.1", "PORT": str(self.port(record))}
        env |= {variable(c): f"http://127.0.0.1:{p}" for c, p in zip(workload.calls, ports, strict=True)}
        mounts = [Mount(str(image.root / "app"), "/app"), Mount(str(place.data), "/data", writable=True)]
        if bare:  # there, the first process is the workload's own
            env[MARK] = place.mark(record)
        else:
            shim = Path(__file__).with_name("shim.py")
            mounts += [
                Mount(str(place.sockets / "out"), "/run/penstock/out"),
                Mount(str(shim), "/run/shim.py"),
            ]
            command = (*_shim(kept, ports), "--", *command)
        return Step(argv=command, cwd="/app", mounts=tuple(mounts), env=env)

    def alive(self, record: Record) -> bool:
        child = self._children.get(record.pid)
        if child is None:
            return _process(record) is not None
        if child.poll() is not None:
            record.exit_code = child.returncode
        return child.returncode is None

    def port(self, record: Record) -> int:
        """What it is told as ``PORT``."""
        return record.port if self.sandbox.isolation is Isolation.NONE else INNER_PORT

    def own(self, record: Record) -> list[int]:
        """Its processes that are not ours."""
        process = _process(record)
        every = (process, *_descendants(process)) if process else ()
        return [one.pid for one in every if not _is_shim(one)]

    def adopt(self, records: Collection[tuple[Record, Place]]) -> None:
        """Take up what runs and is not on record: its agent died between starting it and writing it down."""
        lost = {place.mark(record): record for record, place in records if not self.alive(record)}
        for mark, process in strays(lost).items():
            with contextlib.suppress(psutil.Error):
                record, created = lost[mark], process.create_time()
                record.birth = birth_of(process)
                record.pid, record.created, record.started = process.pid, created, created
                record.phase, record.ready_since, record.exit_code = Phase.STARTING, 0.0, None

    def ended(self, record: Record, place: Place) -> None:
        """Note how it ended: by our own wait, or by what the shim left behind. Nothing of it stays."""
        note = place.instance(record) / "exit"
        if note.exists():
            with contextlib.suppress(ValueError):
                record.exit_code = int(note.read_bytes()[:16])
        self._forget(record)

    def kill(self, record: Record) -> None:
        """End all of it at once: it does not answer, so there is nothing to wait for."""
        process = _process(record)
        for victim in (*_descendants(process), process) if process else ():
            with contextlib.suppress(psutil.Error):
                victim.kill()

    async def stop(self, record: Record, seconds: float) -> bool:
        """SIGTERM, up to *seconds* for what is in flight, then SIGKILL to all of it. Whether it took that."""
        process = _process(record)
        if process is None:
            self.alive(record)  # it ended by itself, and may still be a zombie of ours
            self._forget(record)
            return False
        told, deadline = False, time.monotonic() + seconds
        while time.monotonic() < deadline and self.alive(record):
            # One that has only just begun cannot hear yet.
            told = told or _signal(process, signal.SIGTERM, self.sandbox.isolation)
            await asyncio.sleep(0.02)
        killed = self.alive(record)
        if killed:
            self.kill(record)
        while self.alive(record) and time.monotonic() < deadline + KILL_SECONDS:
            await asyncio.sleep(0.02)
        self._forget(record)
        return killed

    def _forget(self, record: Record) -> None:
        self._children.pop(record.pid, None)
        _kill_group(record)
        record.pid = 0


def _shim(kept: tuple[int, ...], ports: tuple[int, ...]) -> tuple[str, ...]:
    python = sys.executable if Path(sys.executable).is_relative_to(sys.base_prefix) else "python3"
    bridges = [f"{n}={port}" for n, port in enumerate(ports)]
    fds = [str(fd) for fd in kept]
    return (python, "-I", "/run/shim.py", *fds, "/run/penstock/out", str(INNER_PORT), *bridges)


def variable(callee: str) -> str:
    """The name of the variable that holds a neighbour's address: ``CATALOG_URL``."""
    return callee.upper().replace("-", "_") + "_URL"


def free_port() -> int:
    """A port at which nobody listens now; whoever starts there has to expect that somebody does by then."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _process(record: Record) -> psutil.Process | None:
    try:
        process = psutil.Process(record.pid) if record.pid else None
        if process is None or not is_same(process, record.birth, record.created):
            return None
        return process if process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def strays(wanted: Collection[str]) -> dict[str, psutil.Process]:
    """The first processes of instances whose marks are *wanted*, by mark: what was started by an agent that
    died before it could write down what it had started."""
    found: dict[str, psutil.Process] = {}
    for process in psutil.process_iter() if wanted else ():
        with contextlib.suppress(psutil.Error, OSError):
            mark = process.environ().get(MARK, "")
            leads = os.getsid(process.pid) == process.pid
            if mark in wanted and leads and process.status() != psutil.STATUS_ZOMBIE:
                found[mark] = process
    return found


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _kill_group(record: Record) -> None:
    """End what the first process left behind in its group; the number is its own while anybody is in it."""
    if record.pid and not psutil.pid_exists(record.pid):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(record.pid, signal.SIGKILL)


def _signal(process: psutil.Process, number: signal.Signals, isolation: Isolation) -> bool:
    """The sandbox's own processes ignore SIGTERM; the shim inside hands it on. Whether it was there."""
    if isolation is Isolation.NONE:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        return True
    told = False
    for child in filter(_is_shim, _descendants(process)):
        with contextlib.suppress(psutil.Error):
            child.send_signal(number)
            told = True
    return told


def _is_shim(process: psutil.Process) -> bool:
    try:
        return "/run/shim.py" in process.cmdline()[:4]
    except psutil.Error:
        return False
