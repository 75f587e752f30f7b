"""Starting the processes of one machine: node agent, control plane, workers; and the settings that they get.

Called by the CLI's ``up`` and ``demo``. Each process writes to a log of its own and outlives the terminal.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path

from penstock.bootstrap import certificate, vacant
from penstock.bootstrap.home import IN_CLUSTER, AdmissionSettings, Home, PrometheusSettings, Settings
from penstock.bootstrap.plugins import open_prometheus, open_sandbox
from penstock.bootstrap.processes import answers, failure_file, is_held, locked, spawn, wait_for
from penstock.bootstrap.target import check_around, check_cluster
from penstock.cluster import Cluster
from penstock.clusterfile import load_cluster
from penstock.errors import Conflict, Invalid, PenstockError, Refused

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
        wait_for(home, lambda: all(map(answers, sockets)), "serve", "node")
        absent = _absent(home, settings)
        for name in absent:
            failure_file(home, f"worker-{name}").unlink(missing_ok=True)
            spawn(home, "worker", "--name", name)
        wait_for(home, lambda: not _absent(home, settings), *(f"worker-{name}" for name in absent))
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
    # A proxy that outlived its node agent has the ingress port already, and that one is ours. A node agent
    # that runs reads the settings when it starts again.
    ours = wanted.ingress == settings.ingress_port and (home.node / "envoy").exists()
    if wanted.ingress is not None and not ours and not tending:
        vacant.demand(wanted.ingress, "--ingress-port")
    settings = settings if serving else _choose(home, settings, wanted)
    home.keep(settings)
    for name in ("node", "serve"):
        failure_file(home, name).unlink(missing_ok=True)
    if not (tending or settings.cluster):
        spawn(home, "node")
    if not (serving or wanted.foreground):
        spawn(home, "serve")
    return settings


def _refuse_newer(home: Home) -> None:
    """`Conflict` if a newer release wrote the store: before anything is started, or written."""
    # The whole product: nobody but `up` waits for it.
    from penstock.bootstrap.control import open_store, store_place
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
    """The server to ask for metrics of services' own; `Invalid` if its address is none."""
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
        what = "users come through the cluster's gateway"
        raise Invalid(what, where="--ingress-port", next_move="leave it out; gateway in the cluster's file")
    return chosen


def _choose(home: Home, settings: Settings, wanted: Wanted) -> Settings:
    """The settings to start with, each of which was tried."""
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
