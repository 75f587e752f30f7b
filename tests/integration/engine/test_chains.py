"""Which dark releases a delivery is tested with: found on a real store, along who calls whom at a router."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.engine.stage import CONFIG, DATA, Stage, stage

from fakes.router import FakeRouter
from penstock.core.chain import Link
from penstock.core.digest import digest
from penstock.core.fence import Fence
from penstock.core.mesh import Mesh, Remote
from penstock.core.pipeline import Begun, Intent, Made, Record, State
from penstock.core.release import Artifact, Change, Release
from penstock.core.traffic import Backend, Egress, TrafficPlan, Weight
from penstock.core.trafficconfig import TrafficConfig
from penstock.engine.callers import callers
from penstock.engine.chains import chain
from penstock.engine.journal import Delivery, Header
from penstock.engine.queue import Proposal, Queue
from penstock.errors import Invalid, Unavailable
from penstock.ports import Store

REMOTE = Remote("west", "east", "east:8843", "pem")


def proposal(
    service: str, *calls: str, beside: tuple[str, ...] = (), callers: tuple[str, ...] | None = None
) -> Proposal:
    traffic = TrafficConfig(callers=callers)
    change = Change("code", service, "production", f"/{service}", "1" * 40, "Dana", "A change")
    return Proposal(
        Header(change, replace(CONFIG, service=service, calls=calls, traffic=traffic), beside=beside)
    )


class Place:
    def __init__(self, s: Stage) -> None:
        self.stage, self.router, self.queue = s, FakeRouter(), Queue(s.store, s.journal, s.ledger)

    async def build(self, delivery: str, mesh: Mesh | None = None) -> Release:
        """Its release is known from here on."""
        data = replace(DATA, mesh=mesh)
        service = delivery.rpartition("-")[0]
        artifact = Artifact(service, digest(delivery.encode()))
        details = (("begin", Begun("begun", data)), ("build", Made("made", artifact)))
        records = [Record(Intent(v, v), State.SUCCESS, 1.0, 2.0, detail=detail) for v, detail in details]
        async with self.stage.store.transaction() as tx:
            await self.stage.journal.add_records(tx, delivery, records)
        found = (await self.stage.find(delivery)).facts.release
        assert found is not None
        return found

    async def users(self, service: str, release: str, *calls: str, remote: Remote | None = None) -> None:
        """*release* has the users of the service, and calls others, here or at a peer."""
        egress = tuple(Egress(callee, f"unix:/{release}-{callee}", remote) for callee in calls)
        backend = Backend(release, (f"unix:/{release}",), egress=egress)
        self.router.up.add(f"unix:/{release}")
        plan = TrafficPlan(service, "production", (backend,), (Weight(release, 1000),))
        await self.router.apply(plan, fence=Fence(f"{service}/production", 1, "key"))

    async def chain(self, delivery: str) -> tuple[Link, ...]:
        own: Delivery = await self.stage.find(delivery)
        s = self.stage
        return await chain(own, store=s.store, journal=s.journal, router=self.router)


async def test_a_chain_goes_down_along_the_calls_also_past_what_has_users(
    tmp_path: Path, store: Store
) -> None:
    async with stage(tmp_path, store) as s:
        place = Place(s)
        await place.users("cart", "cart-1", "catalog", "stock")
        proposals = [
            proposal("storefront", "cart", "mail"),
            proposal("mail", "stock", "storefront"),
            proposal("catalog"),
            proposal("stock"),
            proposal("apart"),
        ]
        started = await place.queue.add_together(proposals)
        named = {delivery.rpartition("-")[0]: delivery for delivery in started}
        releases = {service: await place.build(delivery) for service, delivery in named.items()}
        links = {link.release: link.stable for link in await place.chain(named["storefront"])}
        # The way by mail needs nobody's help, so that one counts.
        assert links == {releases["mail"]: (), releases["stock"]: (), releases["catalog"]: ("cart",)}
        assert await place.chain(named["catalog"]) == ()
        back = [link.release for link in await place.chain(named["mail"])]
        assert set(back) == {releases["stock"], releases["storefront"], releases["catalog"]}
        # What has users is met by everybody: it is no dark release any more.
        await place.users("stock", releases["stock"].id)
        links = {link.release: link.stable for link in await place.chain(named["storefront"])}
        assert links == {releases["mail"]: (), releases["catalog"]: ("cart",)}


async def test_a_chain_ends_where_a_call_leaves_the_machine(tmp_path: Path, store: Store) -> None:
    async with stage(tmp_path, store) as s:
        place = Place(s)
        catalog = await place.queue.add(proposal("catalog"))
        by_hand = (catalog,)
        storefront = await place.queue.add(proposal("storefront", "cart", beside=by_hand))
        await place.build(catalog)
        await place.users("cart", "cart-1", "catalog", remote=REMOTE)
        with pytest.raises(Invalid, match="storefront does not call catalog"):
            await place.chain(storefront)
        own = await place.queue.add(proposal("till", "catalog", beside=by_hand))
        await place.build(own, Mesh({"catalog": REMOTE}))
        with pytest.raises(Invalid, match="till does not call catalog"):
            await place.chain(own)


async def test_deliveries_that_are_named_are_tested_with(tmp_path: Path, store: Store) -> None:
    async with stage(tmp_path, store) as s:
        place = Place(s)
        catalog = await place.queue.add(proposal("catalog"))
        storefront = await place.queue.add(proposal("storefront", "catalog", beside=(catalog,)))
        with pytest.raises(Unavailable, match="no release yet"):
            await place.chain(storefront)
        release = await place.build(catalog)
        assert await place.chain(storefront) == (Link(release),)
        other = await place.queue.add(proposal("mail", beside=(catalog,)))
        with pytest.raises(Invalid, match="mail does not call catalog"):
            await place.chain(other)


async def test_one_by_itself_has_no_chain(tmp_path: Path, store: Store) -> None:
    async with stage(tmp_path, store) as s:
        place = Place(s)
        await place.build(await place.queue.add(proposal("catalog")))
        assert await place.chain(await place.queue.add(proposal("storefront", "catalog"))) == ()


async def test_who_calls_a_service_is_asked_where_its_rules_say_who_may(tmp_path: Path, store: Store) -> None:
    async with stage(tmp_path, store) as s:
        place = Place(s)
        for service, calls in (("till", ("catalog",)), ("mail", ("stock",))):
            await place.users(service, f"{service}-1", *calls)
            await s.promoted(Release(service, "production", digest(b"1"), DATA.digest))
        open_to_all, ruled = proposal("catalog"), proposal("catalog", callers=())
        for proposed, expected in ((open_to_all, ()), (ruled, ("storefront", "till"))):
            started = await place.queue.add_together([proposal("storefront", "catalog"), proposed])
            (own,) = [name for name in started if name.startswith("catalog")]
            powers = {"store": s.store, "journal": s.journal, "router": place.router}
            assert await callers(await s.find(own), **powers) == expected
