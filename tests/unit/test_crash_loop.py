"""A new release that keeps ending is a failed check with its own last words: neither a timeout nor a pass."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.platform import FakePlatform
from fakes.router import FakeRouter
from fakes.sandbox import FakeSandbox
from penstock.actions import promote
from penstock.adapters.processes.record import Place, Record, as_instance
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
from penstock.core.workload import Isolation, Phase, Placement, Workload
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
    outcome = await canary.look(looked, metrics=town.router, platform=town.platform)
    assert outcome.state is State.FAILURE
    assert "hello ***" in outcome.reason
    look = said(outcome.statements)
    assert isinstance(look, Look)
    assert outcome.reason == look.explanation


def test_one_that_ends_every_ten_seconds_is_seen_though_it_is_ready_for_a_while_in_between(
    tmp_path: Path,
) -> None:
    now, record, place = time.time(), Record("0"), Place(tmp_path, tmp_path, tmp_path)
    for seconds in (75.0, 45.0, 34.0, 23.0):
        record.phase, record.ready_since, record.exit_code = Phase.READY, now - 100.0, 1
        before = Placement("shop-1", (as_instance(record, place, Isolation.NONE),))
        assert not before.verdict, f"not before it ended {seconds:g} s ago"
        record.end(now - seconds)
        assert record.crashes == 1, "in a row it is one"
    record.phase = Phase.READY
    placement = Placement("shop-1", (as_instance(record, place, Isolation.NONE),))
    assert placement.unrest == "keeps ending: exit 1, 3 times in the last minute"
    record.ends = [now + 3600.0] * 9
    assert not as_instance(record, place, Isolation.NONE).recent, "the clock was set back"


async def test_a_first_release_that_keeps_ending_is_not_promoted() -> None:
    town = Town()
    await town.open(crashes=3)
    first = replace(task(), intent=Intent("promote", "promote"), baseline=None)
    outcome = await promote.perform(first, router=town.router, platform=town.platform)
    assert outcome.state is State.FAILURE
    assert outcome.reason.startswith(f"{NEW.id} keeps ending (3 restarts of one instance): ")
    assert outcome.reason.endswith("no traffic was moved")
    assert "hello ***" in outcome.reason
    assert (await town.router.read("shop", "production")).share(NEW.id) == 0


def said(statements: tuple[Statement, ...]) -> object:
    (statement,) = statements
    return statement.predicate
