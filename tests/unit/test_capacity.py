"""Copies before users: what each action asks for, in which order, and what it does if it does not get it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from fakes.copies import DATA, FENCE, NEW, STABLE, Images, scene
from penstock.actions import deploy
from penstock.core.digest import digest
from penstock.core.pipeline import State
from penstock.core.release import Release
from penstock.core.scaleconfig import WarmConfig
from penstock.core.traffic import WHOLE, Weight
from penstock.core.workload import Later, Scaling

AUTO = Scaling(most=8, in_flight=10)


@pytest.mark.parametrize(("mirror", "copies"), [(0.0, 1), (20.0, 1), (30.0, 2), (100.0, 4)])
async def test_a_dark_release_has_what_it_needs(mirror: float, copies: int) -> None:
    async with scene(mirror=mirror) as s:
        assert (await s.deploy()).state is State.SUCCESS
        assert await s.count(NEW) == (copies, copies, ())


async def test_copies_follow_the_share_and_go_first() -> None:
    async with scene() as s:
        await s.deploy()
        reasons = [(await s.shift(share)).reason for share in (1, 250, 251, 500)]
        assert [reason.rpartition(", ")[2] for reason in reasons] == [
            "1 copy ready",
            "1 copy ready",
            "2 copies ready",
            "2 copies ready",
        ]
        await s.promote()
        got = [(share, ready) for release, share, ready in s.router.moves if release == NEW.id]
        assert got == sorted(got), "more with each step"
        assert all(ready >= -(-4 * share // WHOLE) for share, ready in got)
        assert got[-1] == (WHOLE, 4)
        kept = [ready for release, _, ready in s.router.moves if release == STABLE.id]
        assert set(kept) == {4}, "and stable keeps its own"


async def test_the_same_step_again_asks_for_nothing_more() -> None:
    async with scene() as s:
        await s.deploy()
        for _ in range(3):
            await s.shift(500)
        assert await s.count(NEW) == (2, 2, ())


@pytest.mark.parametrize(("replicas", "copies"), [(1, 1), (4, 4), (1, 5)])
async def test_one_delivery_after_another_does_not_add_up(replicas: int, copies: int) -> None:
    """All of them inside the time in which the replaced release keeps its copies. Load may have made some."""
    live = STABLE
    async with scene(replicas=replicas, copies=copies, scaling=AUTO, warm=WarmConfig(bake_seconds=1e6)) as s:
        for number in range(5):
            new = Release("shop", "production", digest(b"%d" % (10 + number)), DATA.digest)
            await s.ship(new, live, 100, 500)
            assert (await s.count(new))[:2] == (copies, copies), number
            live = new


async def test_what_is_replaced_is_full_for_a_while_and_warm_after_that() -> None:
    async with scene(warm=WarmConfig(bake_seconds=1e6, replicas=2, seconds=1e7)) as s:
        await s.deploy()
        outcome = await s.promote()
        assert f"; {STABLE.id} keeps 4 copies, 2 after 1e+06 s, 0 after 1.1e+07 s" in outcome.reason
        assert await s.count(STABLE) == (4, 4, (Later(2, 1e6), Later(0, 1.1e7)))


async def test_one_copy_stays_as_it_is() -> None:
    async with scene(replicas=1, copies=1) as s:
        await s.deploy()
        before = len(s.platform.fences)
        outcome = await s.promote()
        assert (outcome.state, "cop" in outcome.reason) == (State.SUCCESS, False)
        assert len(s.platform.fences) == before, "nothing is asked of the platform"


async def test_a_rollback_asks_for_all_copies_before_users_come_back() -> None:
    """It had been let go down to one: the fewest that were ready while it had users is what counts."""
    async with scene(warm=WarmConfig(bake_seconds=0.0)) as s:
        await s.deploy()
        await s.promote()
        async with asyncio.timeout(10):
            while (await s.placement(STABLE)).asked != 1:
                await asyncio.sleep(0.001)
        await s.platform.resize(STABLE.id, 1)
        state = await s.router.read("shop", "production")
        await s.router.apply(state.exposing((await s.placement(STABLE)).backend), fence=FENCE)
        s.router.moves.clear()
        outcome = await s.restore()
        got = [(share, ready) for release, share, ready in s.router.moves if release == STABLE.id]
        assert (outcome.state, got) == (State.SUCCESS, [(WHOLE, 4)])
        assert await s.count(STABLE) == (4, 4, ())
        assert (await s.count(NEW))[1:] == (4, (Later(1, 0.0),))


async def test_a_rollback_takes_back_what_was_said_for_later() -> None:
    async with scene(warm=WarmConfig(bake_seconds=1e6)) as s:
        await s.deploy()
        await s.promote()
        assert (await s.count(STABLE))[2]
        await s.restore()
        assert await s.count(STABLE) == (4, 4, ())


async def test_an_abort_gives_a_stable_release_that_load_has_shrunk_copies_for_everybody() -> None:
    async with scene(replicas=1, copies=6, scaling=AUTO) as s:
        await s.deploy()
        await s.shift(500)
        assert (await s.count(NEW))[0] == 3, "of as many as serve them all so far"
        await s.platform.resize(STABLE.id, 2)  # its load has halved, and more
        state = await s.router.read("shop", "production")
        await s.router.apply(state.exposing((await s.placement(STABLE)).backend), fence=FENCE)
        s.router.moves.clear()
        await s.undo()
        back = [(share, ready) for release, share, ready in s.router.moves if release == STABLE.id]
        assert {ready for share, ready in back if share == WHOLE} == {5}, "as many as both had"
        assert await s.count(STABLE) == (5, 5, (Later(1, 300.0),))


async def test_an_abort_before_anybody_saw_the_new_release_asks_for_nothing() -> None:
    async with scene(replicas=1, copies=6, scaling=AUTO) as s:
        await s.deploy()
        await s.undo()
        assert await s.count(STABLE) == (6, 6, (Later(1, 300.0),))
        assert [ready for release, _, ready in s.router.moves if release == STABLE.id][-1] == 6


async def test_users_do_not_move_to_copies_that_never_become_ready() -> None:
    async with scene() as s:
        await s.placed(NEW, 1)
        ready = await s.until_ready(NEW)
        state = await s.router.read("shop", "production")
        await s.router.apply(state.exposing(ready.backend), fence=FENCE)
        s.platform.change(NEW.id, "deaf")
        outcome = await s.shift(500)
        assert (outcome.state, outcome.reason.partition(":")[0]) == (
            State.FAILURE,
            f"{NEW.id} has 1 of 2 copies ready",
        )
        assert (await s.router.read("shop", "production")).weights == (Weight(STABLE.id, WHOLE),)


async def test_a_bad_release_does_not_keep_its_users_for_want_of_copies_of_the_good_one() -> None:
    async with scene(replicas=2, copies=2) as s:
        await s.deploy()
        await s.shift(500)
        await s.platform.scale(STABLE.id, 1, fence=FENCE)
        state = await s.router.read("shop", "production")
        await s.router.apply(state.exposing((await s.placement(STABLE)).backend), fence=FENCE)
        s.platform.change(STABLE.id, "deaf")
        outcome = await s.undo()
        assert outcome.state is State.SUCCESS
        assert f"; {STABLE.id} has 1 of 2 copies ready" in outcome.reason
        assert (await s.router.read("shop", "production")).weights == (Weight(STABLE.id, WHOLE),)


async def test_a_rollback_starts_again_what_had_no_copy_left() -> None:
    async with scene(replicas=1, copies=1, warm=WarmConfig(bake_seconds=0.0, replicas=0)) as s:
        await s.deploy()
        outcome = await s.promote()
        assert f"; {STABLE.id} keeps 1 copy, 0 after 0 s" in outcome.reason
        async with asyncio.timeout(10):
            while (await s.placement(STABLE)).asked:
                await asyncio.sleep(0.001)
        await s.platform.resize(STABLE.id, 0)
        state = await s.router.read("shop", "production")
        await s.router.apply(state.exposing((await s.placement(STABLE)).backend), fence=FENCE)
        task = replace(s.task("restore"), release=STABLE, baseline=NEW)
        deployed = await deploy.perform(
            task, platform=s.platform, router=s.router, artifacts=Images(s.config)
        )
        assert deployed.state is State.SUCCESS, deployed.reason
        await s.restore()
        state = await s.router.read("shop", "production")
        assert state.weights == (Weight(STABLE.id, WHOLE),)
        assert await s.count(STABLE) == (1, 1, ())


def test_what_is_kept_warm() -> None:
    warm = WarmConfig(bake_seconds=60.0, replicas=1, seconds=0.0)
    assert (warm.afterwards(4), warm.afterwards(1), warm.afterwards(0)) == ((Later(1, 60.0),), (), ())
    assert replace(warm, seconds=9.0).afterwards(1) == (Later(0, 69.0),)
    assert replace(warm, replicas=0, seconds=9.0).afterwards(1) == (Later(0, 60.0),)
