"""The canary: does the new release serve users as well as the stable one beside it?

Called by the engine for the verbs ``measure`` (readings when it begins, and what the plan can show) and
``look`` (all that both releases did since then). Must not move traffic. Doubtful counts are UNKNOWN, never
PASS.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from penstock.analysis import readings
from penstock.analysis.judge import judge, needed_requests, slow_bound, spans_of
from penstock.analysis.plan import QUIET_SECONDS, Traffic, foresee
from penstock.analysis.quantiles import fixed
from penstock.analysis.readings import Reading, Seen
from penstock.core.canary import Row, Rule
from penstock.core.evidence import Statement, Subject
from penstock.core.masking import masked
from penstock.core.pipeline import Looked, Measured, State
from penstock.core.predicates import Look
from penstock.core.traffic import Counters
from penstock.core.verdict import Result, Verdict
from penstock.errors import Broken
from penstock.ports import Metrics, Outcome, Platform, Task

#: For how long traffic is watched, at most, to say beforehand what the canary can show.
WATCHED_SECONDS = 5.0
#: What is slow for the stable release is told from at least so many of its requests.
SLOW_ENOUGH = 50


async def measure(task: Task, /, *, metrics: Metrics) -> Outcome:
    """Read both releases' counters before the new one sees its first user; say what the plan can show."""
    before = await _read(task, metrics)
    await asyncio.sleep(min(task.canary.look_every, WATCHED_SECONDS))
    now = await _read(task, metrics)
    measured = Measured("measured", now.new, now.stable, now.running)
    traffic = Traffic.between(before.running or before.stable, measured.usual)
    foreseen = foresee(traffic, task.canary, _rule(task, measured))
    return Outcome(State.SUCCESS, foreseen.words, (), measured)


async def look(task: Task, /, *, metrics: Metrics, platform: Platform) -> Outcome:
    """Compare what both releases did since the canary began. FAIL ends the canary, and so does a new
    release that keeps ending, for the proxy passes it over, and the counts may not show it. So does a fresh
    baseline that keeps ending: nobody can tell then, and users meet it."""
    if task.release is None or task.measured is None:
        raise Broken("a look before anything was measured", where=task.delivery)
    start, now = task.measured, await _read(task, metrics)
    rule, needed = _rule(task, start), needed_requests(_rule(task, start))
    verdict, seen = _verdict(task, start, now, rule)
    quiet = seen is not None and _quiet(task, now, seen.rows, needed)
    predicate = Look(
        verdict=verdict.result.value,
        explanation=verdict.reason,
        look=task.intent.number,
        looks=task.canary.looks,
        needed=needed,
        quiet=quiet,
        new_from=start.new,
        new_to=now.new,
        stable_from=start.stable,
        stable_to=now.stable,
        rule=rule if seen else None,
        spans=seen.rows if seen else None,
        latencies=seen.latencies if seen else None,
    )
    subjects = (Subject(task.release.id, task.release.digest),)
    state, why = await _standing(task, verdict, platform)
    if why:
        predicate = replace(predicate, explanation=f"{verdict.reason}; {masked(why, task.secrets)}")
    result = {State.FAILURE: Result.FAIL, State.ERROR: Result.UNKNOWN}.get(state, verdict.result)
    detail = Looked("looked", result.value, quiet, now.new, now.stable)
    return Outcome(state, predicate.explanation, (Statement(subjects, predicate),), detail)


async def _standing(task: Task, verdict: Verdict, platform: Platform) -> tuple[State, str]:
    """How the look ends, given what was counted and what runs; and what there is to say of the latter."""
    failed = verdict.result is Result.FAIL
    placement = await platform.observe(task.release.id) if task.release else None
    why = (placement.verdict or (failed and placement.ended) or "") if placement else ""
    if failed or why:
        return State.FAILURE, why
    beside = await platform.observe(task.fresh) if task.fresh else None
    why = beside.verdict if beside else ""
    return (State.ERROR if why else State.SUCCESS), why


def _verdict(task: Task, start: Measured, now: Reading, rule: Rule) -> tuple[Verdict, Seen | None]:
    """What all looks say together, and what happened between them; None if this reading is of no use."""
    earlier = [
        Reading(share, looked.new, looked.stable)
        for share, looked in task.looked
        if looked.new is not None and looked.stable is not None
    ]
    found = readings.seen(Reading(0, start.new, start.stable), [*earlier, now], rule)
    if isinstance(found, Verdict):
        return found, None
    return judge(spans_of(found.rows), rule, found.latencies).verdict, found


def _quiet(task: Task, now: Reading, rows: tuple[Row, ...], needed: int) -> bool:
    """Whether all the traffic of the service is too little, also if the canary takes all of its time; nobody
    can say of a bad reading."""
    start = task.measured
    beside = _not_compared(start, now) if start else None
    if start is None or beside is None:
        return False
    seconds = now.new.at - start.new.at
    total = beside + sum(row[2] + row[5] for row in rows)
    return seconds >= QUIET_SECONDS and total * max(1.0, task.canary.longest / seconds) < needed


def _not_compared(start: Measured, now: Reading) -> int | None:
    """What users asked of the copies that stand beside a fresh baseline; None if nobody can tell."""
    since, until = start.running, now.running
    if since is None or until is None:
        return 0
    counted = since.epoch == until.epoch != readings.ABSENT
    return until.requests - since.requests if counted else None


def _rule(task: Task, start: Measured) -> Rule:
    """What is slow is fixed before the canary, from what the stable release's users saw."""
    counts = readings.latency(start.usual)
    enough = max(counts.values(), default=0) >= SLOW_ENOUGH
    rule = task.config.canary.rule(slow_bound(counts) if enough else None)
    judged = tuple(fixed(counts if enough else {}, quantile) for quantile in rule.judged)
    return replace(rule, quantiles=judged or None)


async def _read(task: Task, metrics: Metrics) -> Reading:
    if task.release is None or task.baseline is None:
        raise Broken("a canary without two releases", where=task.delivery)
    counted = await metrics.counters(task.change.service, task.change.environment)
    found: dict[str, Counters] = {counters.release: counters for counters in counted}
    new, stable, running = (
        found.get(name) or readings.absent(name)
        for name in (task.release.id, task.fresh or task.baseline.id, task.baseline.id)
    )
    return Reading(task.intent.share, new, stable, running if task.fresh else None)
