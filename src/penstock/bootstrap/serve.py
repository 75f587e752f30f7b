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
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import uvicorn

from penstock.bootstrap.certificate import Certificate
from penstock.bootstrap.control import ControlPlane, open_control_plane
from penstock.bootstrap.home import Home
from penstock.bootstrap.identity import grant_worker
from penstock.bootstrap.loop import log_to_stderr, run
from penstock.bootstrap.processes import locked, reporting
from penstock.bootstrap.replica import SENDERS, join
from penstock.engine import prune, tokens
from penstock.engine.revive import Revival
from penstock.engine.seats import Seat, taking_turns
from penstock.server.app import create_admission_app, create_app
from penstock.server.bounds import Bounds
from penstock.server.connections import Bounded, Listener
from penstock.server.guard import Guard

log = logging.getLogger(__name__)

Work = Coroutine[Any, Any, object]


def serve(home: Home, *, replica: bool = False) -> None:
    """The control plane's process: API, pages and one worker, on a unix socket and a loopback port. As a
    *replica* it is one of several on one store."""
    home.create()
    log_to_stderr()
    with reporting(home, "serve"), locked(home.run / "server.lock", "the control plane is running already"):
        run(_serve_as_replica(home) if replica else _serve_alone(home))


async def _serve_alone(home: Home) -> None:
    control = await open_control_plane(home)
    # The lock says that nobody else of this folder is sending: else everybody would be told twice.
    await _serve(home, control, control.send(), asyncio.Event().wait())


async def _serve_as_replica(home: Home) -> None:
    replica = await join(home)
    try:
        control = await open_control_plane(home, worker=replica.name)
        await grant_worker(control.store, control.ledger, control.keys, replica.name)
        await replica.started()
        sending = taking_turns(Seat(control.store, SENDERS), control.send)
        await _serve(home, control, sending, replica.stay())
    finally:
        await replica.leave()


async def _serve(home: Home, control: ControlPlane, sending: Work, staying: Work) -> None:
    """Until a signal, or until *staying* raises why not; *sending* is done beside it."""
    await _first_token(control)
    # The lock, or the seat, says that the worker of this name before us is dead: nobody waits for its leases.
    await control.journal.orphan(control.worker.owner)
    for name in await prune.sweep(control.store, home.work):
        log.info("removed what was left of %s in work/", name)
    app = create_app(control)
    servers = {
        _Server(_config(Guard(app, control.store, trusted=True))): _unix(home.api_socket),
        _Server(_config(Guard(app, control.store, trusted=False))): _tcp(home.settings.port),
    }
    own: list[Work] = [_work(control), control.sampler.run(), control.target.look_after(), sending]
    if (asked := home.settings.admission) is not None:
        certificate = Certificate.of(asked)
        config = _config(Bounds(create_admission_app(control)))
        servers[_Server(certificate.shown_by(config))] = _tcp(asked.port, "0.0.0.0", Listener)
        own.append(certificate.follow())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _leave, *servers)
    background = [asyncio.create_task(task) for task in own]
    lost = asyncio.create_task(staying)
    lost.add_done_callback(lambda _: _leave(*servers))
    try:
        await asyncio.gather(*(server.serve(sockets=[listener]) for server, listener in servers.items()))
    finally:
        ended = lost.done()
        for task in (*background, lost):
            task.cancel()
        await asyncio.gather(*background, lost, return_exceptions=True)
        await control.close()
    if ended:
        await lost


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
