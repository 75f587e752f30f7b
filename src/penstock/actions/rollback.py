"""Roll back: the pair that was live serves everybody again, at once, and no policy is asked.

Called by the engine to undo a delivery (`undo`), and to come back to an earlier pair by hand
(`restore`). Stable must be proven ready before weight returns to it, with copies for everybody: load may have
taken some away while others served its users.
"""

from __future__ import annotations

from dataclasses import replace

from penstock.actions._afresh import change
from penstock.actions._capacity import ROLLBACK_SECONDS, Capacity
from penstock.core.drift import drift, in_brackets
from penstock.core.evidence import Statement, Subject
from penstock.core.masking import masked
from penstock.core.pipeline import State
from penstock.core.predicates import RolledBack
from penstock.core.traffic import WHOLE, Counters, TrafficPlan, TrafficState
from penstock.errors import Broken, PenstockError
from penstock.ports import Metrics, Outcome, Platform, Router, Task

#: Of what a release wrote that is taken out.
LAST_LINES = 200


async def undo(task: Task, /, *, router: Router, platform: Platform, metrics: Metrics) -> Outcome:
    """Take the delivery's release out: weight back to the baseline first, then drain and remove it."""
    new, stable = task.release, task.baseline
    if new is None:
        raise Broken("nothing to roll back", where=task.delivery)
    state = await router.read(new.service, new.environment)
    found = drift(task.delivery, state, tuple(known.id for known in (new, stable) if known))
    cut = ""
    if stable is not None and new != stable:
        capacity = Capacity(task, router, platform, ROLLBACK_SECONDS)
        given = await capacity.give(stable, WHOLE, state, beside=new)
        # A bad release must not keep its users for want of copies of the good one.
        state, cut = given.state, f"; {given.lacking}" if given.lacking else ""
    settled = state.settling(stable.id if stable else "")
    if found or settled != state.plan:
        await router.apply(settled, fence=task.fence)
    requests, exposed = await _exposure(task, metrics)
    kept = ""
    if new != stable:
        kept = await _keep_last_words(task, platform, new.id)
        await change(task, router, lambda state: _out(state, new.id))
        cut += await _drain(task, platform, new.id)
        await change(task, router, lambda state: state.without(new.id))
        await platform.remove(new.id, fence=task.fence)
    share = f" ({100 * exposed / requests:.1f}%)" if requests else ""
    words = f"{exposed} of {requests} user requests{share} ever saw {new.id}{cut}{kept}{in_brackets(found)}"
    rolled = RolledBack(task.delivery, new, stable, task.reason, requests, exposed)
    return Outcome(State.SUCCESS, words, (Statement((Subject(new.id, new.digest),), rolled), *found))


async def restore(task: Task, /, *, router: Router, platform: Platform) -> Outcome:
    """Give all traffic to an earlier pair that is placed and ready again; the other stays warm."""
    target, current = task.release, task.baseline
    if target is None or current is None:
        raise Broken("a rollback needs a pair to come back to", where=task.delivery)
    state = await router.read(target.service, target.environment)
    found = drift(task.delivery, state, (target.id, current.id))
    capacity = Capacity(task, router, platform, ROLLBACK_SECONDS)
    given = await capacity.give(target, WHOLE, state, beside=current)
    await router.apply(given.state.settling(target.id), fence=task.fence)
    warm = await capacity.rest(current) if target != current else ""
    lacking = f"; {given.lacking}" if given.lacking else ""
    words = f"{target.id} serves again instead of {current.id}{lacking}{warm}{in_brackets(found)}"
    rolled = RolledBack(task.delivery, current, target, task.change.title)
    subjects = (Subject(current.id, current.digest), Subject(target.id, target.digest))
    return Outcome(State.SUCCESS, words, (Statement(subjects, rolled), *found))


def _out(state: TrafficState, release: str) -> TrafficPlan:
    """Nothing new for a release: what is in flight goes on, and idle connections are closed."""
    known = [known.backend for known in state.backends if known.release == release]
    return state.exposing(replace(known[0], addresses=(), draining=())) if known else state.plan


async def _drain(task: Task, platform: Platform, release: str) -> str:
    """Let what is in flight end while the release can still call its neighbours through the proxy; what was
    cut off, in words."""
    if await platform.observe(release) is None:
        return ""
    drained = await platform.scale(release, 0, fence=task.fence)
    return f"; {drained.reason}" if drained.reason else ""


async def _keep_last_words(task: Task, platform: Platform, release: str) -> str:
    """What its instances wrote last goes with them: it is kept as the output of this stage. Where, in words.
    Nothing is lost but words if it cannot be kept."""
    try:
        lines = await platform.logs(release, LAST_LINES)
        if not lines:
            return ""
        text = f"the last lines that {release} wrote:\n" + "".join(f"{line}\n" for line in lines)
        task.log.write_text(masked(text, task.secrets), encoding="utf-8")
    except (PenstockError, OSError):
        return ""
    return f"; its last output: penstock logs {task.delivery} {task.intent.stage}"


async def _exposure(task: Task, metrics: Metrics) -> tuple[int, int]:
    """How many user requests there were since the canary began, and how many the release answered."""
    if task.measured is None or task.release is None or task.baseline is None:
        return 0, 0
    try:
        readings = await metrics.counters(task.change.service, task.change.environment)
    except PenstockError:
        return 0, 0  # counting must never stand in the way of a rollback
    found = {counters.release: counters for counters in readings}
    exposed = _since(task.measured.new, found.get(task.release.id))
    return exposed + _since(task.measured.stable, found.get(task.baseline.id)), exposed


def _since(start: Counters, now: Counters | None) -> int:
    same = now is not None and now.epoch == start.epoch
    return max(0, now.requests - start.requests) if now is not None and same else 0
