"""Change sets on real stores: several workers, one row in which they meet, and a queue for each service."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.engine.stage import CONFIG, FakeEngine, Stage, running, stage

from penstock.core.changeset import MOST_MEMBERS
from penstock.core.pipeline import Intent, State
from penstock.core.release import Change
from penstock.engine.journal import Delivery, Header
from penstock.engine.queue import Proposal, Queue
from penstock.errors import Conflict, Invalid
from penstock.ledger.fsck import verify
from penstock.ports import Outcome, Store

CALLS = {"storefront": ("catalog",), "catalog": ("stock",), "stock": ()}


class OneFails(FakeEngine):
    """As its parent, but what is *asked* (service, verb) ends as a failure."""

    def __init__(self, *asked: tuple[str, str]) -> None:
        super().__init__()
        self.asked = asked

    async def perform(self, delivery: Delivery, pipeline: object, intent: Intent) -> Outcome:
        if (delivery.header.change.service, intent.verb) in self.asked:
            self.performed.append((delivery.id, intent.key, delivery.fence))
            return Outcome(State.FAILURE, "it does not work")
        return await super().perform(delivery, pipeline, intent)  # type: ignore[arg-type]


def proposal(service: str, revision: str = "1") -> Proposal:
    change = Change("code", service, "production", f"/{service}", revision * 40, "Dana", "A change")
    return Proposal(Header(change, replace(CONFIG, service=service, calls=CALLS[service])))


async def ship_together(s: Stage, *services: str) -> tuple[str, ...]:
    return await Queue(s.store, s.journal, s.ledger).add_together([proposal(service) for service in services])


def order(engine: FakeEngine, verb: str) -> list[str]:
    return [name.rpartition("-")[0] for name, key, _ in engine.performed if key.split("/")[1] == verb]


async def outcomes(s: Stage, deliveries: tuple[str, ...]) -> dict[str, str]:
    found = [await s.find(delivery) for delivery in deliveries]
    return {delivery.header.change.service: delivery.outcome for delivery in found}


async def test_a_set_goes_to_production_in_the_order_of_its_calls(tmp_path: Path, store: Store) -> None:
    async with stage(tmp_path, store) as s:
        started = await ship_together(s, "storefront", "catalog", "stock")
        engine = FakeEngine()
        async with running(await s.worker("w1", engine), await s.worker("w2", engine)):
            await s.ended(*started)
        assert set((await outcomes(s, started)).values()) == {"promoted"}
        assert order(engine, "promote") == ["stock", "catalog", "storefront"]
        keys = [key for _, key, _ in engine.performed]
        first_shift = next(i for i, key in enumerate(keys) if key.startswith("canary/shift"))
        assert all("acceptance" not in key for key in keys[first_shift:]), "users before everybody was tested"
        assert (await verify(s.store, None, {})).verified


async def test_what_was_promoted_is_undone_with_the_one_that_fails(tmp_path: Path, store: Store) -> None:
    async with stage(tmp_path, store) as s:
        started = await ship_together(s, "storefront", "catalog", "stock")
        engine = OneFails(("storefront", "look"))
        async with running(await s.worker("w1", engine), await s.worker("w2", engine)):
            await s.ended(*started)
        assert set((await outcomes(s, started)).values()) == {"rolled-back"}
        assert order(engine, "rollback") == ["storefront", "catalog", "stock"]
        stock = await s.find(started[0])
        assert stock.state is State.CANCELLATION
        assert stock.reason.startswith("storefront-")
        assert "it does not work" in stock.reason


async def test_one_that_waits_in_its_queue_holds_the_others_back_and_is_ended_with_them(
    tmp_path: Path, store: Store
) -> None:
    async with stage(tmp_path, store) as s:
        engine = FakeEngine()
        engine.holds["build"] = asyncio.Event()
        queue = Queue(s.store, s.journal, s.ledger)
        before = await queue.add(proposal("catalog"))
        async with running(await s.worker("w1", engine)):
            await s.until(lambda: bool(engine.keys(before)))
            started = await ship_together(s, "storefront", "catalog")
            later = await queue.add(proposal("catalog", "2"))
            catalog, storefront = started
            await s.until(lambda: "build/build/0" in engine.keys(storefront))
            assert engine.keys(catalog) == [], "two deliveries of one service at a time"
            await s.journal.request(storefront, "abort")
            await s.ended(*started)
            assert not (await s.find(before)).ended
            engine.holds["build"].set()
            await s.ended(before, later)
        assert await outcomes(s, started) == {"catalog": "aborted", "storefront": "aborted"}
        assert await outcomes(s, (before, later)) == {"catalog": "promoted"}


async def test_a_newer_commit_does_not_take_a_member_out_of_its_set(tmp_path: Path, store: Store) -> None:
    async with stage(tmp_path, store) as s:
        started = await ship_together(s, "storefront", "catalog")
        newer = await Queue(s.store, s.journal, s.ledger).add(proposal("catalog", "2"))
        async with running(await s.worker("w", FakeEngine())):
            await s.ended(*started, newer)
        assert set((await outcomes(s, started)).values()) == {"promoted"}


async def test_a_worker_that_stops_in_the_middle_of_a_set_is_taken_over_from(
    tmp_path: Path, store: Store
) -> None:
    async with stage(tmp_path, store, lease_seconds=0.4) as s:
        started = await ship_together(s, "storefront", "catalog")
        engine = FakeEngine()
        engine.holds["promote"] = asyncio.Event()
        async with running(await s.worker("w1", engine)):
            await s.until(lambda: "promote/promote/0" in engine.keys(started[0]))
        engine.holds["promote"].set()
        async with running(await s.worker("w2", engine)):
            await s.ended(*started)
        assert set((await outcomes(s, started)).values()) == {"promoted"}


async def test_a_set_that_failed_is_tried_again_as_a_set(tmp_path: Path, store: Store) -> None:
    async with stage(tmp_path, store) as s:
        started = await ship_together(s, "storefront", "catalog")
        engine = OneFails(("storefront", "acceptance"))
        queue = Queue(s.store, s.journal, s.ledger)
        async with running(await s.worker("w", engine)):
            await s.ended(*started)
            engine.asked = ()
            again = await queue.again(started[1], "")
            part = (await s.find(again)).header.changeset
            assert part is not None
            assert len(part.members) == 2
            await s.ended(*part.members)
        assert set((await outcomes(s, part.members)).values()) == {"promoted"}
        assert [key for name in part.members for key in engine.keys(name) if "build" in key] == []
        with pytest.raises(Invalid, match="no stage"):
            await queue.again(started[1], "nothing")


async def test_a_set_is_only_repeated_once_all_of_it_has_ended(tmp_path: Path, store: Store) -> None:
    async with stage(tmp_path, store) as s:
        started = await ship_together(s, "storefront", "catalog")
        with pytest.raises(Conflict, match="still pending"):
            await Queue(s.store, s.journal, s.ledger).again(started[0], None)


async def test_what_can_be_no_set_is_refused_and_leaves_nothing(tmp_path: Path, store: Store) -> None:
    async with stage(tmp_path, store) as s:
        with pytest.raises(Invalid, match="catalog is twice"):
            await ship_together(s, "catalog", "storefront", "catalog")
        many = [proposal("stock") for _ in range(MOST_MEMBERS + 1)]
        named = [
            replace(one, header=replace(one.header, change=replace(one.header.change, service=f"s{number}")))
            for number, one in enumerate(many)
        ]
        with pytest.raises(Invalid, match=f"at most {MOST_MEMBERS}"):
            await Queue(s.store, s.journal, s.ledger).add_together(named)
        async with s.store.transaction(write=False) as tx:
            assert await s.journal.recent(tx) == ()
