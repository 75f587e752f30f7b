"""One Platform, Router, Metrics and Sandbox for an installation whose environments have places of their own:
each call goes to the driver of its environment.

Called by `target`. An environment that is not named has the usual driver. One that is away is nobody else's
trouble. A release's id does not say where it is, but what changes one does; until then it is asked for
everywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from penstock.core.admission import Refused
from penstock.core.experiment import Goal, Users
from penstock.core.fence import Fence
from penstock.core.traffic import Counters, Led, TrafficPlan, TrafficState, Visit
from penstock.core.workload import Afterwards, Placement, Step, StepResult, Workload
from penstock.ports import Hand, Metrics, Platform, Router, Sandbox

D = TypeVar("D")
T = TypeVar("T")


@dataclass(frozen=True)
class Drivers(Generic[D]):
    """The *usual* one, and those of the environments that are *named*."""

    usual: D
    named: Mapping[str, D]

    def of(self, environment: str) -> D:
        return self.named.get(environment, self.usual)

    @property
    def all(self) -> tuple[D, ...]:
        return (self.usual, *self.named.values())


@dataclass(frozen=True)
class Routers:
    """Router: that of the environment."""

    drivers: Drivers[Router]

    async def read(self, service: str, environment: str) -> TrafficState:
        return await self.drivers.of(environment).read(service, environment)

    async def apply(self, plan: TrafficPlan, *, fence: Fence) -> TrafficState:
        return await self.drivers.of(plan.environment).apply(plan, fence=fence)


@dataclass(frozen=True)
class Meterings:
    """Metrics: those of the environment."""

    drivers: Drivers[Metrics]

    async def counters(self, service: str, environment: str) -> tuple[Counters, ...]:
        return await self.drivers.of(environment).counters(service, environment)

    async def refused(self, service: str, environment: str) -> tuple[Refused, ...]:
        return await self.drivers.of(environment).refused(service, environment)

    async def led(self, service: str, environment: str) -> tuple[Led, ...]:
        return await self.drivers.of(environment).led(service, environment)

    async def visits(self, service: str, environment: str, since: float) -> tuple[Visit, ...]:
        return await self.drivers.of(environment).visits(service, environment, since)

    async def users(self, service: str, environment: str, salt: str, goal: Goal) -> Users:
        return await self.drivers.of(environment).users(service, environment, salt, goal)


class Sandboxes:
    """Sandbox: that of the environment whose releases a step asks; for builds and all else, the usual one.

    A stage may have steps in both. Each sandbox ends what an earlier worker left of that stage in it.
    """

    def __init__(self, drivers: Drivers[Sandbox]) -> None:
        self.isolation = drivers.usual.isolation
        self._drivers = drivers

    def enclose(self, step: Step, *, outlives_us: bool = False, hand: Hand | None = None) -> tuple[str, ...]:
        return self._drivers.of(step.environment).enclose(step, outlives_us=outlives_us, hand=hand)

    async def run(self, step: Step, log: Path) -> StepResult:
        return await self._drivers.of(step.environment).run(step, log)


@dataclass(frozen=True)
class Platforms:
    """Platform: that of the environment, as a workload or a fence names it."""

    drivers: Drivers[Platform]
    #: Where releases are that were asked about.
    known: dict[str, Platform] = field(default_factory=dict)

    async def place(self, workload: Workload, *, fence: Fence) -> Placement:
        platform = self.known[workload.release] = self.drivers.of(workload.environment)
        return await platform.place(workload, fence=fence)

    async def observe(self, release: str) -> Placement | None:
        return await self._asked(release, lambda platform: platform.observe(release))

    async def scale(self, release: str, replicas: int, *, fence: Fence, then: Afterwards = ()) -> Placement:
        return await self._changing(release, fence).scale(release, replicas, fence=fence, then=then)

    async def remove(self, release: str, *, fence: Fence) -> None:
        await self._changing(release, fence).remove(release, fence=fence)

    async def logs(self, release: str, lines: int) -> tuple[str, ...]:
        return await self._asked(release, lambda platform: platform.logs(release, lines)) or ()

    def _changing(self, release: str, fence: Fence) -> Platform:
        platform = self.known[release] = self.drivers.of(fence.scope.rpartition("/")[2])
        return platform

    async def _asked(self, release: str, ask: Callable[[Platform], Coroutine[Any, Any, T]]) -> T | None:
        """What the first says that knows something. One that cannot be asked might have been the one."""
        if release in self.known:
            return await ask(self.known[release])
        asking = {asyncio.ensure_future(ask(platform)): platform for platform in self.drivers.all}
        troubles: list[BaseException] = []
        try:
            while asking:
                done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
                answers = {asking.pop(task): task for task in done}
                troubles += [error for task in answers.values() if (error := task.exception())]
                for platform, task in answers.items():
                    if not task.exception() and (found := task.result()):
                        self.known[release] = platform
                        return found
        finally:
            for task in asking:
                task.cancel()
        if troubles:
            raise troubles[0]
        return None
