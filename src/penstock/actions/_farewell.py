"""Removes releases that have no users any more, without cutting off requests that are still in flight.

Shared by the actions that end a release; not an action. After a crash all of it is done again. The proxy
forgets a release last, so until then the proxy tells what is still to be removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from penstock.actions._afresh import change
from penstock.core.traffic import TrafficPlan, TrafficState
from penstock.ports import Platform, Router, Task


async def take_away(task: Task, releases: Sequence[str], router: Router, platform: Platform) -> str:
    """Out of the proxy, ended and removed, whatever of it there is. Gives back what was cut off, in words."""
    cut = [await _end(task, release, router, platform) for release in releases]
    await change(task, router, lambda state: state.without(*releases))
    return "".join(cut)


async def _end(task: Task, release: str, router: Router, platform: Platform) -> str:
    # Out of the proxy first: what is in flight goes on, idle connections are closed, and an instance that
    # waits for those can end. It may still call its neighbours: what is in flight may need them.
    await change(task, router, lambda state: _out(state, release))
    cut = ""
    if await platform.observe(release) is not None:
        drained = await platform.scale(release, 0, fence=task.fence)
        cut = f"; {drained.reason}" if drained.reason else ""
    # The proxy must not listen where a removed release had its sockets.
    await change(task, router, lambda state: _out(state, release, calls=False))
    await platform.remove(release, fence=task.fence)
    return cut


def _out(state: TrafficState, release: str, *, calls: bool = True) -> TrafficPlan:
    """Nothing new for a release; and without *calls*, nothing from it."""
    known = next((known.backend for known in state.backends if known.release == release), None)
    if known is None:
        return state.plan
    return state.exposing(replace(known, addresses=(), draining=(), egress=known.egress if calls else ()))
