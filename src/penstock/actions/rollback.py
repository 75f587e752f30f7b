"""Roll back: the pair that was live serves everybody again, at once, and no policy is asked.

Called by the engine to undo a delivery (`undo`), and to come back to an earlier pair by hand
(`restore`). Stable must be proven ready before weight returns to it, with copies for everybody: load may have
taken some away while others served its users.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    """Take out the delivery's release and its fresh baseline, or all variants of an experiment: weight back
    to the stable release first, then drain and remove them."""
    out, stable = task.variants or tuple(filter(None, (task.release,))), task.baseline
    if not out:
        raise Broken("nothing to roll back", where=task.delivery)
    new = out[0]
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
    exposed = await _exposure(task, metrics)
    kept = await _keep_last_words(task, platform, [release.id for release in out if release != stable])
    gone = [name for name in task.involved if stable is None or name != stable.id]
    cut += await take_away(task, gone, router, platform)
    requests, words, statements = sum(exposed.values()), list[str](), list[Statement]()
    for release in out:
        own = exposed.get(release.id, 0)
        share = f" ({100 * own / requests:.1f}%)" if requests else ""
        words.append(f"{own} of {requests} user requests{share} ever saw {release.id}")
        rolled = RolledBack(task.delivery, release, stable, task.reason, requests, own)
        statements.append(Statement((Subject(release.id, release.digest),), rolled))
    return Outcome(State.SUCCESS, f"{'; '.join(words)}{cut}{kept}{in_brackets(found)}", (*statements, *found))


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


async def _keep_last_words(task: Task, platform: Platform, releases: Sequence[str]) -> str:
    """What their instances wrote last goes with them: it is kept as the output of this stage. Where, in
    words. Nothing is lost but words if it cannot be kept."""
    texts = []
    try:
        for release in releases:
            lines = await platform.logs(release, LAST_LINES)
            if lines:
                texts.append(f"the last lines that {release} wrote:\n" + "".join(f"{x}\n" for x in lines))
        if not texts:
            return ""
        task.log.write_text(masked("".join(texts), task.secrets), encoding="utf-8")
    except (PenstockError, OSError):
        return ""
    return f"; its last output: penstock logs {task.delivery} {task.intent.stage}"


async def _exposure(task: Task, metrics: Metrics) -> dict[str, int]:
    """How many user requests each release answered since some of them were first moved."""
    began: tuple[Counters, ...] = ()
    if task.weighed:
        began = task.weighed[0].counters
    elif (was := task.measured) is not None:
        began = (was.new, was.stable, *((was.running,) if was.running else ()))
    try:
        readings = await metrics.counters(task.change.service, task.change.environment) if began else ()
    except PenstockError:
        return {}  # counting must never stand in the way of a rollback
    found = {counters.release: counters for counters in readings}
    return {start.release: _since(start, found.get(start.release)) for start in began}


def _since(start: Counters, now: Counters | None) -> int:
    same = now is not None and now.epoch == start.epoch
    return max(0, now.requests - start.requests) if now is not None and same else 0
