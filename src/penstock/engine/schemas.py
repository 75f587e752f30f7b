"""Which versions of its tables a release knows, and which a store has.

Called before anything else is done with a store, and by backups. Must not change anything: an older release
that meets a newer store leaves it as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

from penstock.engine import numbers, prune, seats, sessions, tables
from penstock.errors import Conflict
from penstock.ledger import hooks, log
from penstock.ports import Store
from penstock.telemetry import rollups

#: By component. What is not named here was made by somebody else, and is left alone.
KNOWN: Mapping[str, int] = {
    "ledger": len(log.SCHEMA),
    "journal": len(tables.SCHEMA),
    "numbers": len(numbers.SCHEMA),
    "pruning": len(prune.SCHEMA),
    "seats": len(seats.SCHEMA),
    "sessions": len(sessions.SCHEMA),
    "webhooks": len(hooks.SCHEMA),
    "telemetry": len(rollups.SCHEMA),
}


async def versions(store: Store) -> dict[str, int]:
    """The version of each component's tables in a store."""
    async with store.transaction(write=False) as tx:
        rows = await tx.execute("SELECT component, version FROM schema_version ORDER BY component")
    return {str(component): int(str(version)) for component, version in rows}


def refuse_newer(found: Mapping[str, int], where: str) -> None:
    """`Conflict` if a newer release than this one wrote the tables."""
    for component, known in KNOWN.items():
        version = found.get(component, 0)
        if version > known:
            raise Conflict(
                f"a newer release wrote this: the {component} tables have version {version}, "
                f"and this release knows {known}; nothing was changed",
                where=where,
                next_move="run the newer release again; or, giving up what happened since, restore the "
                "backup that was made before the upgrade into an empty data folder: penstock restore FILE",
            )
