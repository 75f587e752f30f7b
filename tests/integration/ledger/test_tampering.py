"""Whatever is done to a ledger that has everything in it is found: any byte of any row, and any rewriting.

Two adversaries: one who can write the database, and one who has the log's key as well and can sign new
checkpoints. Against the second, a checkpoint that somebody outside kept is what helps.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.witness import WitnessServer
from integration.ledger.world import Delivery, World, artifact, scanned, suite_ran
from penstock.adapters.sqlite import SqliteStore
from penstock.adapters.witness import HttpWitness
from penstock.bootstrap.identity import publication, shipped_policies
from penstock.core.authority import Authority
from penstock.core.evidence import Entry, Envelope, open_envelope
from penstock.core.people import (
    Binding,
    By,
    KeyGrant,
    KeyRevocation,
    LogKey,
    Override,
    Person,
    PolicyRetirement,
    Review,
    RoleGrant,
    RoleRevocation,
)
from penstock.ledger import fsck
from penstock.ledger.log import Batch, Ledger
from penstock.ledger.witnesses import Known, ask
from penstock.ports import Row

OP = By("op")
FIRST = Delivery("d-1", artifact("a"))
SECOND = Delivery("d-2", artifact("b"), FIRST.release)
#: Every table that the ledger's answers rest on, with all of its columns.
TABLES = {
    "entries": ("idx", "envelope"),
    "nodes": ("level", "idx", "hash"),
    "checkpoints": ("size", "note"),
    "tags": ("tag", "idx"),
    "cosignatures": ("size", "name", "key", "line"),
}
#: Of the ledger's tables, those on which no answer rests: whom a follower has told what.
OTHERS = {"followers"}
TEAM = """
policy: shop-extra
owner: shop-lead
scope: team/shop
guards: [deploy]
environments: [production]
rules: [{id: always, when: "true", say: "'yes'", else: "'no'"}]
"""


class Kept:
    """The ledger, a connection of the adversary's own, and the checkpoint that somebody kept."""

    def __init__(self, world: World, path: Path, note: str, witness: str) -> None:
        self.world, self.note, self.witness = world, note, witness
        self.database = sqlite3.connect(path, isolation_level=None)
        self.rows = {
            table: self.database.execute(f"SELECT rowid, {', '.join(columns)} FROM {table}").fetchall()
            for table, columns in TABLES.items()
        }

    def problems(self, *, kept: bool = False) -> Sequence[str]:
        world = self.world
        trust = replace(world.trust, witnesses=(self.witness,), quorum=1)
        note = self.note if kept else None
        return asyncio.run(fsck.verify(world.store, trust, world.languages, kept=note)).problems

    def with_change(self, table: str, column: str, row: Row, value: object) -> bool:
        """Whether the change is found; the row is then put back. A database may refuse it, too."""
        change = f"UPDATE {table} SET {column} = ? WHERE rowid = ?"
        try:
            self.database.execute(change, (value, row[0]))
        except (sqlite3.IntegrityError, sqlite3.OperationalError, OverflowError):
            return True
        try:
            return bool(self.problems())
        finally:
            self.restore(table)

    def restore(self, table: str) -> None:
        columns = TABLES[table]
        marks = ", ".join("?" * (len(columns) + 1))
        self.database.execute("BEGIN")
        self.database.execute(f"DELETE FROM {table}")
        self.database.executemany(
            f"INSERT INTO {table} (rowid, {', '.join(columns)}) VALUES ({marks})", self.rows[table]
        )
        self.database.execute("COMMIT")


async def everything(folder: Path) -> tuple[World, str, str]:
    """Two deliveries, and one of everything that people can say; witnessed."""
    world = await World.begin(folder, SqliteStore(folder / "ledger.db"))
    ada, spare = world.key("ada"), world.key("spare")
    await world.say(
        KeyGrant(OP, "ada", ada.public_key.hex(), "person"),
        KeyGrant(OP, "spare", spare.public_key.hex(), "person"),
        Person(OP, "ada", ("ada@example.org",)),
        RoleGrant(OP, "ada", "security-lead"),
        RoleGrant(OP, "op", "shop-lead"),
        RoleGrant(OP, "ada", "test-lead", "team/shop"),
        RoleRevocation(OP, "ada", "test-lead", "team/shop", "no"),
        KeyRevocation(OP, spare.keyid, "lost"),
        Binding(OP, "catalog", "shop"),
        publication(TEAM, OP),
        PolicyRetirement(OP, "shop-extra", "tried"),
    )
    await world.say(publication(shipped_policies()[2] + "# ada's\n", By("ada")), by=ada)
    await world.ship(FIRST)
    await world.say(Review(By("ada"), SECOND.change.revision, "approve", "good"), by=ada)
    override = Override(By("ada"), "security-lead", "deploy", SECOND.release.digest, "fire", 4e9)
    await world.say(override, by=ada)
    await world.ship(SECOND)
    await world.report(SECOND, suite_ran(suite="late"), scanned(3, "late"))
    later = world.key("log-2")
    world.ledger.sign_also_with(later)
    await world.say(LogKey(OP, later.public_key.hex(), "yearly"))
    server = WitnessServer("witness.example/w")
    server.logs["penstock"] = later.public_key
    await server.start()
    await ask(world.store, world.ledger, Known(server.key, server.url, HttpWitness(server.url)))
    await server.stop()
    async with world.store.transaction(write=False) as tx:
        note = await world.ledger.checkpoint(tx)
    return world, note, str(server.key)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    folder = tmp_path_factory.mktemp("ledger")
    world, note, witness = asyncio.run(everything(folder))
    return Kept(world, folder / "ledger.db", note, witness)


def test_it_is_good_to_begin_with_and_has_every_table(kept: Kept) -> None:
    assert kept.problems() == ()
    assert kept.problems(kept=True) == ()
    assert all(len(rows) > 0 for rows in kept.rows.values())
    made = {
        name
        for (name,) in kept.database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        if name not in ("clock", "schema_version")
    }
    assert made == {*TABLES, *OTHERS}
    for table, columns in TABLES.items():
        named = [row[1] for row in kept.database.execute(f"PRAGMA table_info({table})")]
        assert tuple(named) == columns


QUICK = settings(max_examples=30, deadline=None, derandomize=True)


@pytest.mark.parametrize(("table", "column"), [(t, c) for t, columns in TABLES.items() for c in columns])
def test_no_byte_of_any_value_can_change(kept: Kept, table: str, column: str) -> None:
    """Any row, any byte, any bit of it."""

    @QUICK
    @given(st.data())
    def try_one(data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(kept.rows[table]))
        value = row[1 + TABLES[table].index(column)]
        changed = _flipped(value, data)
        assert kept.with_change(table, column, row, changed), f"{table} {row[0]}: {column} {changed!r}"

    try_one()


def _flipped(value: object, data: st.DataObject) -> object:
    if isinstance(value, int):
        return value ^ (1 << data.draw(st.integers(0, 40)))
    assert isinstance(value, (str, bytes))
    place, bit = data.draw(st.integers(0, len(value) - 1)), data.draw(st.integers(0, 6))
    if isinstance(value, bytes):
        return value[:place] + bytes([value[place] ^ (1 << bit)]) + value[place + 1 :]
    return value[:place] + chr(ord(value[place]) ^ (1 << bit)) + value[place + 1 :]


# --- with the log's key ------------------------------------------------------------------------------------

Rewrite = Callable[[list[Envelope], st.DataObject], list[Envelope]]


def _drop(entries: list[Envelope], data: st.DataObject) -> list[Envelope]:
    place = data.draw(st.integers(0, len(entries) - 1))
    return entries[:place] + entries[place + 1 :]


def _cut(entries: list[Envelope], data: st.DataObject) -> list[Envelope]:
    return entries[: data.draw(st.integers(1, len(entries) - 1))]


def _swap(entries: list[Envelope], data: st.DataObject) -> list[Envelope]:
    one, two = data.draw(st.sets(st.integers(0, len(entries) - 1), min_size=2, max_size=2))
    changed = list(entries)
    changed[one], changed[two] = changed[two], changed[one]
    return changed


def _replay(entries: list[Envelope], data: st.DataObject) -> list[Envelope]:
    """An entry over again: at the end, where no kept checkpoint reaches, or anywhere."""
    again = entries[data.draw(st.integers(0, len(entries) - 1))]
    place = data.draw(st.one_of(st.just(len(entries)), st.integers(0, len(entries))))
    return [*entries[:place], again, *entries[place:]]


@pytest.mark.parametrize("rewrite", [_drop, _cut, _swap, _replay])
def test_no_other_history_agrees_with_a_kept_checkpoint(kept: Kept, tmp_path: Path, rewrite: Rewrite) -> None:
    """Even if every node, tag and checkpoint is made anew, and signed with the log's own keys."""
    honest = [row[2] for row in kept.rows["entries"]]
    opened = [Envelope(raw, b"", "", b"") for raw in honest]

    @settings(QUICK, max_examples=20)
    @given(st.data())
    def try_one(data: st.DataObject) -> None:
        changed = rewrite(opened, data)
        problems = asyncio.run(_forged(kept, tmp_path / f"{data.draw(st.uuids())}.db", changed))
        assert problems, f"{rewrite.__name__}: {len(changed)} entries"

    try_one()


async def _forged(kept: Kept, path: Path, envelopes: list[Envelope]) -> Sequence[str]:
    """What ``ledger verify --kept`` says of a ledger that somebody wrote anew."""
    world, store = kept.world, SqliteStore(path)
    ledger = Ledger(store, [*world.ledger._signers.values()], "penstock")
    await ledger.migrate()
    entries = [
        Entry(index, found := open_envelope(envelope.raw), found.statement())
        for index, envelope in enumerate(envelopes)
    ]
    last = [*world.ledger._signers][
        -1 if any(isinstance(e.statement.predicate, LogKey) for e in entries) else 0
    ]
    batch = Batch(0, Authority(log_keys=((-1, last),)), 0.0)
    batch.entries = tuple(entries)
    async with store.transaction() as tx:
        await ledger.write(tx, batch)
    report = await fsck.verify(store, world.trust, world.languages, kept=kept.note)
    await store.close()
    path.unlink()
    return report.problems
