"""Experiment: deal the users of a service to what is live and to its variants, and keep each where he is.

Called by the engine: `expose` for each variant after the gate, `assign` once all of them may be seen. Users
are brought back by `rollback`, whatever the experiment shows. Nobody is moved before copies for him are
proven ready, nor before his requests are counted.
"""

from __future__ import annotations

from dataclasses import replace

from penstock.actions._capacity import Capacity
from penstock.core.drift import drift, in_brackets
from penstock.core.evidence import Statement, Subject
from penstock.core.experiment import Weighed
from penstock.core.pipeline import State
from penstock.core.predicates import Shifted
from penstock.core.traffic import Weight, in_words
from penstock.errors import Broken, Unavailable
from penstock.ports import Metrics, Outcome, Platform, Router, Task


async def expose(task: Task, /, *, router: Router, platform: Platform) -> Outcome:
    """Make ready as many copies of a variant as its share of users needs; it stays dark."""
    asked, release = task.experiment, task.release
    if asked is None or release is None:
        raise Broken("a variant without an experiment", where=task.delivery)
    (share,) = (variant.share for variant in asked.variants if variant.name == task.intent.target)
    state = await router.read(release.service, release.environment)
    given = await Capacity(task, router, platform).give(release.id, share, state)
    if given.lacking:
        return Outcome(State.FAILURE, f"{given.lacking}: no traffic was moved")
    return Outcome(State.SUCCESS, f"ready for {share / 10:g}% of users{given.in_words}")


async def assign(task: Task, /, *, router: Router, metrics: Metrics) -> Outcome:
    """Give each variant its share of users, by a cookie, and begin to count them."""
    asked, control = task.experiment, task.baseline
    if asked is None or control is None:
        raise Broken("an experiment without a control", where=task.delivery)
    place = (control.service, control.environment)
    before = await router.read(*place)
    found = drift(task.delivery, before, task.involved)
    users = await metrics.users(*place, task.delivery, asked.goal)
    counted = {counters.release: counters for counters in await metrics.counters(*place)}
    missing = [release.id for release in (control, *task.variants) if release.id not in counted]
    if missing:
        raise Unavailable(f"the proxy counts nothing of {', '.join(missing)} yet: no traffic was moved")
    shares = (asked.control, *(variant.share for variant in asked.variants))
    releases = (control, *task.variants)
    weights = [Weight(release.id, share) for release, share in zip(releases, shares, strict=True)]
    # Each experiment deals users anew: its delivery's name is what their places are dealt by.
    plan = replace(before.shifting(*weights), rules=(), sticky=task.delivery, mirror=None)
    after = await router.apply(plan, fence=task.fence)
    reason = f"users: {in_words(after.weights)}{in_brackets(found)}"
    shifted = Shifted(task.delivery, after.weights, reason)
    statements = [Statement((Subject(release.id, release.digest),), shifted) for release in task.variants]
    begun = Weighed("weighed", users.epoch, tuple(counted[release.id] for release in releases))
    return Outcome(State.SUCCESS, reason, (*statements, *found), begun)
