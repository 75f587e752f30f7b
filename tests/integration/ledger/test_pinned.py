"""What rollbacks may come back to keeps its artifacts, however far back they have gone."""

from __future__ import annotations

from pathlib import Path

from tests.integration.engine.stage import DATA, stage

from penstock.core.digest import digest
from penstock.core.evidence import Statement, Subject
from penstock.core.predicates import Predicate, Promoted, RolledBack
from penstock.core.release import Release
from penstock.ledger.live import history, pinned
from penstock.ledger.log import attest
from penstock.ports import Store


def pair(number: int, service: str = "shop") -> Release:
    return Release(service, "production", digest(f"{service}-{number}".encode()), DATA.digest)


def promoted(number: int, service: str = "shop") -> Promoted:
    return Promoted(f"d{number}", pair(number, service), DATA, None, at=float(number))


async def test_the_pairs_on_the_way_back_and_the_newest_are_pinned(tmp_path: Path, store: Store) -> None:
    async with stage(tmp_path, store) as s:
        worker = await s.signer("w")

        async def say(*said: Predicate) -> None:
            async with store.transaction() as tx:
                subjects = (Subject("shop", digest(b"shop")),)
                await s.ledger.append(tx, [attest(worker, Statement(subjects, one)) for one in said])

        await say(*(promoted(number) for number in range(1, 9)), promoted(1, "other"))
        for number in (8, 7, 6, 5):
            await say(RolledBack(f"b{number}", pair(number), pair(number - 1), "back"))
        async with store.transaction(write=False) as tx:
            live, previous = await history(s.ledger, tx, "shop", "production")
            kept = await pinned(s.ledger, tx, 2)
            assert await pinned(s.ledger, tx, 0) == kept  # never fewer than a rollback needs
            everything = await pinned(s.ledger, tx, 100)
        assert live is not None
        assert previous is not None
        assert (live.release, previous.release) == (pair(4), pair(3))
        wanted = {pair(number).artifact for number in (4, 3, 8, 7)} | {pair(1, "other").artifact}
        assert kept == wanted
        assert len(everything) == 9
