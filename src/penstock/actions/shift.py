"""Shift: move a share of user traffic from the stable release to the new one.

Called by the engine for each step of a canary. It reads the data plane back first: traffic that is not
as the last step left it is recorded as drift in the evidence, and put right. Copies go before users: the new
release has as many as its share needs, proven ready, before it gets it. A fresh baseline has as many, and as
much.
"""

from __future__ import annotations

from dataclasses import replace

from penstock.actions._capacity import Capacity
from penstock.core.drift import drift, in_brackets
from penstock.core.evidence import Statement, Subject
from penstock.core.pipeline import State
from penstock.core.predicates import Shifted
from penstock.core.traffic import WHOLE, Weight
from penstock.errors import Broken
from penstock.ports import Outcome, Platform, Router, Task


async def perform(task: Task, /, *, router: Router, platform: Platform) -> Outcome:
    """Give the new release ``task.intent.share`` thousandths, and a fresh baseline as much; the stable one
    keeps the rest."""
    new, stable, share = task.release, task.baseline, task.intent.share
    if new is None or stable is None:
        raise Broken("a shift needs a new and a stable release", where=task.delivery)
    before = await router.read(new.service, new.environment)
    found = drift(task.delivery, before, task.involved)
    capacity, beside = Capacity(task, router, platform), share if task.fresh else 0
    given = await capacity.give(new.id, share, before)
    if given.lacking:
        return Outcome(State.FAILURE, f"{given.lacking}: no traffic was moved", found)
    if task.fresh:
        alike = await capacity.give(task.fresh, share, given.state, least=given.copies)
        if alike.lacking:  # which is no fault of the change
            return Outcome(State.ERROR, f"{alike.lacking}: no traffic was moved", found)
        given = replace(given, state=alike.state)
    asked = task.config.traffic
    # Users move to the last; those of the fresh baseline are on the stable pair all the same.
    wanted = given.state.shifting(
        Weight(stable.id, WHOLE - share - beside), Weight(task.fresh, beside), Weight(new.id, share)
    )
    # Each release is an experiment of its own: its name is what users' places are dealt by.
    wanted = replace(wanted, rules=asked.rules(new.id), sticky=new.id if asked.sticky else "", mirror=None)
    after = await router.apply(wanted, fence=task.fence)
    also = f", as much to {task.fresh}" if beside else ""
    step = f"canary step {task.intent.number + 1}: {share / 10:g}% to {new.id}"
    reason = f"{step}{also}{given.in_words}{in_brackets(found)}"
    shifted = Shifted(task.delivery, after.weights, reason)
    return Outcome(State.SUCCESS, reason, (Statement((Subject(new.id, new.digest),), shifted), *found))
