"""A service with a stable release that has everybody, and a new one on its way: for tests of actions.

Platform and router are the fakes, and time passes by itself. Must not know what a test wants of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from fakes.platform import FakePlatform
from fakes.router import FakeRouter
from penstock.actions import deploy, promote, rollback, shift
from penstock.config import ServiceConfig
from penstock.core.digest import digest
from penstock.core.fence import Fence
from penstock.core.pipeline import NO_CANARY, Intent
from penstock.core.release import Artifact, Change, EnvironmentData, Release
from penstock.core.scaleconfig import WarmConfig
from penstock.core.traffic import WHOLE, Counters, TrafficPlan, TrafficState, Weight
from penstock.core.trafficconfig import TrafficConfig
from penstock.core.workload import Afterwards, Placement, Scaling, Workload
from penstock.errors import Unavailable
from penstock.ports import Image, Outcome, Surplus, Task

T = TypeVar("T")

FENCE = Fence("shop/production", 1, "shop-1/stage/verb/0")
DATA = EnvironmentData("shop", "production")
STABLE, NEW = (Release("shop", "production", digest(name), DATA.digest) for name in (b"1", b"2"))


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
        self.data = DATA
        self.canary = NO_CANARY
        self.log = Path("/nowhere/log")
        self.router, self.platform = Watched(), FakePlatform()
        self.releases = [STABLE, NEW]

    async def tend(self) -> None:
        while True:
            await self.platform.tend()
            for release in (*(release.id for release in self.releases), STABLE.fresh):
                placement = await self.platform.observe(release)
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
            log=self.log,
            data=self.data,
            artifact=Artifact("shop", NEW.artifact),
            release=NEW,
            baseline=STABLE,
            canary=self.canary,
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

    async def ship(self, release: Release, baseline: Release, *shares: int) -> None:
        """All of a delivery that moves users, step by step."""
        self.releases.append(release)
        powers = {"router": self.router, "platform": self.platform}
        task = replace(self.task("deploy"), release=release, baseline=baseline)
        await deploy.perform(task, **powers, artifacts=Images(self.config))
        for share in shares:
            await shift.perform(replace(task, intent=Intent("shift", "shift", share=share)), **powers)
        await promote.perform(task, **powers)


class Cut:
    """Changes go through to the fakes until there were *calls* of them; then whoever made them is gone,
    before the effect or *after* it."""

    def __init__(self, scene: Scene, calls: int, *, after: bool) -> None:
        self._scene, self._left, self._after = scene, calls, after

    async def read(self, service: str, environment: str) -> TrafficState:
        return await self._scene.router.read(service, environment)

    async def counters(self, service: str, environment: str) -> tuple[Counters, ...]:
        return await self._scene.router.counters(service, environment)

    async def observe(self, release: str) -> Placement | None:
        return await self._scene.platform.observe(release)

    async def apply(self, plan: TrafficPlan, *, fence: Fence) -> TrafficState:
        return await self._cut(lambda: self._scene.router.apply(plan, fence=fence))

    async def logs(self, release: str, lines: int) -> tuple[str, ...]:
        return await self._scene.platform.logs(release, lines)

    async def place(self, workload: Workload, *, fence: Fence) -> Placement:
        return await self._cut(lambda: self._scene.platform.place(workload, fence=fence))

    async def scale(self, release: str, replicas: int, *, fence: Fence, then: Afterwards = ()) -> Placement:
        return await self._cut(lambda: self._scene.platform.scale(release, replicas, fence=fence, then=then))

    async def remove(self, release: str, *, fence: Fence) -> None:
        await self._cut(lambda: self._scene.platform.remove(release, fence=fence))

    async def _cut(self, effect: Callable[[], Awaitable[T]]) -> T:
        if self._left == 0 and not self._after:
            raise Unavailable("cut off")
        done = await effect()
        if self._left == 0:
            raise Unavailable("cut off")
        self._left -= 1
        return done


class Images:
    """Every image has this configuration, and leads one of the *lives* of the fake platform."""

    def __init__(self, config: ServiceConfig, **lives: str) -> None:
        self._config, self._lives = config, lives

    async def describe(self, artifact: str) -> Image:
        return Image((self._lives.get(artifact, "serve"),), self._config)

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
