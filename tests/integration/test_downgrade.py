"""A release meets a store that a newer one wrote: `penstock up` says so at once, and nothing is changed or
started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.postgres import PostgresServer
from fakes.web import free_port
from penstock.bootstrap import identity
from penstock.bootstrap.control import open_control_plane, open_store
from penstock.bootstrap.home import Home, Settings
from penstock.bootstrap.processes import is_held
from penstock.engine import prune, schemas
from penstock.engine.journal import Journal
from penstock.errors import Conflict
from penstock.ledger.log import Ledger

DUMP = {
    "sqlite": "SELECT name, sql FROM sqlite_master ORDER BY name",
    "postgres": "SELECT table_name::text, column_name::text FROM information_schema.columns "
    "WHERE table_schema = current_schema() ORDER BY 1, 2",
}


@pytest.fixture(params=["sqlite", "postgres"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres")
        monkeypatch.setenv("PENSTOCK_STORE", server.url(server.schema()))
    else:
        monkeypatch.delenv("PENSTOCK_STORE", raising=False)
    return str(request.param)


@pytest.fixture
async def home(kind: str, short_tmp: Path) -> Home:
    """A folder in which a release of the future was at work: its journal is newer, its ledger is not."""
    made = Home(short_tmp / "home")
    made.create()
    made.keep(Settings(sandbox="none"))
    store = open_store(made)
    keys = identity.load_keys(made)
    ledger = Ledger(store, keys.logs, identity.ORIGIN)
    await ledger.migrate()
    await Journal(store).migrate()
    await prune.migrate(store)
    await identity.found(store, ledger, keys, made)
    async with store.transaction() as tx:
        await tx.execute("UPDATE schema_version SET version = version - 1 WHERE component = 'ledger'")
        await tx.execute("UPDATE schema_version SET version = 99 WHERE component = 'journal'")
    await store.close()
    return made


async def content(home: Home, kind: str) -> list[object]:
    store = open_store(home)
    async with store.transaction(write=False) as tx:
        found = [
            await tx.execute(DUMP[kind]),
            await tx.execute("SELECT * FROM schema_version ORDER BY component"),
            await tx.execute("SELECT * FROM clock"),
            await tx.execute("SELECT count(*) FROM entries"),
        ]
    await store.close()
    return [*found, sorted(str(path) for path in home.keys.iterdir())]


async def test_up_says_so_on_the_terminal_and_starts_nothing(home: Home, kind: str) -> None:
    before = await content(home, kind)
    done = up(home)
    assert done.returncode == Conflict.exit_code
    assert "the journal tables have version 99" in done.stderr
    assert "next: run the newer release again" in done.stderr
    assert done.stdout == ""
    assert await content(home, kind) == before
    assert not is_held(home.run / "server.lock")
    assert not is_held(home.node / "agent.lock")


def up(home: Home) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "penstock.cli.main", "up", "--unsandboxed-workloads"]
    env = {**os.environ, "PENSTOCK_HOME": str(home.path)}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)


async def test_the_control_plane_changes_nothing_either(home: Home, kind: str) -> None:
    before = await content(home, kind)
    with pytest.raises(Conflict, match="a newer release"):
        await open_control_plane(home)
    assert await content(home, kind) == before


async def test_what_the_server_dies_of_at_its_start_reaches_the_terminal(
    short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only this: whatever it is, its words, its next move and its exit code."""
    monkeypatch.delenv("PENSTOCK_STORE", raising=False)
    home = Home(short_tmp / "home")
    home.create()
    home.keep(Settings(port=free_port(), ingress_port=free_port()))
    home.trust.write_text("{}")  # a ledger was here, and its keys are gone
    try:
        done = up(home)
        assert done.returncode == Conflict.exit_code
        assert "the log's key is not there" in done.stderr
        assert "next: put back log.key" in done.stderr
    finally:
        env = {**os.environ, "PENSTOCK_HOME": str(home.path)}
        subprocess.run([sys.executable, "-m", "penstock.cli.main", "down"], env=env, check=True)


def test_every_component_of_ours_is_known() -> None:
    assert set(schemas.KNOWN) == {
        "ledger",
        "journal",
        "numbers",
        "pruning",
        "seats",
        "sessions",
        "webhooks",
        "telemetry",
    }
    schemas.refuse_newer({"somebody-elses": 99}, "here")
