"""Roll back: the pair that was live serves everybody again, at once, and no policy is asked.

Called by the engine to undo a delivery (`undo`), and to come back to an earlier pair by hand
(`restore`). Stable must be proven ready before weight returns to it, with copies for everybody: load may have
taken some away while others served its users.
"""

from __future__ import annotations

from penstock.actions._capacity import ROLLBACK_SECONDS, Capacity
from penstock.actions._farewell import take_away
from penstock.core.drift import drift, in_brackets
from penstock.core.evidence import Statement, Subject
from penstock.core.masking import masked
from penstock.core.pipeline import State
from penstock.core.predicates import RolledBack
from penstock.core.traffic import WHOLE, Counters
from penstock.errors import Broken, PenstockError
from penstock.ports import Metrics, Outcome, Platform, Router, Task

#: Of what a release wrote that is taken out.
LAST_LINES = 200


async def undo(task: Task, /, *, router: Router, platform: Platform, metrics: Metrics) -> Outcome:
    """Take the delivery's release out, and its fresh baseline: weight back to the stable release first, then
    drain and remove them."""
    new, stable = task.release, task.baseline
    if new is None:
        raise Broken("nothing to roll back", where=task.delivery)
    state = await router.read(new.service, new.environment)
    found = drift(task.delivery, state, task.involved)
    cut = ""
    if stable is not None and new != stable:
        capacity = Capacity(task, router, platform, ROLLBACK_SECONDS)
        given = await capacity.give(stable.id, WHOLE, state)
        # A bad release must not keep its users for want of copies of the good one.
        state, cut = given.state, f"; {given.lacking}" if given.lacking else ""
    settled = state.settling(stable.id if stable else "")
    if found or settled != state.plan:
        await router.apply(settled, fence=task.fence)
    requests, exposed = await _exposure(task, metrics)
    kept = await _keep_last_words(task, platform, new.id) if new != stable else ""
    gone = [name for name in task.involved if stable is None or name != stable.id]
    cut += await take_away(task, gone, router, platform)
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
    found = drift(task.delivery, state, task.involved)
    capacity = Capacity(task, router, platform, ROLLBACK_SECONDS)
    given = await capacity.give(target.id, WHOLE, state)
    await router.apply(given.state.settling(target.id), fence=task.fence)
    warm = await capacity.rest(current) if target != current else ""
    lacking = f"; {given.lacking}" if given.lacking else ""
    words = f"{target.id} serves again instead of {current.id}{lacking}{warm}{in_brackets(found)}"
    rolled = RolledBack(task.delivery, current, target, task.change.title)
    subjects = (Subject(current.id, current.digest), Subject(target.id, target.digest))
    return Outcome(State.SUCCESS, words, (Statement(subjects, rolled), *found))


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
    starts = [start for start in (task.measured.new, task.measured.stable, task.measured.running) if start]
    counts = [_since(start, found.get(start.release)) for start in starts]
    return sum(counts), counts[0]


def _since(start: Counters, now: Counters | None) -> int:
    same = now is not None and now.epoch == start.epoch
    return max(0, now.requests - start.requests) if now is not None and same else 0
