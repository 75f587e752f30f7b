"""Removes what nobody needs any more: the journal of old deliveries, their logs and scratch folders, old
artifacts.

Called by the CLI, with or without a server at work: it is a matter of this data folder and its store, both of
which several processes may use at once, so no server is asked. Must not touch the ledger, nor builders'
caches and git mirrors. Files go before the rows that name them: a run that was stopped in between is made
good by the next.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from penstock.bootstrap.backup import exclusively
from penstock.bootstrap.control import open_store, store_place
from penstock.bootstrap.home import Home
from penstock.bootstrap.identity import ORIGIN
from penstock.bootstrap.plugins import find
from penstock.engine import prune as journal
from penstock.engine import schemas
from penstock.errors import Conflict, Invalid
from penstock.ledger.live import pinned
from penstock.ledger.log import Ledger
from penstock.ports import Artifacts, Store, Transaction

DAY = 86400.0
#: How many promoted pairs of each service and environment stay within reach.
PAIRS = 10


@dataclass(frozen=True)
class Pruned:
    """What was removed, or with *dry* would be. *bytes* are those of logs, scratch folders and artifacts."""

    dry: bool
    deliveries: tuple[str, ...]
    rows: int
    images: tuple[str, ...]
    bytes: int


async def prune(home: Home, older_than: float, *, pairs: int = PAIRS, dry: bool = False) -> Pruned:
    """Forget deliveries that ended more than *older_than* seconds ago, and artifacts that nothing needs."""
    _, place = store_place(home)
    if not home.run.exists() or (isinstance(place, Path) and not place.exists()):
        raise Invalid("there is nothing to prune", where=str(home.path), next_move="set PENSTOCK_HOME")
    if pairs < 2:
        raise Invalid(
            "what is live, and what it replaced, always stay", where="--keep", next_move="2 or more"
        )
    with exclusively(home):
        store = open_store(home)
        try:
            return await _prune(home, store, (older_than, pairs), dry)
        finally:
            await store.close()


async def _prune(home: Home, store: Store, limits: tuple[float, int], dry: bool) -> Pruned:
    older_than, pairs = limits
    found = await schemas.versions(store)
    schemas.refuse_newer(found, str(home.path))
    if any(found.get(component, 0) < version for component, version in schemas.KNOWN.items()):
        raise Conflict(
            "the tables are those of an older release",
            where=str(home.path),
            next_move="penstock up brings them on",
        )
    async with store.transaction(write=False) as tx:
        now = await tx.now()
        old = await journal.ended_before(tx, now - older_than)
    freed = sum(_remove(folder, dry) for name in old for folder in _folders(home, name))
    rows = await _forget(store, old, dry)
    artifacts: Artifacts = find("artifacts", "layout")(home.artifacts)
    async with store.transaction(write=False) as tx:
        keep = await _needed(home, Ledger(store, (), ORIGIN), tx, pairs)
    surplus = await artifacts.prune(keep, now - DAY, dry=dry)
    return Pruned(dry, old, rows, surplus.images, freed + surplus.bytes)


async def _forget(store: Store, old: tuple[str, ...], dry: bool) -> int:
    if dry:
        return 0
    async with store.transaction() as tx:
        return await journal.forget(tx, old)


async def _needed(home: Home, ledger: Ledger, tx: Transaction, pairs: int) -> set[str]:
    """Artifacts that somebody may still ask for. What is younger than a day stays beside these."""
    kept = {*await pinned(ledger, tx, pairs), *await journal.in_delivery(tx)}
    # Whatever the node has placed, it unpacks again when it starts.
    for record in (home.node / "w/releases").glob("*.json"):
        kept.update(journal.DIGEST.findall(record.read_text()))
    return kept


def _folders(home: Home, delivery: str) -> tuple[Path, ...]:
    return home.logs / "deliveries" / delivery, home.work / delivery


def _remove(folder: Path, dry: bool) -> int:
    """Remove a folder, or do not; returns how many bytes its files have."""
    size = 0
    for root, _, files in os.walk(folder):
        size += sum((Path(root) / name).lstat().st_size for name in files)
    if not dry:
        shutil.rmtree(folder, ignore_errors=True)
    return size
