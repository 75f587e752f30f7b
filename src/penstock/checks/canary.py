"""The canary: does the new release serve users as well as the stable one beside it?

Called by the engine for the verbs ``measure`` (readings when it begins) and ``look`` (one comparison
since then). Must not move traffic. Doubtful counts are UNKNOWN, never PASS.
"""

from __future__ import annotations

from dataclasses import replace

from penstock.analysis.judge import NEEDED, Window, judge
from penstock.core.evidence import Statement, Subject
from penstock.core.masking import masked
from penstock.core.pipeline import Looked, Measured, State
from penstock.core.predicates import Look
from penstock.core.traffic import Counters
from penstock.core.verdict import Cause, Result, Verdict, unknown
from penstock.errors import Broken
from penstock.ports import Metrics, Outcome, Platform, Task

#: No service is called quiet on less than this: a change must not shed its canary by making it short.
QUIET_SECONDS = 30.0


async def measure(task: Task, /, *, metrics: Metrics) -> Outcome:
    """Read both releases' counters before the new one sees its first user."""
    new, stable = await _read(task, metrics)
    return Outcome(State.SUCCESS, "", (), Measured("measured", new, stable))


async def look(task: Task, /, *, metrics: Metrics, platform: Platform) -> Outcome:
    """Compare what both releases did since the canary began. FAIL ends the canary, and so does a new
    release that keeps ending, for the proxy passes it over, and the counts may not show it."""
    if task.release is None or task.measured is None:
        raise Broken("a look before anything was measured", where=task.delivery)
    start = task.measured
    new, stable = await _read(task, metrics)
    plan = task.canary
    verdict, total = _verdict(start, new, stable, plan.looks)
    quiet = total < NEEDED and new.at - start.new.at >= QUIET_SECONDS
    predicate = Look(
        verdict=verdict.result.value,
        explanation=verdict.reason,
        look=task.intent.number,
        looks=plan.looks,
        needed=NEEDED,
        quiet=quiet,
        new_from=start.new,
        new_to=new,
        stable_from=start.stable,
        stable_to=stable,
    )
    statement = Statement((Subject(task.release.id, task.release.digest),), predicate)
    placement = await platform.observe(task.release.id)
    failed = verdict.result is Result.FAIL
    why = (placement.verdict or (failed and placement.ended) or "") if placement else ""
    if why:
        reason = masked(why, task.secrets)
        told = replace(predicate, explanation=f"{verdict.reason}; {reason}")
        ended = Looked("looked", Result.FAIL.value, quiet)
        return Outcome(State.FAILURE, told.explanation, (Statement(statement.subjects, told),), ended)
    state = State.FAILURE if failed else State.SUCCESS
    detail = Looked("looked", verdict.result.value, quiet)
    return Outcome(state, verdict.reason, (statement,), detail)


def window(since: Counters, until: Counters) -> Window | Verdict:
    """What happened between two readings, or why that cannot be told."""
    if since.epoch != until.epoch:
        return unknown(Cause.ERROR, f"the counters of {until.release} restarted during the canary")
    requests, errors = until.requests - since.requests, until.errors - since.errors
    latency = {_bound(b): n - since.latency.get(b, 0) for b, n in until.latency.items()}
    if requests < 0 or not 0 <= errors <= requests or any(n < 0 for n in latency.values()):
        return unknown(Cause.ERROR, f"the counters of {until.release} ran backwards")
    return Window(requests, errors, latency)


def _verdict(start: Measured, new: Counters, stable: Counters, looks: int) -> tuple[Verdict, int]:
    new_window, stable_window = window(start.new, new), window(start.stable, stable)
    if isinstance(new_window, Verdict):
        return new_window, NEEDED
    if isinstance(stable_window, Verdict):
        return stable_window, NEEDED
    total = new_window.requests + stable_window.requests
    return judge(new_window, stable_window, looks).verdict, total


async def _read(task: Task, metrics: Metrics) -> tuple[Counters, Counters]:
    if task.release is None or task.baseline is None:
        raise Broken("a canary without two releases", where=task.delivery)
    readings = await metrics.counters(task.change.service, task.change.environment)
    found = {counters.release: counters for counters in readings}
    return tuple(  # type: ignore[return-value]
        found.get(release.id) or Counters(release.id, 0.0, "absent", 0, 0)
        for release in (task.release, task.baseline)
    )


def _bound(text: str) -> float:
    return float("inf") if text == "+Inf" else float(text)
