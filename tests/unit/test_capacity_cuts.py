"""Copies before users, also where an action is cut off anywhere and somebody else goes on with it."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import pytest

from fakes.copies import NEW, STABLE, Scene, scene
from penstock.actions import promote, rollback, shift
from penstock.core.fence import Fence
from penstock.core.pipeline import State
from penstock.core.scaleconfig import WarmConfig
from penstock.core.traffic import WHOLE, Counters, TrafficPlan, TrafficState
from penstock.core.workload import Afterwards, Later, Placement
from penstock.errors import Unavailable
from penstock.ports import Outcome

T = TypeVar("T")


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

    async def logs(self, release: str, lines: int) -> tuple[str, ...]:
        return await self._scene.platform.logs(release, lines)

    async def apply(self, plan: TrafficPlan, *, fence: Fence) -> TrafficState:
        return await self._cut(lambda: self._scene.router.apply(plan, fence=fence))

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


VERBS: dict[str, Callable[..., Awaitable[Outcome]]] = {
    "shift": shift.perform,
    "promote": promote.perform,
    "rollback": rollback.undo,
    "restore": rollback.restore,
}


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("calls", range(4))
@pytest.mark.parametrize("verb", VERBS)
async def test_copies_go_first_wherever_it_is_cut_off_and_gone_on_with(
    verb: str, calls: int, after: bool
) -> None:
    async with scene(warm=WarmConfig(bake_seconds=1e6)) as s:
        await s.deploy()
        if verb != "shift":
            await s.shift(250)
        if verb == "restore":
            await s.promote()
        task = (
            replace(s.task(verb, 500), release=STABLE, baseline=NEW)
            if verb == "restore"
            else s.task(verb, 500)
        )
        for cut in (Cut(s, calls, after=after), Cut(s, 99, after=after)):
            asked = inspect.signature(VERBS[verb]).parameters.values()
            powers = {p.name: cut for p in asked if p.kind is inspect.Parameter.KEYWORD_ONLY}
            with contextlib.suppress(Unavailable):
                outcome = await VERBS[verb](task, **powers)
        assert outcome.state is State.SUCCESS
        assert all(ready >= -(-4 * share // WHOLE) for _, share, ready in s.router.moves)
        state = await s.router.read("shop", "production")
        wanted = {"shift": {STABLE: 500, NEW: 500}, "promote": {NEW: WHOLE}}.get(verb, {STABLE: WHOLE})
        assert {w.release: w.share for w in state.weights} == {one.id: share for one, share in wanted.items()}
        rests = {"promote": STABLE, "restore": NEW}.get(verb)
        for release in (STABLE, NEW) if verb != "rollback" else (STABLE,):
            later = (Later(1, 1e6),) if release == rests else ()
            copies = 2 if (verb, release) == ("shift", NEW) else 4
            assert await s.count(release) == (copies, copies, later)
