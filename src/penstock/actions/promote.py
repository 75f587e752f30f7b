"""Promote: the new release takes all user traffic; the one that it replaces stays warm.

Called by the engine after the gate. The new release has copies for everybody before it gets them; the
replaced one keeps all of its own for a while, and some for longer. Releases older than that are removed, so
that going back one step is always immediate and nothing piles up.
"""

from __future__ import annotations

from dataclasses import replace

from penstock.actions._afresh import change
from penstock.actions._capacity import Capacity
from penstock.core.drift import drift, in_brackets
from penstock.core.evidence import Statement, Subject
from penstock.core.pipeline import State
from penstock.core.predicates import Promoted
from penstock.core.traffic import WHOLE, Backend
from penstock.errors import Broken
from penstock.ports import Outcome, Platform, Router, Task


async def perform(task: Task, /, *, router: Router, platform: Platform) -> Outcome:
    """All traffic to the new release, confirmed; then forget what nobody will come back to."""
    release, data = task.release, task.data
    if release is None or data is None:
        raise Broken("a promotion without a release", where=task.delivery)
    state = await router.read(release.service, release.environment)
    live = tuple(known.id for known in (release, task.baseline) if known)
    found = drift(task.delivery, state, live)
    capacity = Capacity(task, router, platform)
    given = await capacity.give(release, WHOLE, state, beside=task.baseline)
    if given.lacking:
        return Outcome(State.FAILURE, f"{given.lacking}: no traffic was moved", found)
    state = await router.apply(given.state.settling(release.id), fence=task.fence)
    warm = await capacity.rest(task.baseline)
    keep = {release.id} | ({task.baseline.id} if task.baseline else set())
    old = tuple(known.backend for known in state.backends if known.release not in keep)
    cut = await _forget(task, old, router, platform)
    promoted = Promoted(task.delivery, release, data, task.baseline)
    words = f"{release.id} has all traffic{given.in_words}{warm}{cut}{in_brackets(found)}"
    statement = Statement((Subject(release.id, release.digest),), promoted)
    return Outcome(State.SUCCESS, words, (statement, *found))


async def _forget(task: Task, old: tuple[Backend, ...], router: Router, platform: Platform) -> str:
    """Remove releases that have no users, from the proxy last: it is what tells whoever goes on after a crash
    that they are still to be removed. Gives back what was cut off, in words."""
    cut = [await _end(task, backend, router, platform) for backend in old]
    await change(task, router, lambda state: state.without(*(backend.release for backend in old)))
    return "".join(cut)


async def _end(task: Task, backend: Backend, router: Router, platform: Platform) -> str:
    # Out of the proxy first: what is in flight goes on, idle connections are closed, and an instance that
    # waits for those can end. It may still call its neighbours: what is in flight may need them.
    out, cut = replace(backend, addresses=(), draining=()), ""
    await change(task, router, lambda state: state.exposing(out))
    if await platform.observe(backend.release) is not None:
        drained = await platform.scale(backend.release, 0, fence=task.fence)
        cut = f"; {drained.reason}" if drained.reason else ""
    if backend.egress:  # the proxy must not listen where a removed release had its sockets
        await change(task, router, lambda state: state.exposing(replace(out, egress=())))
    await platform.remove(backend.release, fence=task.fence)
    return cut
