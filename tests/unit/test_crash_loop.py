"""A new release that keeps ending is a failed check with its own last words: neither a timeout nor a pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fakes.platform import FakePlatform
from fakes.router import FakeRouter
from fakes.sandbox import FakeSandbox
from penstock.checks import acceptance, canary
from penstock.checks.consumers import Demand
from penstock.config import AcceptanceConfig, ServiceConfig
from penstock.core.digest import digest
from penstock.core.evidence import Statement
from penstock.core.fence import Fence
from penstock.core.pipeline import Canary, Intent, Measured, State
from penstock.core.predicates import Accepted, Look
from penstock.core.release import Artifact, Change, EnvironmentData, Release
from penstock.core.traffic import WHOLE, Backend, TrafficPlan, Weight
from penstock.core.workload import Workload
from penstock.errors import Unavailable
from penstock.ports import Task

FENCE = Fence("shop/production", 1, "shop-1/acceptance/acceptance/0")
DATA = EnvironmentData("shop", "production", {"KEY": "from the workload"}, secret=("KEY",))
STABLE, NEW = (Release("shop", "production", digest(name), DATA.digest) for name in (b"1", b"2"))


class Nobody:
    """Nobody demands anything."""

    async def of(self, service: str, environment: str) -> tuple[Demand, ...]:
        return ()

    async def by(self, artifact: str) -> tuple[Demand, ...]:
        return ()


class Town:
    def __init__(self) -> None:
        self.router, self.platform = FakeRouter(), FakePlatform()

    async def open(self, *, crashes: int) -> None:
        """Both releases are known to the proxy and ready; the new one has ended *crashes* times."""
        backends = []
        for release in (STABLE, NEW):
            workload = Workload("shop", "production", release.id, release.artifact, ("serve",))
            placed = await self.platform.place(workload, fence=FENCE)
            backends.append(Backend(release.id, placed.backend.addresses))
            self.router.up.update(placed.backend.addresses)
        await self.platform.tend()
        for _ in range(crashes):
            self.platform.ask(backends[1].addresses[0], "/crash")
            await self.platform.tend()
        plan = TrafficPlan("shop", "production", tuple(backends), (Weight(STABLE.id, WHOLE),))
        await self.router.apply(plan, fence=FENCE)

    def down(self) -> None:
        self.router.up = {address for address in self.router.up if NEW.id not in address}

    async def accept(self):  # type: ignore[no-untyped-def]
        return await acceptance.perform(
            task(),
            router=self.router,
            metrics=self.router,
            demands=Nobody(),
            platform=self.platform,
            sandbox=FakeSandbox(),
            tools=None,  # type: ignore[arg-type]
        )


def task() -> Task:
    return Task(
        delivery="shop-1",
        intent=Intent("acceptance", "acceptance"),
        change=Change("code", "shop", "production", "/repo", "1" * 40, "Dana", "A change"),
        config=ServiceConfig(service="shop", acceptance=AcceptanceConfig(requests=0)),
        fence=FENCE,
        work=Path("/work"),
        log=Path("/log"),
        data=DATA,
        artifact=Artifact("shop", NEW.artifact),
        release=NEW,
        baseline=STABLE,
        canary=Canary((100,), 4.0, 2.0, 4.0),
    )


@pytest.mark.parametrize("answers", [True, False])
async def test_acceptance_fails_with_the_last_words_less_secrets(answers: bool) -> None:
    town = Town()
    await town.open(crashes=3)
    if not answers:
        town.down()
    outcome = await town.accept()
    assert outcome.state is State.FAILURE
    assert "keeps ending (3 restarts of one instance)" in outcome.reason
    assert "exit code 3" in outcome.reason
    assert "hello ***" in outcome.reason
    if answers:
        accepted = said(outcome.statements)
        assert isinstance(accepted, Accepted)
        assert (accepted.failed, accepted.failed_tests) == (1, (outcome.reason,))


async def test_one_crash_is_no_verdict() -> None:
    town = Town()
    await town.open(crashes=1)
    outcome = await town.accept()
    assert outcome.state is State.SUCCESS
    assert "ended by itself: ended with exit code 3" in outcome.reason
    town.down()
    with pytest.raises(Unavailable):
        await town.accept()


async def test_a_look_ends_the_canary() -> None:
    town = Town()
    await town.open(crashes=3)
    new, stable = (await town.router.counters("shop", "production"))[::-1]
    looked = replace(task(), intent=Intent("canary", "look"), measured=Measured("measured", new, stable))
    outcome = await canary.look(looked, metrics=town.router, platform=town.platform, meters={})
    assert outcome.state is State.FAILURE
    assert "hello ***" in outcome.reason
    look = said(outcome.statements)
    assert isinstance(look, Look)
    assert outcome.reason == look.explanation


def said(statements: tuple[Statement, ...]) -> object:
    (statement,) = statements
    return statement.predicate
