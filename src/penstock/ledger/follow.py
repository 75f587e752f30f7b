"""Followers: each sees every entry of the ledger, in order and at least once, also after a crash.

Used by what reacts to the ledger (projections, senders). A follower has a name, and its position is kept in
the ledger's own database. If it writes its results there too, in the transaction that moves the position, it
sees each entry exactly once. A follower never changes entries, and followers do not know one another.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from penstock.core.evidence import Entry
from penstock.errors import Invalid
from penstock.ledger.log import PAGE, Ledger
from penstock.ports import Store, Transaction

#: A commit of another process may be noticed this late, should its wake-up be lost.
WAIT_SECONDS = 5.0


async def place(tx: Transaction, name: str) -> int:
    """The index of the first entry that the follower has not finished; 0 for a new one."""
    rows = await tx.execute("SELECT next FROM followers WHERE name = ?", (name,))
    return int(str(rows[0][0])) if rows else 0


async def read(ledger: Ledger, tx: Transaction, name: str, limit: int = PAGE) -> tuple[Entry, ...]:
    """The next entries for this follower, oldest first; the same again until it advances."""
    return await ledger.entries(tx, await place(tx, name), limit)


async def advance(ledger: Ledger, tx: Transaction, name: str, to: int) -> None:
    """Everything below index *to* is done with. Never goes back; `Invalid` beyond the ledger's end."""
    size = await ledger.size(tx)
    if to > size:
        raise Invalid(f"cannot advance to {to}: the ledger has {size} entries", where=f"follower {name}")
    await tx.execute(
        "INSERT INTO followers (name, next) VALUES (?, ?) "
        "ON CONFLICT (name) DO UPDATE SET next = excluded.next WHERE excluded.next > followers.next",
        (name, to),
    )


async def forget(tx: Transaction, name: str) -> None:
    """Remove the follower: the next one with its name begins at entry 0."""
    await tx.execute("DELETE FROM followers WHERE name = ?", (name,))


async def follow(
    store: Store, ledger: Ledger, name: str, limit: int = PAGE
) -> AsyncGenerator[tuple[Entry, ...], None]:
    """Entries as they come, a page at a time, for ever.

    A page counts as done when the next one is asked for: leave the loop (or crash) before that, and it is
    given again. Whoever advances in a transaction of their own has nothing added to it.
    """
    while True:
        async with store.transaction(write=False) as tx:
            page = await read(ledger, tx, name, limit)
        if not page:
            await store.wake(WAIT_SECONDS)
            continue
        yield page
        done = page[-1].index + 1
        async with store.transaction(write=False) as tx:
            behind = await place(tx, name) < done
        if behind:
            async with store.transaction() as tx:
                await advance(ledger, tx, name, done)
