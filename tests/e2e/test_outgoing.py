"""``kill -9`` of the server that sends: a webhook and a collector get everything, some of it twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fakes.receiver import ReceiverServer
from fakes.web import free_port
from penstock.bootstrap.control import open_control_plane
from penstock.bootstrap.home import Home, Settings
from penstock.bootstrap.outgoing import new_webhook_secret
from penstock.config import ServiceConfig
from penstock.core.decide import Finish
from penstock.core.digest import digest
from penstock.core.evidence import Statement, Subject
from penstock.core.otlp import trace_id
from penstock.core.pipeline import State
from penstock.core.predicates import Ended
from penstock.core.release import Change
from penstock.engine.journal import Header
from penstock.engine.traces import FOLLOWER
from penstock.ledger import follow, hooks
from penstock.ledger.log import attest

NAMES = ("shop-1", "shop-2", "shop-3")


async def prepare(home: Home, url: str) -> None:
    """A webhook, a follower for traces, and then deliveries that have ended: all of it still to be told."""
    home.create()
    home.keep(Settings(sandbox="none", port=free_port()))
    control = await open_control_plane(home)
    async with control.store.transaction() as tx:
        await hooks.add(control.ledger, tx, "chat", url)
        new_webhook_secret(home, "chat")
        await follow.advance(control.ledger, tx, FOLLOWER, await control.ledger.size(tx))
    change = Change("code", "shop", "production", "/repo", "1" * 40, "Dana", "A change")
    for name in NAMES:
        async with control.store.transaction() as tx:
            await control.journal.create(tx, name, Header(change, ServiceConfig("shop")))
        held = await control.journal.claim("nobody")
        assert held
        assert held.id == name
        statement = Statement((Subject(name, digest(name.encode())),), Ended(name, "error", "error", name))
        async with control.store.transaction() as tx:
            await control.journal.finish(tx, held, "nobody", Finish(State.ERROR, "error", name))
            await control.ledger.append(tx, [attest(control.keys.worker, statement)])
    await control.store.close()


@asynccontextmanager
async def served(home: Home, collector: str) -> AsyncIterator[int]:
    """``penstock serve`` while the block runs; ended by ``kill -9``, whatever it is at."""
    environ = {**os.environ, "PENSTOCK_HOME": str(home.path), "OTEL_EXPORTER_OTLP_ENDPOINT": collector}
    with (home.path / "serve.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "penstock.cli.main", "serve", env=environ, stdout=log, stderr=log
        )
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()


@pytest.fixture
async def servers() -> AsyncIterator[tuple[ReceiverServer, ReceiverServer]]:
    made = ReceiverServer(), ReceiverServer()
    for server in made:
        await server.start()
    yield made
    for server in made:
        await server.stop()


async def test_a_killed_sender_repeats_and_loses_nothing(
    short_tmp: Path, servers: tuple[ReceiverServer, ReceiverServer]
) -> None:
    chat, collector = servers
    home = Home(short_tmp / "h")
    await prepare(home, chat.url)
    for server in servers:
        server.open.clear()
    async with served(home, collector.url):
        await chat.tried(1, 60.0)
        await collector.tried(1, 60.0)
    for server in servers:
        server.open.set()
    async with served(home, collector.url):
        await chat.tried(1 + len(NAMES), 60.0)
        await collector.tried(2, 60.0)
    ids = [message.headers["webhook-id"] for message in chat.got]
    subjects = [json.loads(message.body)["subject"] for message in chat.got]
    assert subjects == [NAMES[0], *NAMES]
    assert ids[0] == ids[1]
    assert len(set(ids)) == len(NAMES)
    assert collector.got[0].path == "/in/v1/traces"
    assert collector.got[0].body == collector.got[1].body
    assert all(trace_id(name).encode() in collector.got[1].body for name in NAMES)
