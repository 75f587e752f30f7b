"""Backup and restore on both stores: a copy that goes on, and every way in which one must not be made or
used."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import stat
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.integration.engine.stage import FakeEngine, Stage, running

from fakes.postgres import PostgresServer
from penstock.bootstrap import identity
from penstock.bootstrap.backup import TRIES, back_up, copied, exclusively
from penstock.bootstrap.control import open_store
from penstock.bootstrap.home import Home, Settings
from penstock.bootstrap.processes import locked
from penstock.bootstrap.restore import Restored, restore
from penstock.core.digest import digest
from penstock.core.people import By, RoleGrant
from penstock.core.saying import spoken, statement_of
from penstock.engine import prune
from penstock.engine.journal import Journal
from penstock.engine.restored import STEP
from penstock.errors import Broken, Conflict, Invalid, Unavailable
from penstock.ledger.fsck import verify
from penstock.ledger.log import Ledger, attest
from penstock.ports import Store

BLOB = b"an artifact"
Empty = Callable[[], None]


@dataclass
class World:
    """A data folder with a ledger, a delivery in the middle of its way, and one artifact."""

    home: Home
    elsewhere: Home
    file: Path
    ledger: Ledger
    journal: Journal

    async def say(self, who: str) -> None:
        """The operator says something; the ledger grows by one."""
        store = open_store(self.home)
        keys = identity.load_keys(self.home)
        ledger = Ledger(store, keys.logs, identity.ORIGIN)
        async with store.transaction() as tx:
            said = spoken(RoleGrant(By("operator"), who, "test-lead"), await tx.now())
            await ledger.append(tx, [attest(keys.operator, statement_of(said))])
        await store.close()


@pytest.fixture(params=["sqlite", "postgres"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The store of the test: for PostgreSQL, one that is emptied in between, and its own tools."""
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres")
        monkeypatch.setenv("PENSTOCK_STORE", server.url(server.schema()))
        monkeypatch.setenv("PATH", f"{server.bin}:{os.environ['PATH']}")
    else:
        monkeypatch.delenv("PENSTOCK_STORE", raising=False)
    return str(request.param)


@pytest.fixture
async def world(kind: str, short_tmp: Path) -> World:
    home = Home(short_tmp / "home")
    home.create()
    home.keep(Settings(port=7171))
    store = open_store(home)
    keys = identity.load_keys(home)
    ledger, journal = Ledger(store, keys.logs, identity.ORIGIN), Journal(store)
    await ledger.migrate()
    await journal.migrate()
    await prune.migrate(store)
    await identity.found(store, ledger, keys, home)
    s = Stage.__new__(Stage)
    s.store, s.ledger, s.journal = store, ledger, journal
    await s.queue("one")
    claimed = await journal.claim("worker")
    assert claimed is not None
    (home.artifacts / "blobs/sha256").mkdir(parents=True)
    (home.artifacts / "blobs/sha256" / digest(BLOB).removeprefix("sha256:")).write_bytes(BLOB)
    (home.artifacts / "index.json").write_text('{"schemaVersion":2,"manifests":[]}')
    (home.artifacts / ".lock").touch()
    place(home)
    await store.close()
    return World(home, Home(short_tmp / "elsewhere"), short_tmp / "backup.tar", ledger, journal)


def place(home: Home) -> None:
    """What the node keeps of one release, as the drivers write it."""
    records = home.node / "w/releases"
    records.mkdir(parents=True)
    release = {
        "workload": {"release": "shop-1"},
        "instances": [{"id": "0", "port": 4711, "pid": os.getpid(), "created": 1.0, "served": True}],
        "egress": [],
    }
    (records / "shop-1.json").write_text(json.dumps(release))
    (home.node / "fences.json").write_text(json.dumps({"shop/production": 41, "other/production": 7}))
    (home.node / "envoy").mkdir()
    address = f"unix:{home.node}/w/s/1/0/in.sock"
    (home.node / "envoy/state.json").write_text(json.dumps({"token": "t", "address": address}))
    (home.node / "envoy/envoy.pid").write_text("{}")


def emptied(kind: str, postgres: PostgresServer | None = None) -> None:
    """Make room for the restored store, where both use one place."""
    if kind == "postgres":
        assert postgres is not None
        schema = os.environ["PENSTOCK_STORE"].rpartition("%3D")[2]
        postgres.run(f"DROP SCHEMA {schema} CASCADE")
        postgres.run(f"CREATE SCHEMA {schema}")


@pytest.fixture
def empty(kind: str, request: pytest.FixtureRequest) -> Empty:
    server = request.getfixturevalue("postgres") if kind == "postgres" else None
    return lambda: emptied(kind, server)


async def roundtrip(world: World, empty: Empty, **options: bool) -> Restored:
    await back_up(world.home, world.file, **options)
    empty()
    return await restore(world.elsewhere, world.file)


async def test_what_is_restored_is_whole_and_goes_on(world: World, empty: Empty, kind: str) -> None:
    made = await back_up(world.home, world.file)
    assert stat.S_IMODE(world.file.stat().st_mode) == 0o600
    assert (made.entries, made.artifacts, made.keys, made.damaged) == (6, 1, True, ())
    empty()
    done = await restore(world.elsewhere, world.file)
    assert (done.entries, done.root, done.deliveries, done.artifacts) == (6, made.root, 1, 1)
    there = world.elsewhere
    assert there.settings.port == 7171
    assert there.trust.read_bytes() == world.home.trust.read_bytes()
    keys = {path.name: path.read_bytes() for path in world.home.keys.iterdir()}
    assert {path.name: path.read_bytes() for path in there.keys.iterdir()} == keys
    assert {stat.S_IMODE(path.stat().st_mode) for path in there.keys.iterdir()} == {0o600}
    assert not there.half_restored.exists()
    assert not list(world.file.parent.glob(".penstock*"))
    await goes_on(there)


async def goes_on(home: Home) -> None:
    """The ledger takes entries again, and the delivery comes to its end with higher fences."""
    store = open_store(home)
    keys = identity.load_keys(home)
    s = Stage.__new__(Stage)
    s.store, s.folder, s.operator = store, home.path, keys.operator
    s.ledger, s.journal = Ledger(store, keys.logs, identity.ORIGIN), Journal(store)
    engine = FakeEngine()
    async with running(await s.worker("heir", engine)):
        await s.ended("one")
    assert (await s.find("one")).outcome == "promoted"
    assert all(fence > 41 + STEP for _, _, fence in engine.performed)
    assert (await verify(store, None, {})).verified
    await store.close()


async def test_the_node_is_told_the_new_folder_and_no_process(world: World, empty: Empty) -> None:
    await roundtrip(world, empty)
    node = world.elsewhere.node
    release = json.loads((node / "w/releases/shop-1.json").read_text())
    assert release["instances"] == [{"id": "0", "port": 4711, "served": True}]
    state = json.loads((node / "envoy/state.json").read_text())
    assert state["address"] == f"unix:{node}/w/s/1/0/in.sock"
    assert not (node / "envoy/envoy.pid").exists()


async def test_every_scope_that_the_node_knows_gets_a_higher_fence(world: World, empty: Empty) -> None:
    await roundtrip(world, empty)
    store = open_store(world.elsewhere)
    async with store.transaction(write=False) as tx:
        rows = await tx.execute("SELECT scope, number FROM fences ORDER BY scope")
        leases = await tx.execute("SELECT owner, lease FROM deliveries WHERE state = 'executing'")
    await store.close()
    assert rows == [("other/production", 7 + STEP), ("shop/production", 41 + STEP)]
    assert leases == [("", 0)]


async def test_without_keys_it_can_be_read_and_not_continued(world: World, empty: Empty) -> None:
    done = await roundtrip(world, empty, keys=False)
    assert not done.keys
    with tarfile.open(world.file) as archive:
        assert not [name for name in archive.getnames() if name.startswith("keys/")]
    with pytest.raises(Conflict, match="log's key"):
        identity.load_keys(world.elsewhere)
    shutil.copytree(world.home.keys, world.elsewhere.keys, dirs_exist_ok=True)
    await goes_on(world.elsewhere)


class Moving:
    """A store beside which traffic moves each time that it has been copied."""

    def __init__(self, store: Store, home: Home) -> None:
        self._store, self._home = store, home
        self.transaction = store.transaction
        self.copies = 0

    async def backup(self, destination: Path) -> None:
        await self._store.backup(destination)
        self.copies += 1
        (self._home.node / "fences.json").write_text(json.dumps({"shop/production": 42 + self.copies}))


async def test_what_moves_while_the_store_is_copied_makes_it_be_copied_again(world: World) -> None:
    """The last copy is made while nobody can commit, and so agrees with the node."""
    store = open_store(world.home)
    async with store.transaction(write=False):
        pass
    moving = Moving(store, world.home)
    node = await copied(world.home, moving, world.file)  # type: ignore[arg-type]
    await store.close()
    assert moving.copies == TRIES
    assert json.loads(node["node/fences.json"]) == {"shop/production": 42 + TRIES}


async def test_a_ledger_that_grows_during_the_copy_is_copied_whole(world: World, empty: Empty) -> None:
    stop = asyncio.Event()

    async def talk() -> int:
        said = 0
        while not stop.is_set():
            said += 1
            await world.say(f"person-{said}")
            await asyncio.sleep(0)
        return said

    talking = asyncio.create_task(talk())
    made = await back_up(world.home, world.file)
    stop.set()
    said = await talking
    empty()
    done = await restore(world.elsewhere, world.file)
    assert made.entries <= done.entries <= 6 + said


async def test_a_folder_with_a_ledger_or_at_work_is_left_alone(world: World, empty: Empty) -> None:
    await back_up(world.home, world.file)
    before = world.home.trust.stat().st_mtime_ns
    with pytest.raises(Conflict) as caught:
        await restore(world.home, world.file)
    assert "already" in caught.value.what
    world.elsewhere.create()
    for lock in (world.elsewhere.run / "server.lock", world.elsewhere.node / "agent.lock"):
        with locked(lock, ""), pytest.raises(Conflict, match=f"something runs here.*{lock.stem}"):
            await restore(world.elsewhere, world.file)
    assert world.home.trust.stat().st_mtime_ns == before
    assert not world.elsewhere.trust.exists()


async def test_a_store_with_something_in_it_is_left_alone(world: World, kind: str) -> None:
    await back_up(world.home, world.file)
    if kind == "sqlite":
        world.elsewhere.create()
        shutil.copyfile(world.home.store, world.elsewhere.store)
    with pytest.raises(Conflict, match="already"):
        await restore(world.elsewhere, world.file)
    assert not world.elsewhere.trust.exists()


async def test_an_empty_store_makes_room(world: World, kind: str, empty: Empty) -> None:
    """`penstock up` may have failed before the first entry."""
    await back_up(world.home, world.file)
    empty()
    world.elsewhere.create()
    if kind == "sqlite":
        store = open_store(world.elsewhere)
        await Ledger(store, (), identity.ORIGIN).migrate()
        await store.close()
    assert (await restore(world.elsewhere, world.file)).entries == 6


async def test_keys_that_are_there_are_not_replaced(world: World, empty: Empty) -> None:
    await back_up(world.home, world.file)
    empty()
    world.elsewhere.create()
    (world.elsewhere.keys / "log.key").write_text("mine")
    with pytest.raises(Conflict, match=r"keys/log\.key"):
        await restore(world.elsewhere, world.file)
    assert (world.elsewhere.keys / "log.key").read_text() == "mine"


async def test_a_changed_archive_writes_nothing(world: World, empty: Empty) -> None:
    await back_up(world.home, world.file)
    empty()
    data = bytearray(world.file.read_bytes())
    data[3000] ^= 1
    world.file.write_bytes(data)
    with pytest.raises(Invalid):
        await restore(world.elsewhere, world.file)
    assert not world.elsewhere.path.exists()


async def test_a_ledger_that_does_not_verify_is_not_put_in_place(world: World, empty: Empty) -> None:
    store = open_store(world.home)
    async with store.transaction() as tx:
        await tx.execute("DELETE FROM tags WHERE idx = 3")
    await store.close()
    await back_up(world.home, world.file)
    empty()
    with pytest.raises(Broken, match="does not verify"):
        await restore(world.elsewhere, world.file)
    assert not world.elsewhere.trust.exists()
    assert not world.elsewhere.store.exists()
    assert list(world.elsewhere.keys.iterdir()) == []
    # Nothing is in the way of another backup.
    with pytest.raises(Broken, match="does not verify"):
        await restore(world.elsewhere, world.file)


async def test_half_a_restore_keeps_everything_from_starting(world: World, empty: Empty) -> None:
    await back_up(world.home, world.file)
    empty()
    world.elsewhere.create()
    world.elsewhere.half_restored.mkdir()
    with pytest.raises(Conflict, match="restore did not come to its end"):
        world.elsewhere.create()
    assert (await restore(world.elsewhere, world.file)).entries == 6
    world.elsewhere.create()


async def test_one_keeper_at_a_time(world: World) -> None:
    with exclusively(world.home), pytest.raises(Conflict, match="at work here"):
        await back_up(world.home, world.file)


async def test_a_file_that_is_there_is_not_overwritten(world: World) -> None:
    world.file.write_text("precious")
    with pytest.raises(Conflict, match="a file already"):
        await back_up(world.home, world.file)
    assert world.file.read_text() == "precious"


async def test_a_folder_that_is_not_there_is_unavailable(world: World) -> None:
    with pytest.raises(Unavailable, match="no backup was made"):
        await back_up(world.home, world.file.parent / "nowhere" / "backup.tar")


async def test_nothing_to_back_up_is_invalid_and_makes_nothing(
    short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PENSTOCK_STORE", raising=False)
    home = Home(short_tmp / "nothing")
    with pytest.raises(Invalid, match="nothing to back up"):
        await back_up(home, short_tmp / "backup.tar")
    assert not home.path.exists()


async def test_a_damaged_blob_is_told_and_copied(world: World) -> None:
    (blob,) = (world.home.artifacts / "blobs/sha256").iterdir()
    blob.write_bytes(b"other bytes")
    made = await back_up(world.home, world.file)
    assert made.damaged == (f"artifacts/blobs/sha256/{blob.name}",)


async def test_a_copy_of_another_kind_of_store_is_refused(
    world: World, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await back_up(world.home, world.file)
    other = "postgresql://nobody@/db?host=/nowhere" if kind == "sqlite" else "sqlite:/nowhere/penstock.db"
    monkeypatch.setenv("PENSTOCK_STORE", other)
    with pytest.raises(Conflict, match="a backup of a store in"):
        await restore(world.elsewhere, world.file)
    assert not world.elsewhere.path.exists()


async def test_a_backup_of_a_newer_release_is_refused(world: World, kind: str, empty: Empty) -> None:
    store = open_store(world.home)
    async with store.transaction() as tx:
        await tx.execute("UPDATE schema_version SET version = 99 WHERE component = 'journal'")
    await store.close()
    await back_up(world.home, world.file)
    empty()
    with pytest.raises(Conflict, match="a newer release wrote this"):
        await restore(world.elsewhere, world.file)
    assert not world.elsewhere.path.exists()
