"""Promote: the new release takes all user traffic; the one that it replaces stays warm.

Called by the engine after the gate. Releases older than the replaced one are removed, so that going
back one step is always immediate and nothing piles up.
"""

from __future__ import annotations

from penstock.core.evidence import Statement, Subject
from penstock.core.pipeline import State
from penstock.core.predicates import Promoted
from penstock.core.traffic import WHOLE, Weight
from penstock.errors import Broken
from penstock.ports import Outcome, Platform, Router, Task


async def perform(task: Task, /, *, router: Router, platform: Platform) -> Outcome:
    """All traffic to the new release, confirmed; then forget what nobody will come back to."""
    release, data = task.release, task.data
    if release is None or data is None:
        raise Broken("a promotion without a release", where=task.delivery)
    state = await router.read(release.service, release.environment)
    if not state.ready(release.id):
        return Outcome(
            State.FAILURE, f"{release.id} does not answer the proxy any more: no traffic was moved"
        )
    state = await router.apply(state.shifting(Weight(release.id, WHOLE)), fence=task.fence)
    keep = {release.id} | ({task.baseline.id} if task.baseline else set())
    old = tuple(b.release for b in state.backends if b.release not in keep)
    if old:
        await router.apply(state.without(*old), fence=task.fence)
        for name in old:
            await platform.remove(name, fence=task.fence)
    promoted = Promoted(task.delivery, release, data, task.baseline)
    words = f"{release.id} has all traffic"
    return Outcome(State.SUCCESS, words, (Statement((Subject(release.id, release.digest),), promoted),))
