"""What is live, as the ledger tells it: a fold over promotions and rollbacks.

Called by the engine when a delivery begins, and by projections. Must not look at the journal or the
world; drift between this and the data plane is found by whoever compares them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock.core.evidence import Entry
from penstock.core.predicates import Promoted, RolledBack
from penstock.core.release import EnvironmentData, Release
from penstock.ledger.log import Ledger
from penstock.ports import Transaction

#: From each tag of a place straight to the next one (``;`` comes after ``:``), and there to the first entry
#: that is a promotion too.
_PLACES = """
    WITH RECURSIVE places (tag) AS (
        SELECT min(tag) FROM tags WHERE tag >= 'service:' AND tag < 'service;'
        UNION ALL
        SELECT (SELECT min(tag) FROM tags WHERE tag > places.tag AND tag < 'service;')
        FROM places WHERE places.tag IS NOT NULL)
    SELECT tag, (
        SELECT own.idx FROM tags AS own WHERE own.tag = places.tag
        AND EXISTS (SELECT 1 FROM tags AS said WHERE said.tag = ? AND said.idx = own.idx)
        ORDER BY own.idx LIMIT 1)
    FROM places WHERE tag IS NOT NULL
"""


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


async def history(
    ledger: Ledger, tx: Transaction, service: str, environment: str
) -> tuple[Live | None, Live | None]:
    """(live, previous). A rollback by hand makes the restored pair live and leaves nothing to go back to
    but what was live before that pair."""
    stack = _fold(await ledger.tagged(tx, f"service:{service}/{environment}"))
    return (stack[-1] if stack else None), (stack[-2] if len(stack) > 1 else None)


async def places(tx: Transaction) -> tuple[tuple[str, str], ...]:
    """(service, environment) of everything that was ever promoted, the first first.

    Found by their tags: no entry is read, however many promotions there were.
    """
    rows = await tx.execute(_PLACES, (f"type:{Promoted.TYPE}",))
    promoted = sorted((int(str(index)), str(tag)) for tag, index in rows if index is not None)
    named = (tag.removeprefix("service:").rpartition("/") for _, tag in promoted)
    return tuple((service, environment) for service, _, environment in named)


async def pinned(ledger: Ledger, tx: Transaction, last: int) -> frozenset[str]:
    """The artifacts of what is live everywhere, of the *last* pairs that rollbacks by hand come back to, one
    after another, and of the *last* pairs that were promoted."""
    kept: set[str] = set()
    for service, environment in await places(tx):
        entries = await ledger.tagged(tx, f"service:{service}/{environment}")
        promoted = [e.statement.predicate for e in entries if isinstance(e.statement.predicate, Promoted)]
        for pairs in ([one.release for one in _fold(entries)], [one.release for one in promoted]):
            newest = list(dict.fromkeys(reversed(pairs)))[: max(2, last)]
            kept |= {release.artifact for release in newest}
    return frozenset(kept)


class Promotions:
    """The promoted pairs that nobody took back, of one place after another; each history is folded once.

    For whoever asks often, in a process that lives long. Others ask `live`.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        #: By tag: how many entries are in it, and the fold.
        self._folds: dict[str, tuple[int, tuple[Live, ...]]] = {}

    async def of(self, tx: Transaction, service: str, environment: str) -> tuple[Live, ...]:
        """Oldest first: the last is live, and rollbacks by hand come back to the others, one by one."""
        tag = f"service:{service}/{environment}"
        known, stack = self._folds.get(tag, (0, ()))
        size = await self._ledger.size(tx)
        if size > known:
            newer = await self._ledger.tagged(tx, tag, since=known, before=size)
            stack = tuple(_fold(newer, stack))
            self._folds[tag] = (size, stack)
        return stack


def _fold(entries: tuple[Entry, ...], before: Sequence[Live] = ()) -> list[Live]:
    """*before* is the fold of the entries before these."""
    stack = list(before)
    for entry in entries:
        match entry.statement.predicate:
            case Promoted(delivery=delivery, release=release, data=data):
                stack.append(Live(release, data, delivery, entry.index))
            case RolledBack(restored=restored, release=release) if restored not in (None, release):
                if len(stack) > 1 and stack[-1].release == release:
                    stack.pop()
            case RolledBack(restored=None, release=release):
                # A first release that was promoted, and undone with the rest of its change set.
                if stack and stack[-1].release == release:
                    stack.pop()
    return stack
