"""The entries that a sign-off may rest on, fetched from the ledger for `core.selection.select`.

Called by the gate, when it asks and again when its answer is recorded, and by policy replay.
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.core.evidence import Entry
from penstock.core.selection import Question, select, tags_of
from penstock.ledger.log import Ledger
from penstock.ports import Transaction


async def inputs(
    ledger: Ledger, tx: Transaction, question: Question, coming: Sequence[Entry] = ()
) -> tuple[Entry, ...]:
    """What counts for this question, at its ledger size; the last of its entries may be *coming*."""
    there = await ledger.tagged(tx, *tags_of(question), before=question.size - len(coming))
    return select((*there, *coming), question)
