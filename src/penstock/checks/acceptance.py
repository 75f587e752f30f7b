"""Acceptance: tests in production, against the dark release, before any user sees it.

Called by the engine. Its parts: the service's own acceptance command (its JUnit report is read), generated
traffic, so that a service without users or tests is looked at too, the service's OpenAPI document, a load
test, and the stable release's answers beside its own. Must not send a request without the preview headers: it
would reach the stable release, and its users' counts.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from penstock.checks import chained, compare, consumers, load
from penstock.checks.consumers import Demands
from penstock.checks.contract import check as checked
from penstock.checks.noting import note
from penstock.checks.preview import Dark, Part, dark
from penstock.checks.reports import MAX_BYTES, MAX_NAMES, JUnit, parse_junit
from penstock.core.acceptance import Compared, Sent
from penstock.core.acceptanceconfig import AcceptanceConfig
from penstock.core.evidence import Statement, Subject
from penstock.core.masking import masked
from penstock.core.pipeline import State
from penstock.core.predicates import Accepted
from penstock.core.traffic import TrafficState, Visit
from penstock.core.wording import plural
from penstock.core.workload import Mount, Step, StepResult
from penstock.errors import Broken, Invalid, Unavailable
from penstock.ports import Metrics, Outcome, Platform, Router, Sandbox, Task, Tools
from penstock.treefile import read_inside


async def perform(  # noqa: PLR0913 (its powers)
    task: Task,
    /,
    *,
    router: Router,
    metrics: Metrics,
    demands: Demands,
    platform: Platform,
    sandbox: Sandbox,
    tools: Tools,
) -> Outcome:
    """Run every part; the policies decide on the counts, this check only refuses to invent them.

    A release that keeps ending is a failure, whatever the counts are.
    """
    if task.release is None:
        raise Broken("acceptance without a release", where=task.delivery)
    state = await router.read(task.change.service, task.change.environment)
    if failed := await _unreachable(task, state, platform):
        return Outcome(State.FAILURE, failed)
    await chained.lead(task, state, router)
    before = await chained.read(task, metrics)
    suite = await _suite(task, state, sandbox, tools)
    if isinstance(suite, str):
        return Outcome(State.ERROR, suite)
    way = dark(state, task.release.id)
    config = task.config.acceptance
    generated = await load.send(load.quiet(config, task.config.protocol), way)
    contract, documented = await checked(config, task.tree if task.source else None, way)
    needed, kept = await consumers.check(demands, way, (state.service, state.environment), config.seconds)
    own = await consumers.readable(demands, task.release.artifact)
    loaded, held = await _load(config, way)
    answers, alike = await _compare(task, state, way, metrics)
    together = chained.met(task, before, await chained.read(task, metrics))
    verdict, ended = await _life(task, platform)
    tests = Part(suite.passed, suite.failed, suite.failing)
    life = Part(failed=1, failing=(verdict,)) if verdict else Part()
    parts = (tests, documented, kept, own, held, alike, life)
    accepted = replace(
        _counted(parts, generated, config),
        together=together,
        contract=contract,
        load=loaded,
        compared=answers,
        consumers=needed,
    )
    note(task, _problems(accepted))
    told = "; ".join(filter(None, (_words(accepted), *(part.words for part in parts), ended)))
    statements = (Statement((Subject(task.release.id, task.release.digest),), accepted),)
    return Outcome(State.FAILURE if verdict else State.SUCCESS, verdict or told, statements)


async def _unreachable(task: Task, state: TrafficState, platform: Platform) -> str:
    """Why the release can never be tested, "" if it can be now; `Unavailable` if it may be later."""
    if task.release is None or state.ready(task.release.id):
        return ""
    verdict, _ = await _life(task, platform)
    if not verdict:
        raise Unavailable(f"the proxy cannot reach {task.release.id}", where=state.address)
    return verdict


def _counted(parts: Sequence[Part], generated: Sent, config: AcceptanceConfig) -> Accepted:
    """What every part has found, and what generated traffic has."""
    return Accepted(
        passed=sum(part.passed for part in parts),
        failed=sum(part.failed for part in parts),
        failed_tests=tuple(name for part in parts for name in part.failing)[:MAX_NAMES],
        requests=generated.requests,
        errors=generated.errors,
        p95_ms=generated.p95_ms,
        p95_limit_ms=config.p95_ms,
        generated=generated,
    )


def _problems(accepted: Accepted) -> tuple[str, ...]:
    """What the counts do not say: each answer that was not as it had to be."""
    known = (*((accepted.contract,) if accepted.contract else ()), *(accepted.consumers or ()))
    problems = (problem for one in known for problem in one.problems)
    return (*problems, *(accepted.compared.first if accepted.compared else ()))


def _words(accepted: Accepted) -> str:
    counted = f"{plural(accepted.passed, 'test')} passed, {accepted.failed} failed; "
    return (
        f"{counted if accepted.passed or accepted.failed else ''}"
        f"{plural(accepted.requests, 'generated request')}, {plural(accepted.errors, 'error')}, "
        f"p95 {accepted.p95_ms:g} ms{chained.in_words(accepted.together)}"
    )


async def _compare(
    task: Task, state: TrafficState, way: Dark, metrics: Metrics
) -> tuple[Compared | None, Part]:
    async def visits(since: float) -> Sequence[Visit]:
        return await metrics.visits(state.service, state.environment, since)

    stable = dark(state, task.baseline.id) if task.baseline is not None else None
    return await compare.check(task.config.acceptance, way, stable, visits)


async def _load(config: AcceptanceConfig, way: Dark) -> tuple[Sent | None, Part]:
    if config.load is None:
        return None, Part()
    sent = await load.send(load.heavy(config, config.load), way)
    return sent, load.judged(sent, config.load)


async def _life(task: Task, platform: Platform) -> tuple[str, str]:
    """Why the release can be none for users, and how it last ended by itself, both in the platform's words
    and its own; "" where there is nothing to say."""
    placement = await platform.observe(task.release.id) if task.release else None
    if placement is None:
        return "", ""
    return masked(placement.verdict, task.secrets), masked(placement.ended, task.secrets)


async def _suite(task: Task, state: TrafficState, sandbox: Sandbox, tools: Tools) -> JUnit | str:
    """The service's own acceptance tests; a text says why their result cannot be told."""
    config = task.config.acceptance
    if config.run is None:
        return JUnit(0, 0, 0, ())
    if task.source is None:
        return JUnit(0, 0, 0, ())  # a configuration change: the tests are in the code's repository
    copy = task.work / "acceptance"
    shutil.rmtree(copy, ignore_errors=True)
    await asyncio.to_thread(shutil.copytree, task.tree, copy, symlinks=True)
    prepared = await tools.prepare(task)
    way = dark(state, task.release.id if task.release else "")
    step = Step(
        argv=tuple(shlex.split(config.run)),
        cwd="/app",
        mounts=(Mount(str(copy), "/app", writable=True), *prepared.mounts),
        env={
            **prepared.env,
            "PENSTOCK_BASE_URL": way.address,
            "PENSTOCK_PREVIEW_HEADERS": json.dumps(way.headers),
        },
        network=True,
        seconds=config.seconds,
        secrets=(*task.secrets, state.preview_token),
        fence=task.fence,
        environment=state.environment,
    )
    result = await sandbox.run(step, task.log)
    if config.junit is None:
        failing = () if result.exit_code == 0 else (f"{config.run}: exited with {result.exit_code}",)
        return JUnit(int(not failing), len(failing), 0, failing)
    return _read_report(copy, config.junit, result)


def _read_report(copy: Path, name: str, result: StepResult) -> JUnit | str:
    """The tests may have put a link there, or more than fits the memory."""
    report, exit_code, tail = copy / name, result.exit_code, result.tail
    if not report.is_file():
        return f"the acceptance command wrote no {report.name} (exit {exit_code}):\n{tail[-1500:]}"
    try:
        junit = parse_junit(read_inside(copy, name, MAX_BYTES), report.name)
    except Invalid as error:
        return str(error)
    if exit_code != 0 and not junit.failed:
        return f"the acceptance command exited with {exit_code} though no test failed:\n{tail[-1500:]}"
    return junit
