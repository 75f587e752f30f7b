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
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from penstock.adapters._handed import Handed
from penstock.adapters.processes.images import Unpacked
from penstock.core.tail import tail
from penstock.core.workload import Instance, Isolation, Mount, Phase, Step, Workload
from penstock.errors import Unavailable
from penstock.ports import Sandbox

#: Inside a sandbox every workload has a loopback of its own, so these can be the same for all.
INNER_PORT = 8080
INNER_EGRESS = 15000
BACKOFF = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
#: After this many ends without having been ready for `STEADY_SECONDS`, it is given up.
MAX_CRASHES = 5
STEADY_SECONDS = 10.0
STOP_SECONDS = 10.0
LOG_BYTES = 10 * 1024 * 1024


@dataclass
class Record:
    """What is kept of one instance. Times are seconds since 1970."""

    id: str
    port: int = 0
    pid: int = 0
    created: float = 0.0
    phase: Phase = Phase.STARTING
    restarts: int = 0
    crashes: int = 0
    exit_code: int | None = None
    started: float = 0.0
    ready_since: float = 0.0
    served: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Place:
    """Where one release's instances keep their things. *sockets* is short: unix sockets live there."""

    sockets: Path
    logs: Path
    data: Path

    def instance(self, record: Record) -> Path:
        return self.sockets / record.id

    def log(self, record: Record) -> Path:
        return self.logs / f"{record.id}.log"

    def address(self, record: Record, isolation: Isolation) -> str:
        if isolation is Isolation.NONE:
            return f"127.0.0.1:{record.port}"
        return f"unix:{self.instance(record) / 'in.sock'}"


class Runner:
    """Starts, observes and ends instances in one kind of sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._asked: dict[int, asyncio.Future[bool]] = {}

    def start(
        self, record: Record, place: Place, workload: Workload, image: Unpacked, egress: tuple[int, ...]
    ) -> None:
        folder = place.instance(record)
        shutil.rmtree(folder, ignore_errors=True)
        for path in (folder, place.logs, place.data, place.sockets / "out"):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.sandbox.isolation is Isolation.NONE and not record.port:
            record.port = free_port()
        with contextlib.ExitStack() as ours:
            kept = self._kept(record, place, ours)
            step = self._step(record, place, workload, image, (egress, kept))
            output = ours.enter_context(place.log(record).open("ab"))
            handed = ours.enter_context(Handed())
            try:
                child = subprocess.Popen(
                    self.sandbox.enclose(step, outlives_us=True, hand=handed.hand),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    env={},
                    pass_fds=(*kept, *handed.descriptors),
                )
            except OSError as error:
                raise Unavailable(f"cannot start a process: {error}", where=workload.release) from error
        self._children[child.pid] = child
        record.pid, record.started, record.phase = child.pid, time.time(), Phase.STARTING
        record.created, record.ready_since, record.reason = psutil.Process(child.pid).create_time(), 0.0, ""

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
        env = {**image.env, **workload.env, "PORT": str(record.port if bare else INNER_PORT)}
        env |= {variable(c): f"http://127.0.0.1:{p}" for c, p in zip(workload.calls, ports, strict=True)}
        mounts = [Mount(str(image.root / "app"), "/app"), Mount(str(place.data), "/data", writable=True)]
        if not bare:
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

    def ended(self, record: Record, place: Place) -> None:
        """Note how it ended: by our own wait, or by what the shim left behind. Nothing of it stays."""
        self._forget_question(record)
        note = place.instance(record) / "exit"
        if note.exists():
            with contextlib.suppress(ValueError):
                record.exit_code = int(note.read_bytes()[:16])
        self._forget(record)

    def answered(self, record: Record, place: Place, health_path: str) -> bool:
        """Whether it has answered by now. Never waits: the question goes on between two calls."""
        asked = self._asked.get(id(record))
        if asked is None:
            question = self.answers(record, place, health_path)
            self._asked[id(record)] = asyncio.ensure_future(question)
            return False
        if not asked.done():
            return False
        del self._asked[id(record)]
        return asked.result()

    async def answers(self, record: Record, place: Place, health_path: str) -> bool:
        """Whether it answers at its address: below 500 at *health_path*, or merely accepts if ""."""
        address = place.address(record, self.sandbox.isolation)
        if not health_path:
            return await asyncio.to_thread(_accepts, address)
        transport = httpx.AsyncHTTPTransport(
            uds=address.removeprefix("unix:") if address.startswith("unix:") else None, verify=False
        )
        base = "http://workload" if address.startswith("unix:") else f"http://{address}"
        try:
            async with httpx.AsyncClient(transport=transport, base_url=base, timeout=2.0) as client:
                return (await client.get(health_path)).status_code < 500
        except (httpx.HTTPError, OSError):
            return False

    def _forget_question(self, record: Record) -> None:
        asked = self._asked.pop(id(record), None)
        if asked is not None:
            asked.cancel()

    async def stop(self, record: Record) -> None:
        """SIGTERM, a bounded wait for what is in flight, then SIGKILL to all of it."""
        self._forget_question(record)
        process = _process(record)
        if process is None:
            self.alive(record)  # it ended by itself, and may still be a zombie of ours
            self._forget(record)
            return
        told, deadline = False, time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline and self.alive(record):
            # One that has only just begun cannot hear yet.
            told = told or _signal(process, signal.SIGTERM, self.sandbox.isolation)
            await asyncio.sleep(0.02)
        if self.alive(record):
            for victim in (*_descendants(process), process):
                with contextlib.suppress(psutil.Error):
                    victim.kill()
        while self.alive(record) and time.monotonic() < deadline + STOP_SECONDS:
            await asyncio.sleep(0.02)
        self._forget(record)

    def _forget(self, record: Record) -> None:
        self._children.pop(record.pid, None)
        _kill_group(record)
        record.pid = 0


def _shim(kept: tuple[int, ...], ports: tuple[int, ...]) -> tuple[str, ...]:
    python = sys.executable if Path(sys.executable).is_relative_to(sys.base_prefix) else "python3"
    bridges = [f"{n}={port}" for n, port in enumerate(ports)]
    fds = [str(fd) for fd in kept]
    return (python, "-I", "/run/shim.py", *fds, "/run/penstock/out", str(INNER_PORT), *bridges)


def as_instance(record: Record, place: Place, isolation: Isolation) -> Instance:
    return Instance(
        record.id, place.address(record, isolation), record.phase, record.restarts, record.exit_code
    )


def last_words(place: Place, record: Record, lines: int = 20) -> str:
    """The end of what an instance wrote."""
    log = place.log(record)
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 65536))
        return "\n".join(tail(file.read()).splitlines()[-lines:])


def rotate(place: Place, record: Record) -> None:
    """Bound a log: the writer keeps its file, so it is copied and emptied, not renamed."""
    log = place.log(record)
    if log.exists() and log.stat().st_size > LOG_BYTES:
        shutil.copyfile(log, log.with_suffix(".log.1"))
        os.truncate(log, 0)


def variable(callee: str) -> str:
    """The name of the variable that holds a neighbour's address: ``CATALOG_URL``."""
    return callee.upper().replace("-", "_") + "_URL"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _accepts(address: str) -> bool:
    family = socket.AF_UNIX if address.startswith("unix:") else socket.AF_INET
    host, _, port = address.rpartition(":")
    target = address.removeprefix("unix:") if family == socket.AF_UNIX else (host, int(port))
    with socket.socket(family) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(target) == 0


def _process(record: Record) -> psutil.Process | None:
    try:
        process = psutil.Process(record.pid) if record.pid else None
        if process is None or abs(process.create_time() - record.created) > 0.01:
            return None
        return process if process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


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
    for child in _descendants(process):
        with contextlib.suppress(psutil.Error):
            if "/run/shim.py" in child.cmdline()[:4]:
                child.send_signal(number)
                told = True
    return told
