"""A node that has lost what was live, as stories on real stores: what comes back, and what is let alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from tests.integration.engine.stage import Stage, stage

from fakes.platform import FakePlatform
from fakes.router import FakeRouter
from penstock.config import ServiceConfig
from penstock.core.digest import digest
from penstock.core.evidence import Statement, Subject
from penstock.core.fence import Fence
from penstock.core.predicates import Drifted, Promoted
from penstock.core.release import EnvironmentData, Release
from penstock.core.traffic import WHOLE, Backend, TrafficPlan, Weight
from penstock.core.trafficconfig import TrafficConfig
from penstock.engine.revive import Revival
from penstock.errors import Invalid
from penstock.ledger.log import attest
from penstock.ports import Image, Store, Surplus

KEPT = TrafficConfig(timeout_seconds=3.0)


class Images:
    def __init__(self) -> None:
        self.gone: set[str] = set()

    async def describe(self, artifact: str) -> Image:
        if artifact in self.gone:
            raise Invalid("no such image", where=artifact)
        return Image(("serve",), ServiceConfig(traffic=KEPT))

    async def prune(self, keep: object, before: float, *, dry: bool = False) -> Surplus:
        raise NotImplementedError


class Node:
    """A node whose disk is new."""

    def __init__(self, s: Stage, revival: Revival, platform: FakePlatform, router: FakeRouter) -> None:
        self.stage, self.revival, self.platform, self.router = s, revival, platform, router
        self.images = revival.artifacts
        self.worker = revival.signer

    async def promote(self, *services: str) -> list[Release]:
        releases = []
        for service in services:
            data = EnvironmentData(service, "production")
            release = Release(service, "production", digest(service.encode()), data.digest)
            said = Promoted(f"{service}-1", release, data, at=1.0)
            async with self.stage.store.transaction() as tx:
                statement = Statement((Subject(release.id, release.digest),), said)
                await self.stage.ledger.append(tx, [attest(self.worker, statement)])
            releases.append(release)
        return releases

    async def serve(self, service: str, *releases: str) -> None:
        """Users are on these already."""
        backends = tuple(Backend(release, (f"unix:/{release}",)) for release in releases)
        self.router.up |= {f"unix:/{release}" for release in releases}
        weights = tuple(Weight(release, WHOLE // len(releases)) for release in releases)
        plan = TrafficPlan(service, "production", backends, weights)
        await self.router.apply(plan, fence=Fence(f"{service}/production", 1, "key"))

    async def users(self, service: str) -> dict[str, int]:
        state = await self.router.read(service, "production")
        return {weight.release: weight.share for weight in state.weights}

    async def drifted(self) -> list[str]:
        async with self.stage.store.transaction(write=False) as tx:
            entries = await self.stage.ledger.tagged(tx, f"type:{Drifted.TYPE}")
        said = (entry.statement.predicate for entry in entries)
        return [predicate.found for predicate in said if isinstance(predicate, Drifted)]


@asynccontextmanager
async def node(folder: Path, store: Store) -> AsyncIterator[Node]:
    async with stage(folder, store) as s:
        platform, router = FakePlatform(), FakeRouter()
        parts = (platform, router, Images(), await s.signer("worker"))
        revival = Revival(s.store, s.ledger, s.journal, *parts)
        tending = asyncio.create_task(tend(platform, router))
        yield Node(s, revival, platform, router)
        tending.cancel()


async def tend(platform: FakePlatform, router: FakeRouter) -> None:
    """What is placed becomes ready, and can be reached."""
    while True:
        await platform.tend()
        router.up |= set(addresses(platform))
        await asyncio.sleep(0.01)


def addresses(platform: FakePlatform) -> Iterable[str]:
    for found in platform._releases.values():
        yield from (instance.address for instance in found.instances)


async def test_what_is_live_serves_everybody_again(tmp_path: Path, store: Store) -> None:
    async with node(tmp_path, store) as n:
        shop, cart = await n.promote("shop", "cart")
        before = await n.stage.journal.raise_fence("shop/production")
        assert await n.revival.run() == (shop.id, cart.id)
        assert await n.users("shop") == {shop.id: WHOLE}
        assert (await n.router.read("cart", "production")).handling == KEPT.handling
        assert await n.drifted() == [f"the node had lost {shop.id}", f"the node had lost {cart.id}"]
        # Who worked on the service before has a fence that is lower now.
        assert {fence.number for fence in n.platform.fences if fence.scope == "shop/production"} == {
            before + 1
        }
        # Looking again finds nothing to do.
        assert await n.revival.run() == ()
        assert len(await n.drifted()) == 2


async def test_what_a_delivery_has_moved_is_let_alone(tmp_path: Path, store: Store) -> None:
    async with node(tmp_path, store) as n:
        (shop,) = await n.promote("shop")
        for users in ((shop.id, "shop-2"), ("shop-2",)):
            await n.serve("shop", *users)
            assert await n.revival.run() == ()
            assert set(await n.users("shop")) == set(users)
        assert n.platform.fences == []


async def test_what_has_users_and_is_not_placed_comes_back(tmp_path: Path, store: Store) -> None:
    async with node(tmp_path, store) as n:
        (shop,) = await n.promote("shop")
        await n.serve("shop", shop.id)
        assert await n.revival.run() == (shop.id,)
        assert (await n.router.read("shop", "production")).ready(shop.id)


async def test_one_that_cannot_come_back_keeps_nobody_else_from_it(tmp_path: Path, store: Store) -> None:
    async with node(tmp_path, store) as n:
        shop, cart = await n.promote("shop", "cart")
        assert isinstance(n.images, Images)
        n.images.gone.add(shop.artifact)
        assert await n.revival.run() == (cart.id,)
        assert await n.users("shop") == {}
