"""Takes out of the journal what only its deliveries needed, once they have ended: never a fact of the ledger.

Called by ``bootstrap.prune``, by the server at its start (`sweep`) and by its views (`pruned`). A delivery's
row stays, with its header, state, outcome and reason; its records and attempts go. That it was pruned is
noted in a table of our own, in the same transaction.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from penstock.core.pipeline import ENDED
from penstock.errors import Invalid
from penstock.ports import Store, Transaction

SCHEMA = ("CREATE TABLE pruned (delivery TEXT PRIMARY KEY, at REAL NOT NULL)",)
#: In one statement; SQLite before 3.32 bounds its parameters at 999.
ROWS = 250
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
#: Words of ours, not of anybody outside: they can stand in the statement.
_OVER = ", ".join(f"'{state.value}'" for state in ENDED)


async def migrate(store: Store) -> None:
    await store.migrate("pruning", SCHEMA)


async def ended_before(tx: Transaction, moment: float) -> tuple[str, ...]:
    """Deliveries that ended before *moment* and were not pruned yet, oldest first."""
    rows = await tx.execute(
        f"SELECT id FROM deliveries WHERE state IN ({_OVER}) AND ended < ? "
        "AND id NOT IN (SELECT delivery FROM pruned) ORDER BY seq",
        (moment,),
    )
    return tuple(str(name) for (name,) in rows)


async def forget(tx: Transaction, deliveries: Sequence[str]) -> int:
    """Remove the records and attempts of deliveries that have ended; returns how many rows that were.

    `Invalid` if one has not: nothing is then removed.
    """
    removed, now = 0, await tx.now()
    for some in _some(deliveries):
        marks = ", ".join("?" * len(some))
        open_ones = await tx.execute(
            f"SELECT id FROM deliveries WHERE id IN ({marks}) AND state NOT IN ({_OVER})", some
        )
        if open_ones:
            raise Invalid("a delivery that has not ended cannot be pruned", where=str(open_ones[0][0]))
        for table in ("records", "attempts"):
            removed += await tx.changed(f"DELETE FROM {table} WHERE delivery IN ({marks})", some)
        for delivery in some:
            await tx.execute("INSERT INTO pruned (delivery, at) VALUES (?, ?)", (delivery, now))
    return removed


async def pruned(tx: Transaction, deliveries: Sequence[str]) -> dict[str, float]:
    """When each of these deliveries was pruned, if it was."""
    found: dict[str, float] = {}
    for some in _some(deliveries):
        marks = ", ".join("?" * len(some))
        rows = await tx.execute(f"SELECT delivery, at FROM pruned WHERE delivery IN ({marks})", some)
        found |= {str(delivery): float(str(at)) for delivery, at in rows}
    return found


async def in_delivery(tx: Transaction) -> set[str]:
    """Every digest that an open delivery names, in its header or a record: the artifacts among them are
    needed.

    Found in the text, so that no form of a header or a record, older or newer, can hide one.
    """
    rows = await tx.execute(
        f"SELECT header FROM deliveries WHERE state NOT IN ({_OVER}) UNION ALL "
        f"SELECT body FROM records WHERE delivery IN (SELECT id FROM deliveries WHERE state NOT IN ({_OVER}))"
    )
    return {digest for (text,) in rows for digest in DIGEST.findall(str(text))}


async def sweep(store: Store, work: Path) -> tuple[str, ...]:
    """Remove the scratch folders of deliveries that have ended: whoever ended them may have died before he
    could.

    A folder that no delivery is called after is left alone.
    """
    folders = sorted(path.name for path in work.iterdir() if path.is_dir()) if work.exists() else []
    stale: list[str] = []
    async with store.transaction(write=False) as tx:
        for some in _some(folders):
            marks = ", ".join("?" * len(some))
            rows = await tx.execute(
                f"SELECT id FROM deliveries WHERE id IN ({marks}) AND state IN ({_OVER})", some
            )
            stale += [str(name) for (name,) in rows]
    for name in stale:
        shutil.rmtree(work / name, ignore_errors=True)
    return tuple(stale)


def _some(names: Sequence[str]) -> Iterable[tuple[str, ...]]:
    return (tuple(names[start : start + ROWS]) for start in range(0, len(names), ROWS))
