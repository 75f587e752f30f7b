"""This release goes on from the journals of every earlier one: each open delivery to its end, once."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.postgres import PostgresServer
from penstock.adapters.postgres import PostgresStore
from penstock.adapters.sqlite import SqliteStore
from penstock.core.pipeline import State
from penstock.engine import prune, tables
from penstock.ledger import fsck, log
from penstock.ports import Store
from tests.golden.make import HERE, play
from tests.golden.scene import ENDS, OPEN, GoldenEngine, GoldenStage
from tests.integration.engine.stage import running

GOLDEN = sorted(path.parent.name for path in HERE.glob("*/journal.sql"))
STEPS = {"ledger": log.SCHEMA, "journal": tables.SCHEMA, "pruning": prune.SCHEMA}


@pytest.fixture(params=["sqlite", "postgres"])
async def old(request: pytest.FixtureRequest, short_tmp: Path) -> AsyncIterator[Store]:
    """A store as the release of the test's parameter left it."""
    text = (HERE / request.getfixturevalue("release") / "journal.sql").read_text(encoding="utf-8")
    store: Store
    if request.param == "sqlite":
        with contextlib.closing(sqlite3.connect(short_tmp / "penstock.db")) as written:
            written.executescript(text)
        store = SqliteStore(short_tmp / "penstock.db")
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        store = PostgresStore(server.url(server.schema()))
        await copied(text, store)
    yield store
    await store.close()


async def copied(text: str, store: Store) -> None:
    """The dump's rows in tables of the versions that it says."""
    with contextlib.closing(sqlite3.connect(":memory:")) as dump:
        dump.executescript(text)
        for component, version in dump.execute("SELECT component, version FROM schema_version").fetchall():
            await store.migrate(component, STEPS[component][:version])
        tables = [name for (name,) in dump.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        async with store.transaction() as tx:
            for table in sorted({*tables} - {"clock", "schema_version"}):
                found = dump.execute(f"SELECT * FROM {table}")
                columns = [column[0] for column in found.description]
                marks = ", ".join("?" * len(columns))
                for row in found.fetchall():
                    await tx.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", row)


def test_there_is_a_golden_journal() -> None:
    assert "0.1.0" in GOLDEN


@pytest.mark.parametrize("release", GOLDEN)
async def test_every_delivery_of_an_earlier_release_goes_on_to_its_end(
    release: str, old: Store, tmp_path: Path
) -> None:
    s = GoldenStage(tmp_path, old)
    await s.ledger.migrate()
    await s.journal.migrate()
    await prune.migrate(old)
    before = {name: await s.find(name) for name in (*OPEN, *ENDS)}
    assert {name for name, found in before.items() if found.ended} == set(ENDS)
    # Who held the leases is gone, and their times were those of the day on which the file was made.
    engine = GoldenEngine(s, making=False)
    async with running(await s.worker("heir", engine)):
        await s.ended(*OPEN, seconds=60)
    for name, outcome in OPEN.items():
        found = await s.find(name)
        assert (found.outcome, name) == (outcome, name), found.reason
        assert found.records[: len(before[name].records)] == before[name].records
        keys = [record.intent.key for record in found.records]
        assert len(keys) == len(set(keys)), "a step was done twice"
        assert set(engine.keys(name)).isdisjoint(r.intent.key for r in before[name].records)
        assert all(fence > before[name].fence for who, _, fence in engine.performed if who == name)
    for name in ENDS:
        assert await s.find(name) == before[name]
    report = await fsck.verify(old, None, {})
    assert report.verified, report.problems
    async with old.transaction(write=False) as tx:
        assert len(await s.journal.recent(tx)) == len(before)


@pytest.mark.parametrize("release", GOLDEN)
async def test_the_golden_journal_has_a_delivery_at_every_stage(
    release: str, old: Store, tmp_path: Path
) -> None:
    s = GoldenStage(tmp_path, old)
    await s.journal.migrate()
    last = {name: (await s.find(name)).records[-1] for name in OPEN if name != "pending"}
    assert (await s.find("pending")).state is State.PENDING
    assert last["built"].intent.key == "build/build/0"
    assert last["in-the-canary"].intent.verb == "shift"
    assert last["waiting"].state is State.PENDING
    assert (await s.find("being-aborted")).request == "abort"
    assert (await s.find("restored")).header.data is not None
    assert (await s.find("built")).header.config.environment


async def test_the_maker_still_works(tmp_path: Path) -> None:
    """It runs once a release: it has to be found out before that day."""
    await play(tmp_path)
