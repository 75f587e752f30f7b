"""Copies before users, also where an action is cut off anywhere and somebody else goes on with it."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from fakes.copies import NEW, STABLE, Cut, scene
from penstock.actions import promote, rollback, shift
from penstock.core.pipeline import State
from penstock.core.scaleconfig import WarmConfig
from penstock.core.traffic import WHOLE
from penstock.core.workload import Later
from penstock.errors import Unavailable
from penstock.ports import Outcome

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
