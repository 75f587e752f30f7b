"""Traffic plans made from a fresh reading, for actions that wait.

Shared by actions that wait while a release drains; not an action. Meanwhile the node may start or end copies
of other releases, and a plan made from the old reading would send users to addresses that are gone.
"""

from __future__ import annotations

from collections.abc import Callable

from penstock.core.traffic import TrafficPlan, TrafficState
from penstock.ports import Router, Task


async def change(task: Task, router: Router, to: Callable[[TrafficState], TrafficPlan]) -> TrafficState:
    """Read what the data plane does, and make it do what *to* makes of that; nothing if it does."""
    state = await router.read(task.change.service, task.change.environment)
    if (plan := to(state)) != state.plan:
        state = await router.apply(plan, fence=task.fence)
    return state
