"""A long history made quickly: finished deliveries in journal and ledger, and services that are live.

One delivery is really delivered; the others are its rows again with other names and digests, in batches. Each
entry is signed anew and passes every check of an append. Only sign-offs cannot be computed again, because
they name the first delivery's entries: ``ledger verify`` would say so.
"""

from __future__ import annotations

from dataclasses import dataclass

from parts.tensteps import World, header
from penstock.core.digest import digest, hex_of
from penstock.core.evidence import Envelope, Statement, Subject, pre_authentication_encoding, seal
from penstock.core.predicates import Promoted
from penstock.core.release import Release
from penstock.ports import Transaction

#: Deliveries in one transaction.
BATCH = 250
COLUMNS = "scope, urgent, header, state, outcome, reason, created, ended"


def release_of(delivery: str) -> Release:
    given = header(delivery)
    assert given.artifact
    assert given.data
    return Release(given.change.service, given.change.environment, given.artifact.digest, given.data.digest)


def marks(delivery: str) -> list[str]:
    """What in its rows is this delivery's alone; the longer before what is in it."""
    release = release_of(delivery)
    return [release.id, hex_of(release.digest), hex_of(release.artifact), hex_of(release.data), delivery]


@dataclass(frozen=True)
class Template:
    """A finished delivery's row, its records' keys and bodies, and the payloads of its entries."""

    name: str
    row: tuple[object, ...]
    records: tuple[tuple[object, ...], ...]
    payloads: tuple[str, ...]

    def texts(self, delivery: str, given: tuple[object, ...]) -> list[object]:
        """The same for another delivery."""
        return [self._text(delivery, one) if isinstance(one, str) else one for one in given]

    def _text(self, delivery: str, text: str) -> str:
        for old, new in zip(marks(self.name), marks(delivery), strict=True):
            text = text.replace(old, new)
        return text


async def template(world: World, name: str) -> Template:
    """Of a delivery that was really delivered."""
    found = await world.find(name)
    async with world.store.transaction(write=False) as tx:
        (row,) = await tx.execute(f"SELECT {COLUMNS} FROM deliveries WHERE id = ?", (name,))
        records = await tx.execute(
            "SELECT seq, key, body FROM records WHERE delivery = ? ORDER BY seq", (name,)
        )
        last = max(index for record in found.records for index in record.entries) + 1  # its end
        indices = [index for record in found.records for index in record.entries] + [last]
        entries = [await world.ledger.entry(tx, index) for index in indices]
    payloads = tuple(entry.envelope.payload.decode() for entry in entries)
    return Template(name, row, tuple(records), payloads)


async def fill(world: World, made: Template, count: int) -> None:
    """So many deliveries more, each of a service of its own."""
    names = [f"h-{number:06}" for number in range(count)]
    for start in range(0, count, BATCH):
        async with world.store.transaction() as tx:
            envelopes = []
            for name in names[start : start + BATCH]:
                await _insert(tx, made, name)
                envelopes += [signed(world, text) for text in made.texts(name, made.payloads)]
            await world.ledger.append(tx, envelopes)


async def _insert(tx: Transaction, made: Template, name: str) -> None:
    row = made.texts(name, made.row)
    await tx.execute(
        f"INSERT INTO deliveries (id, {COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (name, *row)
    )
    for record in made.records:
        values = made.texts(name, record)
        await tx.execute(
            "INSERT INTO records (delivery, seq, key, body) VALUES (?, ?, ?, ?)", (name, *values)
        )


def signed(world: World, payload: object) -> Envelope:
    raw = str(payload).encode()
    made = world.keys.worker.sign(pre_authentication_encoding(raw))
    return seal(raw, made.keyid, made.value)


async def promote(world: World, count: int) -> None:
    """Make the first *count* services of the history live, as the ledger tells it."""
    async with world.store.transaction() as tx:
        envelopes = []
        for name in (f"h-{number:06}" for number in range(count)):
            given, release = header(name), release_of(name)
            assert given.data
            subjects = (Subject(release.id, release.digest), Subject(name, digest(name.encode())))
            said = Statement(subjects, Promoted(name, release, given.data, at=await tx.now()))
            envelopes.append(signed(world, said.payload().decode()))
        await world.ledger.append(tx, envelopes)
