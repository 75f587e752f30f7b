"""The entries that a sign-off may rest on, fetched from the ledger for `core.selection.select`.

Called by the gate and by `ledger.fsck`, so that both look at the same evidence.
"""

from __future__ import annotations

from penstock.core.evidence import Entry
from penstock.core.policy import Question
from penstock.core.selection import select
from penstock.ledger.log import Ledger
from penstock.ports import Transaction


async def inputs(ledger: Ledger, tx: Transaction, question: Question) -> tuple[Entry, ...]:
    """What counts for this question, at its ledger size."""
    wanted = (
        f"about:{question.artifact.digest}",
        f"about:{question.release.digest}",
        f"delivery:{question.delivery}",
    )
    entries = [entry for tag in wanted for entry in await ledger.tagged(tx, tag, question.size)]
    return select(
        entries,
        artifact=question.artifact,
        release=question.release,
        delivery=question.delivery,
        size=question.size,
    )
