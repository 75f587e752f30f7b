"""The table of webhooks. Each has its own follower, so that no webhook waits for another.

Called by `engine.webhooks` and the server. A webhook and its follower's place come and go in one transaction;
the secret is not here but in a file of the data folder.
"""

from __future__ import annotations

from penstock.core.webhook import Webhook
from penstock.errors import Conflict, Invalid
from penstock.ledger import follow
from penstock.ledger.log import Ledger
from penstock.ports import Store, Transaction

SCHEMA = (
    """
    CREATE TABLE webhooks (name TEXT PRIMARY KEY, url TEXT NOT NULL, disabled TEXT NOT NULL DEFAULT '')
    """,
)


def follower(name: str) -> str:
    """The name of the follower that a webhook is driven by."""
    return f"webhook:{name}"


async def migrate(store: Store) -> None:
    await store.migrate("webhooks", SCHEMA)


async def every(tx: Transaction) -> tuple[Webhook, ...]:
    """All of them, by name."""
    rows = await tx.execute("SELECT name, url, disabled FROM webhooks ORDER BY name")
    return tuple(Webhook(str(name), str(url), str(disabled)) for name, url, disabled in rows)


async def find(tx: Transaction, name: str) -> Webhook:
    """One by its name."""
    hooks = await every(tx)
    for hook in hooks:
        if hook.name == name:
            return hook
    known = ", ".join(hook.name for hook in hooks) or "none"
    raise Invalid(f"no webhook is called {name!r}; known: {known}", next_move="penstock webhook list")


async def add(ledger: Ledger, tx: Transaction, name: str, url: str) -> None:
    """From now on *url* is told of what happens; of what has happened already it is not."""
    if any(hook.name == name for hook in await every(tx)):
        raise Conflict(f"there is a webhook {name} already", next_move=f"penstock webhook remove {name}")
    await tx.execute("INSERT INTO webhooks (name, url) VALUES (?, ?)", (name, url))
    await follow.forget(tx, follower(name))
    await follow.advance(ledger, tx, follower(name), await ledger.size(tx))


async def remove(tx: Transaction, name: str) -> None:
    """Tell it no more. What it was not told of yet, it never will be."""
    await find(tx, name)
    await tx.execute("DELETE FROM webhooks WHERE name = ?", (name,))
    await follow.forget(tx, follower(name))


async def disable(tx: Transaction, name: str, why: str) -> None:
    """Keep it on the list, and send nothing."""
    await tx.execute("UPDATE webhooks SET disabled = ? WHERE name = ?", (why, name))
