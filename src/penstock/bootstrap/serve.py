"""The control plane's process: API, pages and one worker, on a unix socket and a loopback port; and, if the
settings say so, a port for a cluster's API server.

Called by ``penstock serve``, which `up` starts. No other command may import it: it needs a web framework.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import secrets
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from penstock.bootstrap.certificate import Certificate
from penstock.bootstrap.control import ControlPlane, open_control_plane
from penstock.bootstrap.home import Home
from penstock.bootstrap.loop import log_to_stderr, run
from penstock.bootstrap.processes import locked, reporting
from penstock.engine import prune, tokens
from penstock.engine.revive import Revival
from penstock.server.app import create_admission_app, create_app
from penstock.server.bounds import Bounds
from penstock.server.connections import Bounded, Listener
from penstock.server.guard import Guard

log = logging.getLogger(__name__)


def serve(home: Home) -> None:
    """The control plane's process: API, pages and one worker, on a unix socket and a loopback port."""
    home.create()
    log_to_stderr()
    with reporting(home, "serve"), locked(home.run / "server.lock", "the control plane is running already"):
        run(_serve(home))


async def _serve(home: Home) -> None:
    control = await open_control_plane(home)
    await _first_token(control)
    # The lock says that every worker of this folder before us is dead: nobody has to wait for their leases.
    await control.journal.orphan(control.worker.owner)
    for name in await prune.sweep(control.store, home.work):
        log.info("removed what was left of %s in work/", name)
    app = create_app(control)
    servers = {
        _Server(_config(Guard(app, control.store, trusted=True))): _unix(home.api_socket),
        _Server(_config(Guard(app, control.store, trusted=False))): _tcp(home.settings.port),
    }
    # The senders run in this process alone, which holds the lock: else everybody would be told twice.
    senders = (control.witnesses.run(), control.outgoing.run())
    own = [_work(control), control.sampler.run(), control.target.look_after(), *senders]
    if (asked := home.settings.admission) is not None:
        certificate = Certificate.of(asked)
        config = _config(Bounds(create_admission_app(control)))
        servers[_Server(certificate.shown_by(config))] = _tcp(asked.port, "0.0.0.0", Listener)
        own.append(certificate.follow())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _leave, *servers)
    background = [asyncio.create_task(task) for task in own]
    try:
        await asyncio.gather(*(server.serve(sockets=[listener]) for server, listener in servers.items()))
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await control.close()


async def _work(control: ControlPlane) -> None:
    """Deliveries go on once what was live is back: they compare with it, and fall back on it."""
    parts = (control.platform, control.router, control.artifacts, control.keys.worker)
    try:
        await Revival(control.store, control.ledger, control.journal, *parts).run()
    except Exception:  # whatever it is, nobody else would deliver instead
        log.exception("could not look for what the node may have lost")
    await control.worker.run()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: two of them share this process, and it has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _config(app: Guard | Bounds) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_level="warning",
        http=Bounded,
        lifespan="off",
        access_log=False,
        timeout_graceful_shutdown=2,
    )


def _leave(*servers: uvicorn.Server) -> None:
    for server in servers:
        server.should_exit = True


async def _first_token(control: ControlPlane) -> None:
    token = f"pst_{secrets.token_urlsafe(32)}"
    hashed = hashlib.sha256(token.encode()).hexdigest()
    if await tokens.first(control.store, hashed, "operator"):
        once = control.home.run / "token.once"
        once.touch(mode=0o600)
        once.write_text(token)


def _tcp(port: int, address: str = "127.0.0.1", kind: type[socket.socket] = socket.socket) -> socket.socket:
    listener = kind(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    return listener


def _unix(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    return listener
