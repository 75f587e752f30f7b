"""Whose contracts count: those in the images of what is live, as the ledger tells it."""

from __future__ import annotations

from world import DATA, World

from penstock.checks.consumers import Demand, LiveDemands
from penstock.config import ServiceConfig
from penstock.core.evidence import Statement, Subject
from penstock.core.predicates import Promoted
from penstock.core.release import Release
from penstock.ledger.log import attest
from penstock.ports import Image


class Images:
    def __init__(self, **contracts: dict[str, str]) -> None:
        self._contracts = contracts

    async def describe(self, artifact: str) -> Image:
        return Image(("serve",), ServiceConfig(), self._contracts.get(artifact[-1], {}))


async def promoted(world: World, service: str, artifact: str) -> None:
    release = Release(service, "production", "sha256:" + artifact * 64, DATA.digest)
    said = Promoted(f"{service}-1", release, DATA, None)
    await world.keep(attest(world.worker, Statement((Subject(release.id, release.digest),), said)))


async def test_the_live_image_counts_and_nobody_asks_oneself(world: World) -> None:
    images = Images(a={"shop": "old"}, b={"shop": "new", "catalog": "x"}, c={}, d={"shop": "own"})
    demands = LiveDemands(world.store, world.ledger, images)  # type: ignore[arg-type]
    for service, artifact in (("storefront", "a"), ("storefront", "b"), ("mobile", "c"), ("shop", "d")):
        await promoted(world, service, artifact)
    assert await demands.of("shop", "production") == (Demand("storefront", "new"),)
    assert await demands.of("shop", "staging") == ()
    assert await demands.by("sha256:" + "b" * 64) == (Demand("catalog", "x"), Demand("shop", "new"))
