"""Plans of what is there now, for actions that take their time.

Shared by those that wait while a release drains: meanwhile the node may have changed the copies of others,
and a plan of what was read before would bring back addresses where nobody answers any more.
"""

from __future__ import annotations

from collections.abc import Callable

from penstock.core.traffic import TrafficPlan, TrafficState
from penstock.ports import Router, Task


async def change(task: Task, router: Router, to: Callable[[TrafficState], TrafficPlan]) -> None:
    """Read what the data plane does, and make it do what *to* makes of that; nothing if it does."""
    state = await router.read(task.change.service, task.change.environment)
    if (plan := to(state)) != state.plan:
        await router.apply(plan, fence=task.fence)
