"""The experiment: do more users of a variant reach the goal, and is anything broken for them?

Called by the engine for the verb ``weigh``, at every look. Must not move traffic. Doubtful counts are
UNKNOWN, never PASS. The experiment ends when every variant has a verdict or its time is over; and at once
when a guardrail is broken or the counts cannot be trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from penstock.analysis import readings
from penstock.analysis.experiment import Judgment, judge
from penstock.analysis.judge import slow_bound
from penstock.analysis.readings import Reading
from penstock.core.canary import Row, Rule
from penstock.core.canaryconfig import DEFAULT_JUDGE
from penstock.core.evidence import Statement, Subject
from penstock.core.experiment import Arm, Experiment, Plan, Seen, Users, Weighed
from penstock.core.masking import masked
from penstock.core.pipeline import State
from penstock.core.release import Release
from penstock.core.verdict import Cause, Result
from penstock.errors import Broken
from penstock.ports import Metrics, Outcome, Platform, Task

#: A look that says what the last one said is evidence once in so many.
TOLD_EVERY = 20


@dataclass(frozen=True)
class _Looked:
    """One variant at this look; *crashed* says that the platform has given it up, or why it ends."""

    release: Release
    said: Experiment
    judged: Judgment
    crashed: str


async def perform(task: Task, /, *, metrics: Metrics, platform: Platform) -> Outcome:
    """Judge every variant against the control, from all that was counted since users were dealt out."""
    asked, control = task.experiment, task.baseline
    if asked is None or control is None or not task.weighed:
        raise Broken("a look at an experiment that has not begun", where=task.delivery)
    place, releases = (control.service, control.environment), (control, *task.variants)
    users = await metrics.users(*place, task.delivery, asked.goal)
    counted = {counters.release: counters for counters in await metrics.counters(*place)}
    counters = tuple(counted.get(r.id) or readings.absent(r.id) for r in releases)
    now = Weighed("weighed", users.epoch, counters, arms_of(asked, releases, users))
    over = users.full or counters[0].at - task.weighed[0].counters[0].at >= asked.terms.longest
    looked = [await _look(task, now, users, number, platform) for number in range(1, len(releases))]
    state, ended = _end(looked, over)
    now = replace(now, ended=ended, verdicts=tuple(one.judged.verdict.result.value for one in looked))
    told = ended or now.verdicts != task.weighed[-1].verdicts or task.intent.number % TOLD_EVERY == 0
    statements = tuple(
        Statement((Subject(one.release.id, one.release.digest),), replace(one.said, ended=ended))
        for one in looked
        if told
    )
    reason = "; ".join(f"{one.said.variant}: {one.said.verdict}, {one.said.explanation}" for one in looked)
    return Outcome(state, reason, statements, now)


async def _look(task: Task, now: Weighed, users: Users, number: int, platform: Platform) -> _Looked:
    asked, variant = task.experiment, now.arms[number]
    assert asked is not None
    guard = _guard(task, asked)
    again = "" if now.epoch == task.weighed[0].epoch else "the counting of users had to begin again"
    said = Experiment(
        delivery=task.delivery,
        experiment=asked.name,
        variant=variant.name,
        verdict="UNKNOWN",
        explanation="",
        goal=asked.goal,
        terms=asked.terms,
        arms=now.arms,
        moved=users.moved,
        look=task.intent.number,
        ended=False,
        guard=guard,
        rows=_rows(task, now, number, guard),
        course=_course((*task.weighed, now), number),
        fault=users.lost or again,
    )
    judged = judge(said)
    release = task.variants[number - 1]
    placement = await platform.observe(release.id)
    failed = judged.verdict.result is Result.FAIL
    crashed = (placement.verdict or (failed and placement.ended) or "") if placement else ""
    crashed = masked(crashed, task.secrets) if crashed else ""
    words = "; ".join(part for part in (judged.verdict.reason, crashed) if part)
    return _Looked(
        release, replace(said, verdict=judged.verdict.result.value, explanation=words), judged, crashed
    )


def _end(looked: Sequence[_Looked], over: bool) -> tuple[State, bool]:
    """In which state this look ends, and whether it is the last."""
    verdicts = [one.judged.verdict for one in looked]
    if any(one.judged.broken or one.crashed for one in looked):
        return State.FAILURE, True
    if any(verdict.cause is Cause.ERROR for verdict in verdicts):
        return State.ERROR, True
    results = {verdict.result for verdict in verdicts}
    decided = Result.UNKNOWN not in results
    return State.FAILURE if results == {Result.FAIL} else State.SUCCESS, decided or over


def arms_of(asked: Plan, releases: Sequence[Release], users: Users) -> tuple[Arm, ...]:
    """The control and the variants, with their users."""
    shares = (asked.control, *(variant.share for variant in asked.variants))
    nobody = Seen(0, 0)
    return tuple(
        Arm(name, release.id, share, seen.users, seen.reached)
        for name, release, share in zip(asked.names, releases, shares, strict=True)
        for seen in [users.seen.get(release.id, nobody)]
    )


def _guard(task: Task, asked: Plan) -> Rule:
    """The service's own rule for canaries, without its quantiles; its error is shared evenly among the
    variants. What is slow is fixed before it begins, from what the control's users saw."""
    slow = slow_bound(readings.usual_latency(task.weighed[0].counters[0]))
    rule = (task.config.canary.judge or DEFAULT_JUDGE).rule(asked.terms.longest, slow)
    return replace(rule, alpha=rule.alpha / len(asked.variants), quantiles=None)


def _rows(task: Task, now: Weighed, number: int, guard: Rule) -> tuple[Row, ...]:
    """What variant and control did from look to look. A stretch in which counters began anew, as those of a
    proxy that was started again do, is left out: what is before it and after it counts."""
    share = now.arms[number].share
    first, *looks = (Reading(share, one.counters[number], one.counters[0]) for one in (*task.weighed, now))
    last, found = first, list[Row]()
    for after in looks:
        row = readings.row(first, last, after, guard)
        if isinstance(row, tuple):
            found.append(row)
        if isinstance(row, tuple) or readings.began_anew(last, after):
            last = after
    return tuple(found)


def _course(looks: Sequence[Weighed], number: int) -> tuple[Row, ...]:
    began = looks[0].counters[0].at
    return tuple(
        (max(0, round((look.counters[0].at - began) * 1000)), c.users, c.reached, v.users, v.reached)
        for look in looks
        if look.arms
        for c, v in [(look.arms[0], look.arms[number])]
    )
