"""What is live, as the ledger tells it: a fold over promotions and rollbacks.

Called by the engine when a delivery begins, and by projections. Must not look at the journal or the
world; drift between this and the data plane is found by whoever compares them.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.core.predicates import Promoted, RolledBack
from penstock.core.release import EnvironmentData, Release
from penstock.ledger.log import Ledger
from penstock.ports import Transaction


@dataclass(frozen=True)
class Live:
    """A promoted pair. *entry* is the promotion's ledger index, *delivery* the one that promoted it."""

    release: Release
    data: EnvironmentData
    delivery: str
    entry: int


async def live(ledger: Ledger, tx: Transaction, service: str, environment: str) -> Live | None:
    """The pair that is live now; None if none ever was."""
    return (await history(ledger, tx, service, environment))[0]


async def previous(ledger: Ledger, tx: Transaction, service: str, environment: str) -> Live | None:
    """The pair that a rollback by hand comes back to: the one live before the one that is live now."""
    return (await history(ledger, tx, service, environment))[1]


async def history(
    ledger: Ledger, tx: Transaction, service: str, environment: str
) -> tuple[Live | None, Live | None]:
    """(live, previous). A rollback by hand makes the restored pair live and leaves nothing to go back to
    but what was live before that pair."""
    stack: list[Live] = []
    for entry in await ledger.tagged(tx, f"service:{service}/{environment}"):
        match entry.statement.predicate:
            case Promoted(delivery=delivery, release=release, data=data):
                stack.append(Live(release, data, delivery, entry.index))
            case RolledBack(restored=restored, release=release) if restored not in (None, release):
                if len(stack) > 1 and stack[-1].release == release:
                    stack.pop()
    return (stack[-1] if stack else None), (stack[-2] if len(stack) > 1 else None)
