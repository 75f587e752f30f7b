"""A promotion that is cut off anywhere leaves nothing behind once somebody has gone on with it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fakes.platform import FakePlatform
from fakes.router import FakeRouter
from penstock.actions import promote
from penstock.actions._capacity import Capacity
from penstock.config import ServiceConfig
from penstock.core.digest import digest
from penstock.core.fence import Fence
from penstock.core.pipeline import Intent, State
from penstock.core.release import Artifact, Change, EnvironmentData, Release
from penstock.core.traffic import WHOLE, Backend, Egress, TrafficPlan, Weight
from penstock.core.workload import Workload
from penstock.errors import Unavailable
from penstock.ports import Outcome, Task

FENCE = Fence("shop/production", 1, "shop-1/promote/promote/0")
DATA = EnvironmentData("shop", "production")
OLD, STABLE, NEW = (Release("shop", "production", digest(name), DATA.digest) for name in (b"1", b"2", b"3"))


class Cut:
    """Calls that go through to the fakes until there were *calls* of them; then the process is gone."""

    def __init__(self, router: FakeRouter, platform: FakePlatform, calls: int) -> None:
        self._router, self._platform, self._left = router, platform, calls

    async def read(self, service: str, environment: str):  # type: ignore[no-untyped-def]
        return await self._router.read(service, environment)

    async def apply(self, plan: TrafficPlan, *, fence: Fence):  # type: ignore[no-untyped-def]
        self._count()
        return await self._router.apply(plan, fence=fence)

    async def observe(self, release: str):  # type: ignore[no-untyped-def]
        return await self._platform.observe(release)

    async def scale(self, release: str, replicas: int, *, fence: Fence):  # type: ignore[no-untyped-def]
        self._count()
        return await self._platform.scale(release, replicas, fence=fence)

    async def remove(self, release: str, *, fence: Fence) -> None:
        self._count()
        await self._platform.remove(release, fence=fence)

    def _count(self) -> None:
        if self._left == 0:
            raise Unavailable("cut off")
        self._left -= 1


async def world() -> tuple[FakeRouter, FakePlatform]:
    """Three releases are placed and known to the proxy; the stable one has everybody."""
    router, platform = FakeRouter(), FakePlatform()
    backends = []
    for release in (OLD, STABLE, NEW):
        await platform.place(
            Workload("shop", "production", release.id, release.artifact, ("serve",)), fence=FENCE
        )
        router.up.add(f"unix:/{release.id}")
        egress = (Egress("catalog", f"unix:/{release.id}.out"),)
        backends.append(Backend(release.id, (f"unix:/{release.id}",), egress=egress))
    plan = TrafficPlan("shop", "production", tuple(backends), (Weight(STABLE.id, WHOLE),))
    await router.apply(plan, fence=FENCE)
    return router, platform


def task() -> Task:
    return Task(
        delivery="shop-1",
        intent=Intent("promote", "promote"),
        change=Change("code", "shop", "production", "/repo", "1" * 40, "Dana", "A change"),
        config=ServiceConfig(service="shop"),
        fence=FENCE,
        work=Path("/work"),
        log=Path("/log"),
        data=DATA,
        artifact=Artifact("shop", NEW.artifact),
        release=NEW,
        baseline=STABLE,
    )


async def attempt(router: FakeRouter, platform: FakePlatform, calls: int) -> Outcome:
    cut = Cut(router, platform, calls)
    return await promote.perform(task(), router=cut, platform=cut)  # type: ignore[arg-type]


@pytest.mark.parametrize("calls", range(6))
async def test_nothing_stays_placed_that_the_proxy_has_forgotten(calls: int) -> None:
    router, platform = await world()
    with pytest.raises(Unavailable):
        await attempt(router, platform, calls)
    await attempt(router, platform, 99)
    state = await router.read("shop", "production")
    assert state.share(NEW.id) == WHOLE
    assert {backend.release for backend in state.backends} == {STABLE.id, NEW.id}
    assert await platform.observe(OLD.id) is None
    assert await platform.observe(STABLE.id) is not None


async def test_the_proxy_does_not_listen_where_a_removed_release_was() -> None:
    router, platform = await world()
    with pytest.raises(Unavailable):
        await attempt(router, platform, 5)  # not what makes the proxy forget
    assert await platform.observe(OLD.id) is None
    (old,) = [b for b in (await router.read("shop", "production")).backends if b.release == OLD.id]
    assert old.backend.egress == ()


async def test_the_only_copy_is_waited_for_while_it_comes_back() -> None:
    """As where a cluster has just moved it: it comes back at another address."""
    router, platform = await world()
    router.up.discard(f"unix:/{NEW.id}")
    placed = await platform.observe(NEW.id)
    assert placed is not None
    (copy,) = placed.instances

    async def come_back() -> None:
        await asyncio.sleep(0.01)
        router.up.add(copy.address)
        await platform.tend()

    coming = asyncio.ensure_future(come_back())
    outcome = await promote.perform(task(), router=router, platform=platform)
    await coming
    assert outcome.state is State.SUCCESS, outcome.reason
    state = await router.read("shop", "production")
    known = {backend.release: backend.backend.addresses for backend in state.backends}
    assert (state.share(NEW.id), known[NEW.id]) == (WHOLE, (copy.address,))


async def test_a_copy_that_does_not_come_back_gets_no_users() -> None:
    router, platform = await world()
    router.up.discard(f"unix:/{NEW.id}")
    await platform.tend()
    state = await router.read("shop", "production")
    given = await Capacity(task(), router, platform, patience=0.2).give(NEW.id, WHOLE, state)
    assert given.lacking == f"{NEW.id} does not answer the proxy any more"
