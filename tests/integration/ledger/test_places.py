"""Where something was ever promoted: found without reading what was."""

from __future__ import annotations

from collections.abc import Sequence

from integration.ledger.world import DATA, Delivery, World, artifact
from penstock.core.evidence import Statement, Subject
from penstock.core.predicates import Promoted
from penstock.core.release import Release
from penstock.ledger.live import places
from penstock.ledger.log import attest
from penstock.ports import Row, Transaction


class Counting:
    """A transaction that counts the rows which it gives."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self.rows = 0

    async def execute(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        found = await self._tx.execute(sql, parameters)
        self.rows += len(found)
        return found

    async def changed(self, sql: str, parameters: Sequence[object] = ()) -> int:
        return await self._tx.changed(sql, parameters)

    async def now(self) -> float:
        return await self._tx.now()


async def promote(world: World, service: str, environment: str, number: int) -> None:
    release = Release(service, environment, artifact(f"{service}-{number}").digest, DATA.digest)
    said = Promoted(f"{service}-{number}", release, DATA, None)
    await world.keep(attest(world.worker, Statement((Subject(release.id, release.digest),), said)))


async def test_each_place_once_the_first_first_and_no_promotion_is_read(world: World) -> None:
    for number in range(5):
        await promote(world, "storefront", "production", number)
        await promote(world, "catalog", "production", number)
        await promote(world, "catalog", "staging", number)
    async with world.store.transaction(write=False) as tx:
        counting = Counting(tx)
        found = await places(counting)
    assert found == (("storefront", "production"), ("catalog", "production"), ("catalog", "staging"))
    assert counting.rows == len(found)


async def test_there_is_no_place_before_the_first_promotion(world: World) -> None:
    async with world.store.transaction(write=False) as tx:
        assert await places(tx) == ()
    await world.propose(Delivery("d-1", artifact("a")))
    async with world.store.transaction(write=False) as tx:
        assert await places(tx) == ()
