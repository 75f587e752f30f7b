"""Shift: move a share of user traffic from the stable release to the new one.

Called by the engine for each step of a canary. It reads the data plane back first: traffic that is not
as the last step left it is recorded as drift in the evidence, and put right.
"""

from __future__ import annotations

from penstock.core.evidence import Statement, Subject
from penstock.core.pipeline import State
from penstock.core.predicates import Shifted
from penstock.core.traffic import WHOLE, Weight
from penstock.errors import Broken
from penstock.ports import Outcome, Router, Task


async def perform(task: Task, /, *, router: Router) -> Outcome:
    """Give the new release ``task.intent.share`` thousandths; the stable one keeps the rest."""
    new, stable, share = task.release, task.baseline, task.intent.share
    if new is None or stable is None:
        raise Broken("a shift needs a new and a stable release", where=task.delivery)
    before = await router.read(new.service, new.environment)
    if not before.ready(new.id):
        return Outcome(State.FAILURE, f"{new.id} does not answer the proxy any more: no traffic was moved")
    strangers = [weight for weight in before.weights if weight.release not in (new.id, stable.id)]
    wanted = (Weight(stable.id, WHOLE - share), Weight(new.id, share))
    after = await router.apply(before.shifting(*wanted), fence=task.fence)
    reason = f"canary step {task.intent.number + 1}: {share / 10:g}% to {new.id}"
    if strangers:
        names = ", ".join(f"{weight.release} {weight.share / 10:g}%" for weight in strangers)
        reason += f" (drift: found traffic on {names})"
    shifted = Shifted(task.delivery, after.weights, reason)
    return Outcome(State.SUCCESS, reason, (Statement((Subject(new.id, new.digest),), shifted),))
