"""Starting and stopping the processes of one machine: node agent, control plane.

Called by the CLI's ``up``, ``down`` and ``node``. Each process writes to a log of its own
and outlives the terminal; the workloads and the proxy outlive the node agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import psutil

from penstock.bootstrap import certificate, vacant
from penstock.bootstrap.boundaries import around
from penstock.bootstrap.home import IN_CLUSTER, AdmissionSettings, Home, PrometheusSettings, Settings
from penstock.bootstrap.loop import log_to_stderr
from penstock.bootstrap.plugins import find, open_issuer, open_prometheus, open_sandbox
from penstock.bootstrap.target import check_around, check_cluster
from penstock.cluster import Cluster
from penstock.clusterfile import load_cluster
from penstock.errors import Conflict, Invalid, PenstockError, Refused, Unavailable, from_wire
from penstock.node.agent import Agent
from penstock.node.client import NodeClient

START_SECONDS = 30.0
#: A process that was asked to end is ended after so long.
STOP_SECONDS = 15.0
MAX_WORKERS = 32


@dataclass(frozen=True)
class Started:
    """What `up` has to tell. *token* only the first time: it is kept nowhere but as a hash. *cluster* says
    where releases run ("": on this machine); *isolation* then is that of builds and checks alone."""

    url: str
    home: str
    isolation: str
    token: str | None
    cluster: str = ""


@dataclass(frozen=True)
class Wanted:
    """What `up` was told; None where the settings of the last start stand. A *prometheus* of "" is none.
    *cluster* is the file of one; *admission* with a port of 0 is none. In the *foreground*, the caller is the
    control plane itself."""

    unsandboxed: bool = False
    port: int | None = None
    ingress: int | None = None
    workers: int | None = None
    prometheus: str | None = None
    prometheus_token: Path | None = None
    cluster: str | None = None
    admission: AdmissionSettings | None = None
    foreground: bool = False


def prepare(home: Home, wanted: Wanted) -> None:
    """All that `up` does before there is a control plane, which the caller becomes now."""
    home.create()
    if wanted.workers is not None:
        move = "penstock worker --name NAME, beside it"
        raise Invalid("workers are processes of their own", where="--workers", next_move=move)
    with locked(home.run / "up.lock", "another `penstock up` is at work here"):
        _refuse_newer(home)
        _start(home, replace(wanted, foreground=True))


def up(home: Home, wanted: Wanted) -> Started:
    """Start node agent, control plane and workers for a data folder, and wait until the two answer."""
    home.create()
    if wanted.workers is not None and not 1 <= wanted.workers <= MAX_WORKERS:
        raise Invalid(f"{wanted.workers} workers; from 1 to {MAX_WORKERS}", where="--workers")
    with locked(home.run / "up.lock", "another `penstock up` is at work here"):
        _refuse_newer(home)
        settings = _start(home, wanted)
        sockets = [home.api_socket, *([] if settings.cluster else [home.node_socket])]
        _await(home, lambda: all(map(_answers, sockets)), "serve", "node")
        absent = _absent(home, settings)
        for name in absent:
            _note(home, f"worker-{name}").unlink(missing_ok=True)
            spawn(home, "worker", "--name", name)
        _await(home, lambda: not _absent(home, settings), *(f"worker-{name}" for name in absent))
    once = home.run / "token.once"
    token = once.read_text() if once.exists() else None
    once.unlink(missing_ok=True)
    url, where = f"http://localhost:{settings.port}", settings.cluster.name if settings.cluster else ""
    return Started(url, str(home.path), settings.sandbox, token, where)


def _start(home: Home, wanted: Wanted) -> Settings:
    """Start whichever of the two processes does not run; `Conflict` if nothing is missing. With a cluster
    there is no node agent to be missed."""
    serving, settings = is_held(home.run / "server.lock"), home.settings
    tending = settings.cluster is not None or is_held(home.node / "agent.lock")
    if wanted.workers is not None:
        settings = replace(settings, workers=wanted.workers)
    untold = (home.run / "token.once").exists()  # an `up` before this one gave up waiting
    if serving and tending and not _absent(home, settings) and not untold:
        raise Conflict(
            "the control plane is running already",
            where=str(home.path),
            next_move="penstock status, or penstock down first",
        )
    # What our own proxy may have already is no news; a node agent that runs reads it when it starts again.
    news = wanted.ingress != settings.ingress_port or not (home.node / "envoy").exists()
    if wanted.ingress is not None and news and not tending:
        vacant.demand(wanted.ingress, "--ingress-port")
    settings = settings if serving else _choose(home, settings, wanted)
    home.keep(settings)
    for name in ("node", "serve"):
        _note(home, name).unlink(missing_ok=True)
    if not (tending or settings.cluster):
        spawn(home, "node")
    if not (serving or wanted.foreground):
        spawn(home, "serve")
    return settings


def _refuse_newer(home: Home) -> None:
    """`Conflict` if a newer release wrote the store: before anything is started, or written."""
    from penstock.bootstrap.control import (
        open_store,
        store_place,
    )  # the whole product: only `up` waits for it
    from penstock.engine import schemas

    async def look() -> None:
        store = open_store(home)
        try:
            schemas.refuse_newer(await schemas.versions(store), str(home.path))
        finally:
            await store.close()

    _, place = store_place(home)
    if not isinstance(place, Path) or place.exists():
        asyncio.run(look())


def _absent(home: Home, settings: Settings) -> list[str]:
    """The names of the workers that should run beside the control plane and do not."""
    names = map(str, range(2, settings.workers + 1))
    return [name for name in names if not is_held(home.worker_lock(name))]


def _prometheus(known: PrometheusSettings | None, wanted: Wanted) -> PrometheusSettings | None:
    url = (known.url if known else "") if wanted.prometheus is None else wanted.prometheus
    if not url:
        return None
    same = known is not None and known.url == url
    token = known.token_file if same and known else ""  # another server is not sent this one's token
    if wanted.prometheus_token is not None:
        token = str(wanted.prometheus_token.expanduser().absolute())
    chosen = PrometheusSettings(url, token)
    open_prometheus(chosen)
    return chosen


def _cluster(home: Home, known: Cluster | None, wanted: Wanted) -> Cluster | None:
    """The cluster to deliver to; one that is named is asked whether it can be, before anything starts."""
    if wanted.cluster == "":
        move = "set PENSTOCK_HOME to another folder; ledgers do not move between targets"
        raise Invalid("a data folder keeps its target", where="--cluster", next_move=move)
    if wanted.cluster is None:
        chosen = known
    else:
        chosen = load_cluster(Path(wanted.cluster).expanduser())
        if home.placed or is_held(home.node / "agent.lock"):
            raise Conflict(
                "releases run on this machine, out of this data folder",
                where="--cluster",
                next_move="set PENSTOCK_HOME to another folder for the cluster",
            )
        asyncio.run(check_cluster(home, chosen))
        # A start with the same file, or in a container, need not wait for them: only deliveries will.
        if chosen != known and not wanted.foreground:
            asyncio.run(check_around(home, chosen))
    if chosen is not None and wanted.ingress is not None:
        raise Invalid("users come through the cluster's gateway", where="--ingress-port")
    return chosen


def _choose(home: Home, settings: Settings, wanted: Wanted) -> Settings:
    cluster = _cluster(home, settings.cluster, wanted)
    sandbox = "none" if wanted.unsandboxed else "bubblewrap"
    if cluster is not None and cluster.steps is not None:
        sandbox = IN_CLUSTER
    elif not wanted.unsandboxed:
        try:
            open_sandbox(sandbox)
        except PenstockError as error:
            raise Refused(
                f"workloads cannot be kept apart on this machine: {error.what}",
                next_move=f"{error.next_move or 'install bubblewrap'}; or, giving up the promise that "
                "workloads cannot read keys and one another's data: penstock up --unsandboxed-workloads",
            ) from error
    chosen = replace(
        settings,
        prometheus=_prometheus(settings.prometheus, wanted),
        cluster=cluster,
        admission=certificate.chosen(settings.admission, wanted.admission),
        sandbox=sandbox,
        port=settings.port if wanted.port is None else wanted.port,
        ingress_port=settings.ingress_port if wanted.ingress is None else wanted.ingress,
    )
    vacant.demand(chosen.port, "--port")
    if chosen.admission is not None:
        vacant.demand(chosen.admission.port, "--admission-port")
    return chosen


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
    _pid(home, log.stem).write_text(str(process.pid))
    return process.pid


def _await(home: Home, met: Callable[[], bool], *processes: str) -> None:
    """Wait until something is so; what one of the *processes* died of is raised here."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if met():
            return
        for name in processes:
            if _note(home, name).exists():
                raise from_wire(json.loads(_note(home, name).read_text()))
        time.sleep(0.05)
    tails = "\n".join(f"--- {name}.log\n{_tail(home.logs / f'{name}.log')}" for name in processes)
    move = "penstock up again: it may only be slow, and goes on starting; if it does not, penstock doctor"
    raise Unavailable(f"not up after {START_SECONDS:.0f} s:\n{tails}", next_move=move)


def _pid(home: Home, name: str) -> Path:
    """Who was started as it: until that process has a lock, nothing else says so."""
    return home.run / f"{name}.pid"


def _note(home: Home, name: str) -> Path:
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
        temporary = _note(home, f"{name}.new")
        temporary.write_text(json.dumps(told.to_wire()))
        temporary.replace(_note(home, name))
        raise


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _tail(path: Path, characters: int = 1500) -> str:
    return path.read_text(errors="replace")[-characters:] if path.exists() else "(no log)"


def down(home: Home) -> None:
    """Stop the workers and the control plane, then workloads, proxy and node agent. Data stays. What an `up`
    that gave up has left starting is stopped like what runs; an agent that died is started once more, since
    nobody else knows what it had in its care."""
    workers = sorted({path.stem for end in ("lock", "pid") for path in home.run.glob(f"worker-*.{end}")})
    for name in workers:
        _stop(home, name, home.run / f"{name}.lock")
    _stop(home, "serve", home.run / "server.lock")
    if _pid(home, "node").exists() and not is_held(home.node / "agent.lock"):
        if not _starting(home, "node"):
            _note(home, "node").unlink(missing_ok=True)
            spawn(home, "node")
        _await(home, lambda: _answers(home.node_socket), "node")
    if is_held(home.node / "agent.lock"):
        with contextlib.suppress(Unavailable):
            asyncio.run(NodeClient(home.node_socket).stop_everything())
    _stop(home, "node", home.node / "agent.lock")


def _starting(home: Home, name: str) -> int:
    """The pid of the process that was started last as *name* for this folder, if it runs; else 0. The number
    may be somebody else's by now, so what it runs is looked at."""
    with contextlib.suppress(OSError, ValueError, psutil.Error):
        process = psutil.Process(int(_pid(home, name).read_text()))
        ours = process.environ().get("PENSTOCK_HOME") == str(home.path)
        if ours and name.partition("-")[0] in process.cmdline():
            return process.pid
    return 0


def _stop(home: Home, name: str, lock: Path) -> None:
    """End who holds the *lock*, or is on the way to it."""
    pid = _starting(home, name)
    _pid(home, name).unlink(missing_ok=True)
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


def run_node(home: Home) -> None:
    """The node agent's process: local drivers, handed to the agent."""
    home.create()
    log_to_stderr()
    settings = home.settings
    if settings.cluster is not None:
        raise Invalid("releases run in a cluster: no node agent is needed", where=str(home.path))
    with reporting(home, "node"):
        sandbox = open_sandbox(settings.sandbox)
        platform = find("platform", "processes")(home.node / "w", home.artifacts, sandbox)
        proxy = find("router", "envoy")(home.node / "envoy", settings.ingress_port, open_issuer(home))
        router, metrics = around("Router", proxy), proxy
        agent = Agent(home.node, platform=around("Platform", platform), router=router, metrics=metrics)
        asyncio.run(agent.serve())


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
