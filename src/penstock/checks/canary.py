"""The canary: does the new release serve users as well as the stable one beside it?

Called by the engine for the verbs ``measure`` (readings when it begins, and what the plan can show) and
``look`` (all that both releases did since then). Must not move traffic. Doubtful counts are UNKNOWN, never
PASS: whatever is wrong with the proxy's counters, or with a metric of the service's own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from penstock.analysis import readings
from penstock.analysis.judge import judge, needed_requests, slow_bound
from penstock.analysis.plan import QUIET_SECONDS, Traffic, expect, foresee
from penstock.analysis.quantiles import fixed
from penstock.analysis.readings import Reading
from penstock.analysis.series import series
from penstock.analysis.spans import spans_of
from penstock.checks.sampled import Where, counted, in_a_line, samples
from penstock.core.canary import Row, Rule, Sample, Series
from penstock.core.canaryconfig import Metric
from penstock.core.evidence import Statement, Subject
from penstock.core.masking import masked
from penstock.core.pipeline import Looked, Measured, State
from penstock.core.predicates import Look
from penstock.core.traffic import Counters
from penstock.core.verdict import Cause, Result, Verdict, unknown
from penstock.errors import Broken, Invalid, Unavailable
from penstock.ports import Meter, Metrics, Outcome, Platform, Task

#: For how long traffic is watched, at most, to say beforehand what the canary can show.
WATCHED_SECONDS = 5.0
#: Counts that are collected now and then are waited for so long, and no longer than the canary has patience.
NEWS_SECONDS = 30.0


async def measure(task: Task, /, *, metrics: Metrics, meters: Mapping[str, Meter]) -> Outcome:
    """Read what there is of both releases before the new one sees its first user; say what the plan can show.

    `Invalid` for a metric of the service's own that nobody could count.
    """
    where, declared = _where(task, meters), task.config.canary.metrics
    before = await _read(task, metrics)
    first = await asyncio.gather(*(counted(metric, where, before.stable) for metric in declared))
    await asyncio.sleep(min(task.canary.look_every, WATCHED_SECONDS))
    now = await _newer(task, metrics, before)
    began = time.time()
    last = await samples(declared, where, now.new, now.stable)
    kept = tuple(sample for sample in last if isinstance(sample, Sample)) or None
    running = readings.told(now.running) if now.running else None
    measured = Measured("measured", readings.told(now.new), readings.told(now.stable), running, kept, began)
    rule = _rule(task, measured)
    traffic = Traffic.between(before.running or before.stable, now.running or now.stable)
    words = [foresee(traffic, task.canary, rule).words]
    for metric, since, sample in zip(declared, first, last, strict=True):
        until = sample.stable if isinstance(sample, Sample) else sample
        words.append(expect(metric, since, until, task.canary, rule).words)
    return Outcome(State.SUCCESS, masked("; ".join(words), task.secrets), (), measured)


async def look(
    task: Task, /, *, metrics: Metrics, platform: Platform, meters: Mapping[str, Meter]
) -> Outcome:
    """Compare what both releases did since the canary began. FAIL ends the canary, and so does a new
    release that keeps ending, for the proxy passes it over, and the counts may not show it. So does a fresh
    baseline that keeps ending: nobody can tell then, and users meet it."""
    if task.release is None or task.measured is None:
        raise Broken("a look before anything was measured", where=task.delivery)
    seen = await _see(task, metrics, meters)
    verdict, predicate = _verdict(task, task.measured, seen)
    state, why = await _standing(task, verdict, platform)
    explained = f"{verdict.reason}; {why}" if why else verdict.reason
    predicate = replace(predicate, explanation=masked(explained, task.secrets))
    result = {State.FAILURE: Result.FAIL, State.ERROR: Result.UNKNOWN}.get(state, verdict.result)
    kept = tuple(sample for sample in seen.own if isinstance(sample, Sample)) or None
    detail = Looked("looked", result.value, predicate.quiet, predicate.new_to, predicate.stable_to, kept)
    subjects = (Subject(task.release.id, task.release.digest),)
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


@dataclass(frozen=True)
class _Seen:
    """What one look has read: the proxy's counters, or why not, and each of the service's own metrics."""

    now: Reading
    wrong: Verdict | None
    own: tuple[Sample | Verdict, ...]


async def _see(task: Task, metrics: Metrics, meters: Mapping[str, Meter]) -> _Seen:
    try:
        now, wrong = await _newer(task, metrics, _last(task)), None
    except (Unavailable, Invalid) as error:
        now, wrong = _nothing(task), unknown(Cause.ERROR, in_a_line(error))
    declared = task.config.canary.metrics
    try:
        own = await samples(declared, _where(task, meters), now.new, now.stable)
    except Invalid as error:  # it could be counted when the canary began
        own = [unknown(Cause.ERROR, in_a_line(error)) for _ in declared]
    return _Seen(now, wrong, tuple(own))


def _verdict(task: Task, start: Measured, seen: _Seen) -> tuple[Verdict, Look]:
    """What all looks say together, as evidence: with what happened between them, or nothing of it if the
    proxy's reading is of no use."""
    rule, now = _rule(task, start), seen.now
    needed = needed_requests(rule)
    earlier = [
        Reading(share, looked.new, looked.stable)
        for share, looked in task.looked
        if looked.new is not None and looked.stable is not None
    ]
    found = seen.wrong or readings.seen(Reading(0, start.new, start.stable), [*earlier, now], rule)
    told = None if isinstance(found, Verdict) else found
    rows: tuple[Row, ...] = told.rows if told else ()
    own = _series(task, start, seen.own) if told else ()
    verdict = (
        found if isinstance(found, Verdict) else judge(spans_of(rows), rule, found.latencies, own).verdict
    )
    return verdict, Look(
        verdict=verdict.result.value,
        explanation=verdict.reason,
        look=task.intent.number,
        looks=task.canary.looks,
        needed=needed,
        quiet=told is not None
        and _quiet(task, now, rows, needed)
        and all(one.since is not None for one in own),
        new_from=start.new,
        new_to=readings.told(now.new),
        stable_from=start.stable,
        stable_to=readings.told(now.stable),
        rule=rule if told else None,
        spans=rows or None,
        latencies=told.latencies if told else None,
        series=own or None,
        cause=verdict.cause.value if verdict.cause else None,
    )


def _series(task: Task, start: Measured, own: Sequence[Sample | Verdict]) -> tuple[Series, ...]:
    """Each of the service's own metrics since the canary began."""
    found = []
    for metric, present in zip(task.config.canary.metrics, own, strict=True):
        taken: list[tuple[int, Sample | Verdict | None]] = [(0, _of(metric, start.metrics))]
        taken += [(share, _of(metric, looked.metrics)) for share, looked in task.looked]
        taken.append((task.intent.share, present))
        one = series(metric, start.began, taken)
        found.append(replace(one, reason=one.reason and masked(one.reason, task.secrets)))
    return tuple(found)


def _of(metric: Metric, kept: Sequence[Sample] | None) -> Sample | None:
    return next((sample for sample in kept or () if sample.metric == metric.name), None)


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
    counts = readings.usual_latency(start.usual)
    rule = task.config.canary.rule(slow_bound(counts))
    judged = tuple(fixed(counts, quantile) for quantile in rule.judged)
    return replace(rule, quantiles=judged or None)


async def _read(task: Task, metrics: Metrics) -> Reading:
    known = await metrics.counters(task.change.service, task.change.environment)
    found: dict[str, Counters] = {counters.release: counters for counters in known}
    nothing = _nothing(task)
    new, stable, running = nothing.new, nothing.stable, nothing.running
    return Reading(
        nothing.share,
        found.get(new.release, new),
        found.get(stable.release, stable),
        found.get(running.release, running) if running else None,
    )


async def _newer(task: Task, metrics: Metrics, last: Reading) -> Reading:
    """A reading later than the *last*. Where counts are collected now and then there is none in between: the
    next one is waited for."""
    until = time.monotonic() + min(NEWS_SECONDS, task.canary.patience)
    now = await _read(task, metrics)
    while _same(last, now) and time.monotonic() < until:
        await asyncio.sleep(min(task.canary.look_every, 1.0))
        now = await _read(task, metrics)
    return now


def _same(last: Reading, now: Reading) -> bool:
    pairs = ((last.new, now.new), (last.stable, now.stable))
    return any(a.epoch == b.epoch != readings.ABSENT and a.at == b.at for a, b in pairs)


def _last(task: Task) -> Reading:
    """What the last look has read, or what there was when the canary began."""
    looked = [(looked.new, looked.stable) for _, looked in task.looked]
    start = [(task.measured.new, task.measured.stable)] if task.measured else []
    nothing = _nothing(task)
    known = [(new, stable) for new, stable in (*start, *looked) if new is not None and stable is not None]
    new, stable = known[-1] if known else (nothing.new, nothing.stable)
    return Reading(0, new, stable)


def _nothing(task: Task) -> Reading:
    if task.release is None or task.baseline is None:
        raise Broken("a canary without two releases", where=task.delivery)
    new, stable, running = (
        readings.absent(name) for name in (task.release.id, task.fresh or task.baseline.id, task.baseline.id)
    )
    return Reading(task.intent.share, new, stable, running if task.fresh else None)


def _where(task: Task, meters: Mapping[str, Meter]) -> Where:
    return Where(task.change.service, task.change.environment, meters)
