"""Promote: the new release takes all user traffic; the one that it replaces stays warm.

Called by the engine after the gate. The new release has copies for everybody before it gets them; the
replaced one keeps all of its own for a while, and some for longer. Releases older than that are removed, so
that going back one step is always immediate and nothing piles up.
"""

from __future__ import annotations

from penstock.actions._capacity import Capacity
from penstock.actions._farewell import take_away
from penstock.core.drift import drift, in_brackets
from penstock.core.evidence import Statement, Subject
from penstock.core.masking import masked
from penstock.core.pipeline import State
from penstock.core.predicates import Promoted
from penstock.core.traffic import WHOLE
from penstock.errors import Broken
from penstock.ports import Outcome, Platform, Router, Task


async def perform(task: Task, /, *, router: Router, platform: Platform) -> Outcome:
    """All traffic to the new release, confirmed; then forget what nobody will come back to."""
    release, data = task.release, task.data
    if release is None or data is None:
        raise Broken("a promotion without a release", where=task.delivery)
    placement = await platform.observe(release.id)
    if placement is not None and placement.verdict:  # a first release had no canary to find it out
        return Outcome(State.FAILURE, f"{masked(placement.verdict, task.secrets)}: no traffic was moved")
    state = await router.read(release.service, release.environment)
    found = drift(task.delivery, state, task.involved)
    capacity = Capacity(task, router, platform)
    given = await capacity.give(release.id, WHOLE, state)
    if given.lacking:
        return Outcome(State.FAILURE, f"{given.lacking}: no traffic was moved", found)
    state = await router.apply(given.state.settling(release.id), fence=task.fence)
    warm = await capacity.rest(task.baseline)
    keep = {release.id} | ({task.baseline.id} if task.baseline else set())
    old = [known.release for known in state.backends if known.release not in keep]
    cut = await take_away(task, old, router, platform)
    promoted = Promoted(task.delivery, release, data, task.baseline)
    words = f"{release.id} has all traffic{given.in_words}{warm}{cut}{in_brackets(found)}"
    statement = Statement((Subject(release.id, release.digest),), promoted)
    return Outcome(State.SUCCESS, words, (statement, *found))
