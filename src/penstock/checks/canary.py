"""The canary: does the new release serve users as well as the stable one beside it?

Called by the engine for the verbs ``measure`` (readings when it begins, and what the plan can show) and
``look`` (all that both releases did since then). Must not move traffic. Doubtful counts are UNKNOWN, never
PASS.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from penstock.analysis import readings
from penstock.analysis.counted import spans_of
from penstock.analysis.judge import judge, needed_requests, slow_bound
from penstock.analysis.plan import QUIET_SECONDS, Traffic, foresee
from penstock.analysis.readings import Reading
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
    measured = Measured("measured", now.new, now.stable)
    traffic = Traffic.between(before.stable, now.stable)
    foreseen = foresee(traffic, task.canary, _rule(task, measured))
    return Outcome(State.SUCCESS, foreseen.words, (), measured)


async def look(task: Task, /, *, metrics: Metrics, platform: Platform) -> Outcome:
    """Compare what both releases did since the canary began. FAIL ends the canary, and so does a new
    release that keeps ending, for the proxy passes it over, and the counts may not show it."""
    if task.release is None or task.measured is None:
        raise Broken("a look before anything was measured", where=task.delivery)
    start, now = task.measured, await _read(task, metrics)
    rule, needed = _rule(task, start), needed_requests(_rule(task, start))
    verdict, rows = _verdict(task, start, now, rule)
    quiet = _quiet(start, now, rows, needed)
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
        rule=rule if rows else None,
        spans=rows or None,
    )
    subjects = (Subject(task.release.id, task.release.digest),)
    placement = await platform.observe(task.release.id)
    failed = verdict.result is Result.FAIL
    why = (placement.verdict or (failed and placement.ended) or "") if placement else ""
    if why:
        reason = masked(why, task.secrets)
        predicate = replace(predicate, explanation=f"{verdict.reason}; {reason}")
    ends = failed or bool(why)
    result = Result.FAIL if ends else verdict.result
    detail = Looked("looked", result.value, quiet, now.new, now.stable)
    state = State.FAILURE if ends else State.SUCCESS
    return Outcome(state, predicate.explanation, (Statement(subjects, predicate),), detail)


def _verdict(task: Task, start: Measured, now: Reading, rule: Rule) -> tuple[Verdict, tuple[Row, ...]]:
    """What all looks say together, and what happened between them; nothing if this reading is of no use."""
    earlier = [
        Reading(share, looked.new, looked.stable)
        for share, looked in task.looked
        if looked.new is not None and looked.stable is not None
    ]
    found = readings.rows(Reading(0, start.new, start.stable), [*earlier, now], rule.slow_ms)
    if isinstance(found, Verdict):
        return found, ()
    return judge(spans_of(found), rule).verdict, found


def _quiet(start: Measured, now: Reading, rows: tuple[Row, ...], needed: int) -> bool:
    """Whether all the traffic of the service would have been too little; nobody can say of a bad reading."""
    total = sum(row[2] + row[5] for row in rows)
    return bool(rows) and total < needed and now.new.at - start.new.at >= QUIET_SECONDS


def _rule(task: Task, start: Measured) -> Rule:
    """What is slow is fixed before the canary, from what the stable release's users saw."""
    counts = readings.latency(start.stable)
    enough = max(counts.values(), default=0) >= SLOW_ENOUGH
    return task.config.canary.rule(slow_bound(counts) if enough else None)


async def _read(task: Task, metrics: Metrics) -> Reading:
    if task.release is None or task.baseline is None:
        raise Broken("a canary without two releases", where=task.delivery)
    counted = await metrics.counters(task.change.service, task.change.environment)
    found: dict[str, Counters] = {counters.release: counters for counters in counted}
    new, stable = (
        found.get(release.id) or readings.absent(release.id) for release in (task.release, task.baseline)
    )
    return Reading(task.intent.share, new, stable)
