"""Copies before users: what each action asks for, in which order, and what it does if it does not get it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.platform import FakePlatform
from fakes.router import FakeRouter
from penstock.actions import deploy, promote, rollback, shift
from penstock.config import ServiceConfig
from penstock.core.digest import digest
from penstock.core.fence import Fence
from penstock.core.pipeline import Intent, State
from penstock.core.release import Artifact, Change, EnvironmentData, Release
from penstock.core.scaleconfig import WarmConfig
from penstock.core.traffic import WHOLE, TrafficPlan, Weight
from penstock.core.trafficconfig import TrafficConfig
from penstock.core.workload import Afterwards, Later, Placement, Scaling, Workload
from penstock.errors import Unavailable
from penstock.ports import Image, Outcome, Surplus, Task

FENCE = Fence("shop/production", 1, "shop-1/stage/verb/0")
DATA = EnvironmentData("shop", "production")
STABLE, NEW = (Release("shop", "production", digest(name), DATA.digest) for name in (b"1", b"2"))
AUTO = Scaling(most=8, in_flight=10)


class Watched(FakeRouter):
    """Notes, for each plan, how many copies of a release were ready when it got a share."""

    def __init__(self) -> None:
        super().__init__()
        self.moves: list[tuple[str, int, int]] = []

    async def apply(self, plan: TrafficPlan, *, fence: Fence):  # type: ignore[no-untyped-def]
        state = await super().apply(plan, fence=fence)
        self.moves += [(w.release, w.share, state.proven(w.release)) for w in state.weights]
        return state


class Scene:
    """The stable release has everybody, with *copies*; a new one is on its way. Time passes by itself."""

    def __init__(self, config: ServiceConfig) -> None:
        self.config = config
        self.router, self.platform = Watched(), FakePlatform()

    async def tend(self) -> None:
        while True:
            await self.platform.tend()
            for release in (STABLE, NEW):
                placement = await self.platform.observe(release.id)
                ready = placement.backend.addresses[: placement.able] if placement else ()
                self.router.up.update(ready)
            await asyncio.sleep(0.001)

    async def serving(self, copies: int) -> None:
        await self.placed(STABLE, self.config.replicas)
        await self.platform.resize(STABLE.id, copies)
        placement = await self.until_ready(STABLE)
        plan = TrafficPlan("shop", "production", (placement.backend,), (Weight(STABLE.id, WHOLE),))
        await self.router.apply(plan, fence=FENCE)

    async def placed(self, release: Release, begin_with: int, life: str = "serve") -> None:
        workload = Workload(
            "shop",
            "production",
            release.id,
            release.artifact,
            (life,),
            replicas=self.config.replicas,
            scaling=self.config.scaling,
            begin_with=begin_with,
            start_seconds=5.0,
        )
        await self.platform.place(workload, fence=FENCE)

    async def until_ready(self, release: Release) -> Placement:
        async with asyncio.timeout(10):
            while not (found := await self.placement(release)).ready or any(
                address not in self.router.up for address in found.backend.addresses
            ):
                await asyncio.sleep(0.001)
        return found

    async def placement(self, release: Release) -> Placement:
        found = await self.platform.observe(release.id)
        assert found is not None
        return found

    async def count(self, release: Release) -> tuple[int, int, Afterwards]:
        found = await self.placement(release)
        return len(found.instances), found.asked, found.later

    def task(self, verb: str, share: int = 0) -> Task:
        kind = "rollback" if verb == "restore" else "code"
        change = Change(kind, "shop", "production", "/repo", "1" * 40, "Dana", "A change")  # type: ignore[arg-type]
        return Task(
            delivery="shop-1",
            intent=Intent(verb, verb, share=share),
            change=change,
            config=self.config,
            fence=FENCE,
            work=Path("/work"),
            log=Path("/log"),
            data=DATA,
            artifact=Artifact("shop", NEW.artifact),
            release=NEW,
            baseline=STABLE,
        )

    async def deploy(self, verb: str = "deploy") -> Outcome:
        return await deploy.perform(
            self.task(verb), platform=self.platform, router=self.router, artifacts=Images(self.config)
        )

    async def shift(self, share: int) -> Outcome:
        return await shift.perform(self.task("shift", share), router=self.router, platform=self.platform)

    async def promote(self) -> Outcome:
        return await promote.perform(self.task("promote"), router=self.router, platform=self.platform)

    async def undo(self) -> Outcome:
        return await rollback.undo(
            self.task("rollback"), router=self.router, platform=self.platform, metrics=self.router
        )

    async def restore(self) -> Outcome:
        """Back from the new release to the stable one."""
        task = replace(self.task("restore"), release=STABLE, baseline=NEW)
        return await rollback.restore(task, router=self.router, platform=self.platform)


class Images:
    def __init__(self, config: ServiceConfig) -> None:
        self._config = config

    async def describe(self, artifact: str) -> Image:
        return Image(("serve",), self._config)

    async def prune(self, keep: object, before: float, *, dry: bool = False) -> Surplus:
        raise AssertionError("nobody tidies here")


@contextlib.asynccontextmanager
async def scene(
    replicas: int = 4,
    copies: int = 4,
    scaling: Scaling | None = None,
    warm: WarmConfig | None = None,
    mirror: float = 0.0,
) -> AsyncIterator[Scene]:
    made = Scene(
        ServiceConfig(
            service="shop",
            replicas=replicas,
            scaling=scaling or Scaling(),
            warm=warm or WarmConfig(),
            traffic=TrafficConfig(mirror=mirror),
            start_seconds=5.0,
        )
    )
    tending = asyncio.create_task(made.tend())
    try:
        await made.serving(copies)
        yield made
    finally:
        tending.cancel()
        await asyncio.gather(tending, return_exceptions=True)


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


class CutOff(FakePlatform):
    """Scales once, and then cannot be reached for that call."""

    cut = True

    async def scale(self, release: str, replicas: int, *, fence: Fence, then: Afterwards = ()) -> Placement:
        placement = await super().scale(release, replicas, fence=fence, then=then)
        if self.cut:
            self.cut = False
            raise Unavailable("cut off")
        return placement


async def test_a_promotion_that_is_cut_off_while_it_scales_can_be_gone_on_with() -> None:
    async with scene() as s:
        await s.deploy()
        cut = CutOff()
        cut._releases = s.platform._releases
        with pytest.raises(Unavailable):
            await promote.perform(s.task("promote"), router=s.router, platform=cut)
        outcome = await promote.perform(s.task("promote"), router=s.router, platform=cut)
        assert outcome.state is State.SUCCESS
        assert (await s.count(NEW), (await s.count(STABLE))[2]) == ((4, 4, ()), (Later(1, 300.0),))


def test_what_is_kept_warm() -> None:
    warm = WarmConfig(bake_seconds=60.0, replicas=1, seconds=0.0)
    assert (warm.afterwards(4), warm.afterwards(1), warm.afterwards(0)) == ((Later(1, 60.0),), (), ())
    assert replace(warm, seconds=9.0).afterwards(1) == (Later(0, 69.0),)
    assert replace(warm, replicas=0, seconds=9.0).afterwards(1) == (Later(0, 60.0),)
