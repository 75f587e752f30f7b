"""The queue: newer changes make older ones needless, what only has to end waits for nobody, and what has
ended can be tried again."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.engine.stage import CONFIG, FakeEngine, Stage, running, stage

from penstock.config import ServiceConfig
from penstock.core.pipeline import State
from penstock.core.release import Change
from penstock.engine.journal import Delivery, Header
from penstock.engine.queue import Proposal
from penstock.engine.ship import Shipping
from penstock.errors import Conflict, Invalid
from penstock.ledger.fsck import verify
from penstock.ports import Store

COUNT = itertools.count(1)


def shipping(s: Stage) -> Shipping:
    return Shipping(s.store, s.journal, s.ledger, None, {}, None)  # type: ignore[arg-type]


async def ship(
    s: Stage, config: ServiceConfig = CONFIG, kind: str = "code", repository: str = "/repo"
) -> str:
    """As `Shipping.ship` does, once it has read the commit."""
    change = Change(kind, "shop", "production", repository, f"{next(COUNT):040}", "Dana", "A change")  # type: ignore[arg-type]
    return await shipping(s).queue.add(Proposal(Header(change, config)))


async def found(s: Stage, *deliveries: str) -> list[Delivery]:
    return [await s.find(delivery) for delivery in deliveries]


async def fences(s: Stage) -> int:
    async with s.store.transaction(write=False) as tx:
        rows = await tx.execute("SELECT number FROM fences WHERE scope = 'shop/production'")
    return int(str(rows[0][0])) if rows else 0


async def test_a_newer_change_ends_those_that_wait_and_not_the_one_at_work(
    tmp_path: Path, store: Store
) -> None:
    async with stage(tmp_path, store) as s:
        engine = FakeEngine()
        engine.holds["build"] = asyncio.Event()
        at_work = await ship(s)
        async with running(await s.worker("w", engine)):
            await s.until(lambda: "build/build/0" in engine.keys(at_work))
            waited, newest = await ship(s), await ship(s)
            await s.ended(waited)
            assert (await s.find(at_work)).state is State.EXECUTING, "it had to wait for the one at work"
            assert await fences(s) == 1, "what only ended made the one at work stale"
            engine.holds["build"].set()
            await s.ended(at_work, newest)
        first, second, third = await found(s, at_work, waited, newest)
        assert (first.outcome, third.outcome) == ("promoted", "promoted")
        assert (second.state, second.outcome, second.reason) == (State.SKIP, "superseded", f"by {newest}")
        assert engine.keys(waited) == []
        assert (await verify(s.store, None, {})).verified


async def test_who_does_not_want_that_has_each_delivered(tmp_path: Path, store: Store) -> None:
    async with stage(tmp_path, store) as s:
        names = [await ship(s, replace(CONFIG, supersede=False)) for _ in range(3)]
        async with running(await s.worker("w", FakeEngine())):
            await s.ended(*names)
        assert [delivery.outcome for delivery in await found(s, *names)] == ["promoted"] * 3


async def test_a_change_of_another_kind_or_repository_makes_nothing_needless(
    tmp_path: Path, store: Store
) -> None:
    async with stage(tmp_path, store) as s:
        names = [await ship(s), await ship(s, kind="configuration"), await ship(s, repository="/other")]
        async with running(await s.worker("w", FakeEngine())):
            await s.ended(*names)
        assert [delivery.outcome for delivery in await found(s, *names)] == ["promoted"] * 3


async def test_a_rollback_holds_until_somebody_ships_again(tmp_path: Path, store: Store) -> None:
    async with stage(tmp_path, store) as s:
        queued = await ship(s, replace(CONFIG, supersede=False))
        back = await ship(s, kind="rollback")
        later = await ship(s, replace(CONFIG, supersede=False))
        async with running(await s.worker("w", FakeEngine())):
            await s.ended(queued, back, later)
        outcomes = [delivery.outcome for delivery in await found(s, queued, back, later)]
        assert outcomes == ["superseded", "restored", "promoted"]


async def test_an_abort_of_what_waits_ends_it_at_once(tmp_path: Path, store: Store) -> None:
    async with stage(tmp_path, store) as s:
        engine = FakeEngine()
        engine.holds["build"] = asyncio.Event()
        config = replace(CONFIG, supersede=False)
        at_work = await ship(s, config)
        async with running(await s.worker("w", engine)):
            await s.until(lambda: "build/build/0" in engine.keys(at_work))
            waiting = await ship(s, config)
            await s.journal.request(waiting, "abort")
            await s.ended(waiting)
            assert (await s.find(at_work)).state is State.EXECUTING
            engine.holds["build"].set()
            await s.ended(at_work)
        aborted = await s.find(waiting)
        assert (aborted.state, aborted.outcome) == (State.CANCELLATION, "aborted")
        assert (await s.find(at_work)).outcome == "promoted"


async def test_what_failed_is_tried_again_from_there(tmp_path: Path, store: Store) -> None:
    async with stage(tmp_path, store) as s:
        engine = FakeEngine()
        engine.fails["acceptance"] = [Invalid("wrong")]
        async with running(await s.worker("w", engine)):
            first = await ship(s)
            await s.ended(first)
            second = await shipping(s).queue.again(first, "")
            third = await shipping(s).queue.again(first, None)
            with pytest.raises(Invalid, match="no stage 'nothing'") as caught:
                await shipping(s).queue.again(first, "nothing")
            assert "acceptance" in caught.value.next_move
            await s.ended(second, third)
            with pytest.raises(Invalid, match="no stage of it failed"):
                await shipping(s).queue.again(second, "")
        tried, whole = await found(s, second, third)
        assert (tried.outcome, whole.outcome) == ("promoted", "promoted")
        assert tried.header.retries == first
        assert not {"build/build/0", "tests/suite/0", "scan/scan/0"} & set(engine.keys(second))
        assert {"begin/begin/0", "acceptance/acceptance/0"} <= set(engine.keys(second))
        assert "build/build/0" in engine.keys(third)
        again = await shipping(s).queue.again(second, "tests")
        kept = [record.intent.stage for record in (await s.find(again)).records]
        assert kept == ["build", "scan"]


async def test_an_old_change_that_is_tried_again_makes_no_newer_one_needless(
    tmp_path: Path, store: Store
) -> None:
    async with stage(tmp_path, store) as s:
        old = await ship(s)
        async with running(await s.worker("w", FakeEngine())):
            await s.ended(old)
        newer = await ship(s)
        again = await shipping(s).queue.again(old, None)
        async with running(await s.worker("w2", FakeEngine())):
            await s.ended(newer, again)
        assert [delivery.outcome for delivery in await found(s, newer, again)] == ["promoted"] * 2


async def test_what_has_not_ended_or_is_a_rollback_is_not_repeated(tmp_path: Path, store: Store) -> None:
    async with stage(tmp_path, store) as s:
        waiting, back = await ship(s), await ship(s, kind="rollback")
        with pytest.raises(Conflict, match="still pending"):
            await shipping(s).queue.again(waiting, None)
        with pytest.raises(Invalid, match="rollback"):
            await shipping(s).queue.again(back, None)
