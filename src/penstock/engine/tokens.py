"""API tokens: only their SHA-256 is kept, each with the identity that it stands for.

Called by the server. The table is the journal's; what an identity may do is the ledger's to say.
"""

from __future__ import annotations

from penstock.ports import Store, Transaction


async def first(store: Store, hashed: str, identity: str) -> bool:
    """Keep the SHA-256 of a token if there is none yet; True if it was kept."""
    async with store.transaction() as tx:
        if await tx.execute("SELECT 1 FROM tokens LIMIT 1"):
            return False
        await add(tx, hashed, identity)
        return True


async def add(tx: Transaction, hashed: str, identity: str) -> None:
    """Keep the SHA-256 of a further token of somebody's."""
    await tx.execute("INSERT INTO tokens (hash, identity) VALUES (?, ?)", (hashed, identity))


async def drop(tx: Transaction, identity: str) -> int:
    """Forget every token of somebody's; returns how many there were."""
    return await tx.changed("DELETE FROM tokens WHERE identity = ?", (identity,))


async def identity_of(store: Store, hashed: str) -> str | None:
    """Whose token has this SHA-256; None if nobody's."""
    async with store.transaction(write=False) as tx:
        rows = await tx.execute("SELECT identity FROM tokens WHERE hash = ?", (hashed,))
        return str(rows[0][0]) if rows else None
