"""Environments with drivers of their own: each call goes to one of them, and what is away is nobody else's
trouble."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fakes.platform import FakePlatform
from fakes.router import FakeRouter
from fakes.sandbox import FakeSandbox
from penstock.bootstrap import target as targets
from penstock.bootstrap.environments import Drivers, Meterings, Platforms, Routers, Sandboxes
from penstock.bootstrap.target import Target
from penstock.core.fence import Fence
from penstock.core.traffic import Backend, TrafficState, Weight
from penstock.core.workload import Placement, Step, Workload
from penstock.errors import Unavailable


class Away(FakePlatform):
    """A cluster that does not answer, or only after everybody else."""

    def __init__(self, slow: bool = False) -> None:
        super().__init__()
        self.slow = slow
        self.asked = 0

    async def observe(self, release: str) -> Placement | None:
        self.asked += 1
        if self.slow:
            await asyncio.Event().wait()
        raise Unavailable("no answer", where="us")


def workload(environment: str, release: str) -> Workload:
    return Workload("web", environment, release, "sha256:" + "0" * 64, ("serve",))


def fence(environment: str) -> Fence:
    return Fence(f"web/{environment}", 1, "key")


async def test_a_release_is_where_its_environment_is() -> None:
    usual, us = FakePlatform(), FakePlatform()
    platforms = Platforms(Drivers(usual, {"us": us}))
    for environment in ("us", "production", "dev"):
        release = f"web-{environment}"
        await platforms.place(workload(environment, release), fence=fence(environment))
        own, other = (us, usual) if environment == "us" else (usual, us)
        assert await own.observe(release) == await platforms.observe(release) is not None
        assert await other.observe(release) is None
    # Another process has not seen where they were placed.
    platforms = Platforms(Drivers(usual, {"us": us}))
    assert await platforms.observe("web-us") == await us.observe("web-us")
    await platforms.scale("web-us", 3, fence=fence("us"))
    scaled = await us.observe("web-us")
    assert scaled is not None
    assert scaled.asked == 3
    assert await platforms.logs("web-us", 5) == await us.logs("web-us", 5) != ()
    await platforms.remove("web-us", fence=fence("us"))
    assert await us.observe("web-us") is None
    assert await usual.observe("web-production") is not None


@pytest.mark.parametrize("slow", [False, True])
async def test_a_cluster_that_is_away_does_not_hide_what_another_has(slow: bool) -> None:
    usual, away = FakePlatform(), Away(slow)
    await usual.place(workload("production", "web-1"), fence=fence("production"))
    platforms = Platforms(Drivers(usual, {"us": away}))
    async with asyncio.timeout(20):
        for _ in range(3):
            assert await platforms.observe("web-1") is not None
    assert away.asked == 1, "it is known by now where that one is"


async def test_what_nobody_has_may_be_where_nobody_answers() -> None:
    platforms = Platforms(Drivers(FakePlatform(), {"us": Away()}))
    with pytest.raises(Unavailable, match="no answer"):
        await platforms.observe("web-1")
    # What is to be changed names its environment: then nobody else is asked.
    await platforms.remove("web-1", fence=fence("production"))
    assert await platforms.observe("web-1") is None


async def test_users_of_an_environment_are_led_and_counted_where_it_is() -> None:
    usual, us = FakeRouter(), FakeRouter()
    us.up.add("unix:/us")
    routers, counts = Routers(Drivers(usual, {"us": us})), Meterings(Drivers(usual, {"us": us}))
    plan = TrafficState("web", "us").exposing(Backend("web-1", ("unix:/us",)))
    state = await routers.apply(plan, fence=fence("us"))
    state = await routers.apply(state.shifting(Weight("web-1", 1000)), fence=fence("us"))
    assert us.ask(state.address, {}, "/")[:2] == (200, "web-1")
    assert await routers.read("web", "us") == await us.read("web", "us") == state
    assert [found.requests for found in await counts.counters("web", "us")] == [1]
    assert await routers.read("web", "production") == TrafficState("web", "production")
    assert await counts.counters("web", "production") == ()


async def test_a_step_that_asks_an_environment_runs_where_that_is(tmp_path: Path) -> None:
    usual, us = FakeSandbox(), FakeSandbox()
    sandboxes = Sandboxes(Drivers(usual, {"us": us}))
    build, asks_us, asks_eu = (Step(("true",), "/", environment=name) for name in ("", "us", "eu"))
    for step in (build, asks_us, asks_eu):
        await sandboxes.run(step, tmp_path / "acceptance.log")
        assert sandboxes.enclose(step) == step.argv
    assert (usual.steps, us.steps) == ([build, asks_eu], [asks_us])


async def test_each_place_is_looked_after_whatever_the_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "LOOK_SECONDS", 0.001)
    looked = asyncio.Semaphore(0)

    async def hangs() -> None:
        await asyncio.Event().wait()

    async def fails() -> None:
        raise Unavailable("no answer", where="eu")

    async def looks() -> None:
        looked.release()

    router = FakeRouter()
    target = Target(router, router, FakePlatform(), {}, tend=(hangs, fails, looks))
    task = asyncio.create_task(target.look_after())
    async with asyncio.timeout(20):
        for _ in range(3):
            await looked.acquire()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
