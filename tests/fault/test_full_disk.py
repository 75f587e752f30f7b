"""A disk that fills up: the writer is told, nothing that was committed is lost, and it goes on afterwards.

The disk is a small one in memory, mounted in a namespace of the test's own.
"""

from __future__ import annotations

from collections.abc import Callable

SCRIPT = """
import asyncio, contextlib
from pathlib import Path
from penstock.adapters.ed25519 import Ed25519
from penstock.adapters.sqlite import SqliteStore
from penstock.core.digest import digest
from penstock.core.evidence import Statement, Subject
from penstock.core.people import By, Genesis, KeyGrant
from penstock.core.saying import statement_of
from penstock.core.predicates import Coverage
from penstock.errors import Unavailable
from penstock.ledger.fsck import verify
from penstock.ledger.log import Ledger, attest

disk = Path("/mnt/disk")
log, operator, worker = (Ed25519.create(disk / name) for name in ("log", "operator", "worker"))

def say(predicate):
    return Statement((Subject("x", digest(b"x")),), predicate)

async def main():
    store = SqliteStore(disk / "penstock.db")
    ledger = Ledger(store, [log], "penstock")
    await ledger.migrate()
    keys = log.public_key.hex(), operator.public_key.hex()
    genesis = Genesis("penstock", keys[0], "operator", keys[1], ("administrator",))
    grant = KeyGrant(By("operator"), "w", worker.public_key.hex(), "worker")
    async with store.transaction() as tx:
        await ledger.append(tx, [attest(operator, statement_of(genesis)),
                                 attest(operator, statement_of(grant))])
    committed, ballast = 2, disk / "ballast"
    while True:
        if committed == 40:
            with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(b"0" * 4096)
        try:
            async with store.transaction() as tx:
                long = Coverage("s" * 2000, committed, 9999, "platform")
                await ledger.append(tx, [attest(worker, say(long))])
            committed += 1
        except Unavailable as error:
            print("told:", error.what, "| next:", error.next_move)
            break
    ballast.unlink()
    async with store.transaction() as tx:
        await ledger.append(tx, [attest(worker, say(Coverage("after", 1, 1, "platform")))])
    report = await verify(store, None, {})
    print("entries", report.entries, "expected", committed + 1, "problems", report.problems)
    await store.close()

asyncio.run(main())
"""


def test_a_full_disk_loses_nothing(on_a_small_disk: Callable[..., str]) -> None:
    said = on_a_small_disk(SCRIPT)
    assert "told: the database cannot answer" in said
    assert "free some space" in said
    line = next(line for line in said.splitlines() if line.startswith("entries"))
    words = line.split()
    assert words[1] == words[3], line
    assert line.endswith("problems ()")
