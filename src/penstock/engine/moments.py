"""Which delivery an entry of the ledger is of, and when it happened.

Called by what tells others of entries (webhooks, traces, metrics). Entries say little of this themselves; the
journal knows the rest for as long as it keeps the delivery. Must not write.
"""

from __future__ import annotations

from penstock.core.digest import short
from penstock.core.evidence import Entry
from penstock.core.people import By
from penstock.core.predicates import Ended, Provenance, SignOff
from penstock.engine.journal import Delivery, Journal
from penstock.errors import Invalid
from penstock.ledger.log import Ledger
from penstock.ledger.tags import tags
from penstock.ports import Transaction

OF_DELIVERY = "delivery:"


def delivery_named(entry: Entry) -> str:
    """The id of the delivery that the entry itself names; "" if it names none."""
    predicate = entry.statement.predicate
    if isinstance(predicate, Provenance):
        return predicate.run_details.metadata.invocation_id
    named = (tag.removeprefix(OF_DELIVERY) for tag in tags(entry) if tag.startswith(OF_DELIVERY))
    return next(named, "")


async def delivery_of(ledger: Ledger, tx: Transaction, entry: Entry) -> str:
    """The id of the entry's delivery; else of the one that last built what the entry is about; else ""."""
    named = delivery_named(entry)
    if named:
        return named
    for subject in entry.statement.subjects:
        about = await ledger.tagged(tx, f"about:{subject.digest}", before=entry.index)
        built = (delivery_named(e) for e in about[::-1] if isinstance(e.statement.predicate, Provenance))
        if found := next(built, ""):
            return found
    return ""


async def known(journal: Journal, tx: Transaction, delivery: str) -> Delivery | None:
    """The delivery with its records, if the journal (still) has it."""
    try:
        found = await journal.find(tx, delivery)
    except Invalid:
        return None
    return found if found.id == delivery else None


def happened(entry: Entry, delivery: Delivery | None) -> float | None:
    """When (seconds since 1970); None if neither the entry nor the journal can tell."""
    predicate = entry.statement.predicate
    if isinstance(predicate, SignOff):
        return predicate.penstock.now
    by = getattr(predicate, "by", None)
    at = by.at if isinstance(by, By) else getattr(predicate, "at", None)
    if isinstance(at, float) and at > 0:
        return at
    if delivery is None:
        return None
    if isinstance(predicate, Ended):
        return delivery.ended or None
    recorded = (record.ended for record in delivery.records if entry.index in record.entries)
    return next(recorded, None)


async def newest(ledger: Ledger, journal: Journal, tx: Transaction, look_back: int = 10) -> float | None:
    """When the newest entry was appended, and so the newest checkpoint signed, as far as entries can tell."""
    size = await ledger.size(tx)
    for entry in reversed(await ledger.entries(tx, max(0, size - look_back), look_back)):
        named = delivery_named(entry)
        at = happened(entry, await known(journal, tx, named) if named else None)
        if at is not None:
            return at
    return None


async def source(ledger: Ledger, tx: Transaction) -> str:
    """The name of this ledger for others: a URI that no other ledger has."""
    return f"urn:penstock:ledger:{short((await ledger.entry(tx, 0)).envelope.digest)}"
