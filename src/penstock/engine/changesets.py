"""What becomes of change sets: one row for each, settled once, for all its deliveries.

Called by `queue`, which makes them, and by the worker, which reads how far the others are and settles. Each
of the set's deliveries is driven by whoever holds it: they meet only in this row and in their records.
"""

from __future__ import annotations

from penstock.core.changeset import Fate, Peer, Together
from penstock.core.codec import decode
from penstock.core.pipeline import ENDED, GOOD, Gated, Record, State
from penstock.engine.journal import Delivery, Journal
from penstock.engine.plans import plan
from penstock.errors import Broken
from penstock.ports import Transaction

#: Actions after which users may meet a release.
TRAFFIC = ("shift", "promote", "restore")


async def create(tx: Transaction, name: str) -> None:
    """Open a set; its deliveries are queued in the same transaction."""
    await tx.execute("INSERT INTO changesets (id) VALUES (?)", (name,))


async def read(journal: Journal, tx: Transaction, delivery: Delivery) -> Together | None:
    """How far the other deliveries of its set are; None if it is in none."""
    part = delivery.header.changeset
    if part is None:
        return None
    rows = await tx.execute("SELECT fate, reason, decided FROM changesets WHERE id = ?", (part.id,))
    if not rows:
        raise Broken(f"the change set {part.id} is not there", where=delivery.id)
    fate, reason, decided = rows[0]
    others = [await journal.find(tx, name) for name in part.members if name != delivery.id]
    peers = tuple(peer(delivery, other) for other in others)
    return Together(peers, decode(Fate, fate), str(reason), float(str(decided)))  # type: ignore[arg-type]


async def settle(journal: Journal, tx: Transaction, delivery: Delivery, fate: Fate, reason: str) -> None:
    """Settle the set, unless it is; if it is undone, every delivery of it is asked to abort."""
    part = delivery.header.changeset
    if part is None:
        raise Broken("there is no set to settle", where=delivery.id)
    said = f"{delivery.id}: {reason}" if reason else ""
    settled = await tx.changed(
        "UPDATE changesets SET fate = ?, reason = ?, decided = ? WHERE id = ? AND fate = ''",
        (fate, said, await tx.now(), part.id),
    )
    if settled and fate == "undone":
        await journal.abort(tx, part.members)
    await journal.nudge(tx, part.members)


def peer(own: Delivery, other: Delivery) -> Peer:
    """How far *other* is, as *own* has to know it."""
    theirs, mine = other.header.changeset, own.header.changeset
    facts = other.facts
    known = _since((*facts.of("begin"), *facts.of("build"))) if facts.release else 0.0
    deployed = _since(facts.of("deploy")) or _arrived(other)
    untested = all(stage.verb != "acceptance" for stage in plan(other).stages)  # a rollback
    tested = deployed if untested else _since(facts.of("acceptance")) or _arrived(other)
    undone = other.state in ENDED or bool(facts.of("rollback"))
    return Peer(
        other.id,
        first=mine is not None and other.id in mine.after,
        later=theirs is not None and own.id in theirs.after,
        built=known or _arrived(other),
        deployed=deployed,
        tested=tested,
        promoted=_since((*facts.of("promote"), *facts.of("restore"))) or _arrived(other),
        exposed=not undone and any(_lets_in(record) for record in other.records),
    )


def _since(records: tuple[Record, ...]) -> float:
    return max((record.ended for record in records if record.state in GOOD), default=0.0)


def _arrived(other: Delivery) -> float:
    """When it ended, if well: one that found its pair live already has been everywhere it had to go."""
    return other.ended if other.state in (State.SUCCESS, State.SKIP) and not other.newer else 0.0


def _lets_in(record: Record) -> bool:
    """Whether users may have come by this, or after it: what follows a gate may not be recorded yet."""
    passed = isinstance(record.detail, Gated) and record.state in GOOD
    return record.intent.verb in TRAFFIC or (passed and record.intent.guards in TRAFFIC)
