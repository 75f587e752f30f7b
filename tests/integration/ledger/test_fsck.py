"""`ledger verify` finds whatever somebody does to the ledger, and nothing in an honest one."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest

from integration.ledger.world import DATA, Delivery, World, accepted, artifact, built, scanned, suite_ran
from penstock.bootstrap.identity import publication
from penstock.core.authority import Authority
from penstock.core.evidence import Entry, Statement, Subject
from penstock.core.notes import Checkpoint, sign_note
from penstock.core.people import By, KeyGrant
from penstock.core.predicates import Deployed, Ended, Promoted, Proposed, Resource, SignOff
from penstock.core.saying import named, statement_of
from penstock.errors import Broken, Invalid
from penstock.ledger import bundle, fsck
from penstock.ledger.log import Batch, attest
from penstock.ports import Row

FIRST = Delivery("d-1", artifact("a"))
SECOND = Delivery("d-2", artifact("b"), FIRST.release)
TABLES = {
    "entries": ("idx", "envelope"),
    "nodes": ("level", "idx", "hash"),
    "checkpoints": ("size", "note"),
    "tags": ("tag", "idx"),
}
#: How many of the columns tell a row from the others.
KEYS = {"entries": 1, "nodes": 2, "checkpoints": 1, "tags": 2}
#: Entries that a new ledger begins with: the genesis, the worker's key, four policies.
FOUNDING = 6
LENIENT = """
policy: test-lead
owner: test-lead
guards: [shift, promote]
environments: [production]
rules: [{id: always, when: "true", say: "'yes'", else: "'no'"}]
"""


@pytest.fixture
async def shipped(world: World) -> World:
    """A ledger with one delivery in it."""
    await world.ship(FIRST)
    return world


async def rows(world: World, table: str) -> list[Row]:
    columns = ", ".join(TABLES[table])
    async with world.store.transaction(write=False) as tx:
        return await tx.execute(f"SELECT {columns} FROM {table} ORDER BY {columns}")


def where(table: str, row: Row) -> tuple[str, Row]:
    """What selects the row, and its parameters."""
    key = TABLES[table][: KEYS[table]]
    return " AND ".join(f"{column} = ?" for column in key), row[: KEYS[table]]


async def put(world: World, table: str, row: Row, column: str, value: object) -> None:
    condition, key = where(table, row)
    await run(world, f"UPDATE {table} SET {column} = ? WHERE {condition}", value, *key)


async def run(world: World, sql: str, *parameters: object) -> None:
    async with world.store.transaction() as tx:
        await tx.execute(sql, parameters)


def changes(value: object, chance: random.Random) -> list[object]:
    """The value with one byte changed, with one bit changed, or as another type."""
    if isinstance(value, int):
        return [value ^ (1 << chance.randrange(8)), "another type"]
    if isinstance(value, bytes):
        places = [chance.randrange(len(value)) for _ in range(1 + len(value) // 500)]
        bits = [bytes([value[place] ^ (1 << chance.randrange(8))]) for place in places]
        return [value[:p] + bit + value[p + 1 :] for p, bit in zip(places, bits, strict=True)]
    assert isinstance(value, str)
    place = chance.randrange(len(value))
    return [value[:place] + chr(ord(value[place]) ^ 1) + value[place + 1 :], value.encode()]


async def complaints(world: World, trust: fsck.Trust | None = None) -> str:
    report = await world.verify(trust)
    assert not report.verified
    return "\n".join(report.problems)


async def test_an_honest_ledger_is_verified(world: World) -> None:
    await world.ship(FIRST)
    await world.ship(SECOND)
    await world.roll_back(Delivery("d-3", SECOND.artifact, SECOND.release, "rollback"), FIRST.release)
    report = await world.verify()
    assert report.problems == ()
    assert report.verified
    async with world.store.transaction(write=False) as tx:
        assert report.entries == await world.ledger.size(tx)
        assert report.root == (await world.ledger.root(tx, report.entries)).hex()
    # deploy: two policies; shift: one; promote: two
    assert report.sign_offs == 4 + 5
    assert report.checkpoints > 10
    assert (await fsck.verify(world.store, None, world.languages)).verified


async def test_an_empty_ledger_is_not(world: World) -> None:
    for table in TABLES:
        await run(world, f"DELETE FROM {table}")
    report = await world.verify()
    assert not report.verified
    assert not (await fsck.verify(world.store, None, world.languages)).verified


@pytest.mark.parametrize("table", TABLES)
async def test_no_value_of_any_row_can_change(shipped: World, table: str) -> None:
    chance = random.Random(table)
    tried = 0
    listed = await rows(shipped, table)
    for row in listed:
        for column, value in zip(TABLES[table], row, strict=True):
            changed = chance.choice(changes(value, chance))
            try:
                await put(shipped, table, row, column, changed)
            except (Broken, Invalid):
                continue  # the database itself refuses it
            tried += 1
            assert not (await shipped.verify()).verified, f"{table} {row}: {column} {value!r} → {changed!r}"
            (now,) = set(await rows(shipped, table)) - set(listed)
            await put(shipped, table, now, column, value)
    assert tried >= 8
    assert (await shipped.verify()).verified


async def test_no_byte_of_any_entry_can_change(shipped: World) -> None:
    chance = random.Random(1)
    for row in await rows(shipped, "entries"):
        for changed in changes(row[1], chance):
            await put(shipped, "entries", row, "envelope", changed)
            assert not (await shipped.verify()).verified, f"entry {row[0]}: {changed!r}"
        await put(shipped, "entries", row, "envelope", row[1])
    assert (await shipped.verify()).verified


@pytest.mark.parametrize("table", TABLES)
async def test_no_row_can_go(shipped: World, table: str) -> None:
    columns = ", ".join(TABLES[table])
    listed = await rows(shipped, table)
    for row in listed:
        condition, key = where(table, row)
        await run(shipped, f"DELETE FROM {table} WHERE {condition}", *key)
        gone = not (await shipped.verify()).verified
        # Nothing rests on an older checkpoint; only the last must be there.
        assert gone == (table != "checkpoints" or row == listed[-1]), f"{table} row {row}"
        marks = ", ".join("?" * len(row))
        await run(shipped, f"INSERT INTO {table} ({columns}) VALUES ({marks})", *row)
    assert (await shipped.verify()).verified


async def test_the_order_cannot_change(shipped: World) -> None:
    listed = await rows(shipped, "entries")
    for one, two in itertools.pairwise(listed):
        await put(shipped, "entries", one, "envelope", two[1])
        await put(shipped, "entries", two, "envelope", one[1])
        assert not (await shipped.verify()).verified
        await put(shipped, "entries", one, "envelope", one[1])
        await put(shipped, "entries", two, "envelope", two[1])


@pytest.mark.parametrize(
    ("table", "row", "problem"),
    [
        ("tags", ("delivery:d-9", 3), "tag delivery:d-9"),
        ("nodes", (0, 999, b"\0"), "node 0/999"),
        ("nodes", ("x", "y", b"\0"), "not a place in the tree"),
        ("checkpoints", (999, "x"), "checkpoint 999"),
        ("entries", (999, b"\0"), "is missing"),
        ("entries", (-1, b"\0"), "below zero"),
    ],
)
async def test_nothing_can_be_slipped_in(shipped: World, table: str, row: Row, problem: str) -> None:
    columns, marks = ", ".join(TABLES[table]), ", ".join("?" * len(row))
    try:
        await run(shipped, f"INSERT INTO {table} ({columns}) VALUES ({marks})", *row)
    except Invalid:  # a database whose columns have types: it was not slipped in
        assert isinstance(row[0], str)
        assert (await shipped.verify()).verified
    else:
        assert problem in await complaints(shipped)


async def test_the_end_cannot_be_cut_off_while_its_checkpoint_stays(shipped: World) -> None:
    last, _ = (await rows(shipped, "entries"))[-1]
    for table in ("entries", "tags"):
        await run(shipped, f"DELETE FROM {table} WHERE idx = ?", last)
    assert "checkpoint" in await complaints(shipped)


async def test_another_ledger_is_not_the_trusted_one(shipped: World) -> None:
    trust = shipped.trust
    assert "not the genesis" in await complaints(shipped, replace(trust, genesis="sha256:" + "0" * 64))
    other = replace(trust, log_key=shipped.worker.public_key.hex())
    assert "does not name the log's key" in await complaints(shipped, other)
    assert "not of 'other'" in await complaints(shipped, replace(trust, origin="other"))


async def forge(world: World, *entries: Entry) -> None:
    """Write entries as somebody would who holds the log's key and the database, and obeys no rule."""
    batch = Batch(entries[0].index, Authority(log_keys=((-1, world.log.public_key),)), 0.0)
    batch.entries = entries
    async with world.store.transaction() as tx:
        await world.ledger.write(tx, batch)


async def test_the_log_cannot_grant_itself_anything(shipped: World) -> None:
    mallory = shipped.key("mallory")
    grant = KeyGrant(By("op"), "mallory", mallory.public_key.hex(), "worker")
    size = len(await rows(shipped, "entries"))
    envelope = attest(mallory, statement_of(grant))
    await forge(shipped, Entry(size, envelope, envelope.statement()))
    assert "nobody granted the key" in await complaints(shipped)


async def test_the_log_cannot_sign_another_tree(shipped: World) -> None:
    last = (await rows(shipped, "checkpoints"))[-1]
    head = Checkpoint("penstock", int(str(last[0])), bytes(32))
    note = sign_note(head, shipped.log.public_key, lambda message: shipped.log.sign(message).value)
    await put(shipped, "checkpoints", last, "note", note)
    assert "is not of these entries" in await complaints(shipped)


async def test_the_log_cannot_sign_for_a_worker(shipped: World) -> None:
    mallory = shipped.key("mallory")
    mallory.keyid = shipped.worker.keyid
    size = len(await rows(shipped, "entries"))
    envelope = attest(mallory, Statement((named("d"),), Ended(FIRST.id, "success", "promoted", "")))
    await forge(shipped, Entry(size, envelope, envelope.statement()))
    assert "not signed by worker" in await complaints(shipped)
    async with shipped.store.transaction(write=False) as tx:
        data = await bundle.export(shipped.ledger, tx, FIRST.id)
    steps = bundle.check(data, shipped.trust, shipped.languages)
    assert not steps[-1].ok
    assert "not signed by worker" in steps[-1].reason


class TestALyingWorker:
    """What a worker signs is in its power to say; what it rests on is not."""

    @pytest.fixture
    async def asked(self, world: World) -> World:
        """A delivery whose tests failed, and whose gate said so."""
        await world.propose(FIRST)
        await world.report(FIRST, built(), suite_ran(failed=1), scanned())
        assert (await world.gate(FIRST, "deploy")).state == "failure"
        assert (await world.verify()).verified
        return world

    async def lie(self, world: World, **changes: object) -> str:
        """The development lead's sign-off again, with other words; *changes* are of its decision."""
        async with world.store.transaction(write=False) as tx:
            entries = await world.ledger.tagged(tx, f"type:{SignOff.TYPE}")
        (entry,) = (e for e in entries if _decision(e).penstock.policy == "development-lead")
        signed = _decision(entry)
        policy = changes.pop("policy_uri", signed.policy.uri)
        changed = replace(
            signed,
            policy=Resource(str(policy), signed.policy.digest),
            penstock=replace(signed.penstock, **changes),  # type: ignore[arg-type]
        )
        await world.keep(attest(world.worker, Statement(entry.statement.subjects, changed)))
        return await complaints(world)

    async def test_about_a_verdict(self, asked: World) -> None:
        assert "does not recompute" in await self.lie(asked, verdict="PASS", cause=None)

    async def test_about_what_it_saw(self, asked: World) -> None:
        # Without the scan and the failed tests, which are the last two before the gate.
        assert "does not recompute" in await self.lie(asked, size=FOUNDING + 2)

    async def test_about_what_it_could_see(self, asked: World) -> None:
        assert "entries after itself" in await self.lie(asked, size=10_000)

    async def test_about_the_first_release(self, asked: World) -> None:
        assert "mistaken about being the first" in await self.lie(asked, first=False)

    async def test_about_the_change(self, asked: World) -> None:
        assert "its change is not the delivery's" in await self.lie(asked, change=SECOND.change)

    async def test_about_the_delivery(self, asked: World) -> None:
        assert "had not begun" in await self.lie(asked, delivery="d-9")

    async def test_about_the_release(self, asked: World) -> None:
        assert "not of its artifact" in await self.lie(asked, release=SECOND.release)

    async def test_about_what_the_policy_guards(self, asked: World) -> None:
        assert "does not guard promote" in await self.lie(asked, action="promote")

    @pytest.mark.parametrize(
        ("uri", "problem"),
        [
            ("urn:penstock:entry:0", "does not cite the version"),
            ("urn:penstock:entry:9999", "does not cite the version"),
            ("urn:penstock:entry:x", "not an entry of the ledger"),
            ("", "not an entry of the ledger"),
        ],
    )
    async def test_about_the_policy(self, asked: World, uri: str, problem: str) -> None:
        assert problem in await self.lie(asked, policy_uri=uri)

    async def test_about_which_version_was_in_force(self, world: World) -> None:
        await world.say(publication(LENIENT, By("op")))
        await world.propose(FIRST)
        await world.report(FIRST, built(), suite_ran(), scanned(), accepted())
        assert (await world.gate(FIRST, "promote")).state == "success"
        async with world.store.transaction(write=False) as tx:
            entries = await world.ledger.tagged(tx, f"type:{SignOff.TYPE}")
        await world.say(publication(LENIENT.replace('"true"', '"release.first == false"'), By("op")))
        late = next(e for e in entries if _decision(e).penstock.policy == "test-lead")
        size = len(await rows(world, "entries"))
        signed = _decision(late)
        changed = replace(signed, penstock=replace(signed.penstock, size=size))
        await world.keep(attest(world.worker, Statement(late.statement.subjects, changed)))
        assert "does not cite the version of test-lead that was in force" in await complaints(world)

    async def test_about_an_action_that_was_refused(self, asked: World) -> None:
        await asked.report(FIRST, Deployed(FIRST.id, FIRST.release, DATA, "none", 1))
        assert "deploy without the sign-off of development-lead" in await complaints(asked)

    async def test_about_an_action_that_nobody_was_asked_about(self, asked: World) -> None:
        await asked.report(FIRST, Promoted(FIRST.id, FIRST.release, DATA))
        said = await complaints(asked)
        assert "promote without the sign-off of operations-lead" in said
        assert "promote without the sign-off of test-lead" in said

    async def test_about_going_back_to_what_was_never_live(self, asked: World) -> None:
        back = Delivery("d-9", SECOND.artifact, FIRST.release, "rollback")
        await asked.propose(back)
        subjects = (Subject(back.release.id, back.release.digest),)
        deployed = Deployed(back.id, back.release, DATA, "none", 1)
        await asked.keep(attest(asked.worker, Statement(subjects, deployed)))
        assert "what was never promoted" in await complaints(asked)

    async def test_about_a_delivery_that_never_began(self, asked: World) -> None:
        await asked.report(FIRST, Deployed("d-9", FIRST.release, DATA, "none", 1))
        assert "never began" in await complaints(asked)


async def test_a_policy_in_an_unknown_language_is_a_problem_and_no_crash(world: World) -> None:
    await world.propose(FIRST)
    await world.report(FIRST, built(), suite_ran(), scanned())
    await world.gate(FIRST, "deploy")
    report = await fsck.verify(world.store, world.trust, {})
    assert not report.verified
    assert any("written in 'cel'" in problem for problem in report.problems)


async def test_problems_are_told_up_to_a_number(shipped: World) -> None:
    await run(shipped, "UPDATE nodes SET hash = ?", b"\0")
    for number in range(100):
        await run(shipped, "INSERT INTO tags (tag, idx) VALUES (?, 0)", f"extra:{number}")
    assert len((await shipped.verify()).problems) == fsck.MAX_PROBLEMS


async def test_an_end_is_no_action(world: World) -> None:
    await world.report(FIRST, Proposed(FIRST.id, FIRST.change), Ended(FIRST.id, "failure", "failed", "no"))
    assert (await world.verify()).verified


def _decision(entry: Entry) -> SignOff:
    signed = entry.statement.predicate
    assert isinstance(signed, SignOff)
    return signed
