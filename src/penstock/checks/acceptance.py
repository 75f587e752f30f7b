"""Acceptance: tests in production, against the dark release, before any user sees it.

Called by the engine. Two parts: the service's own acceptance command (its JUnit report is read), and
generated requests, one after another, so that a service without traffic or tests is looked at too.
Must not send a request without the preview headers: it would reach the stable release.
"""

from __future__ import annotations

import asyncio
import json
import math
import shlex
import shutil
from pathlib import Path

import httpx

from penstock.checks import chained
from penstock.checks.reports import JUnit, parse_junit
from penstock.core.evidence import Statement, Subject
from penstock.core.masking import masked
from penstock.core.pipeline import State
from penstock.core.predicates import Accepted
from penstock.core.traffic import PREVIEW_HEADER, TOKEN_HEADER, TrafficState
from penstock.core.workload import Mount, Step
from penstock.errors import Broken, Invalid, Unavailable
from penstock.ports import Metrics, Outcome, Platform, Router, Sandbox, Task, Tools

REQUEST_SECONDS = 10.0
#: A gRPC call whose message has no field set. UNKNOWN, INTERNAL, UNAVAILABLE, DATA_LOSS are what 5xx is.
GRPC_HEADERS = {"content-type": "application/grpc", "te": "trailers"}
EMPTY_MESSAGE = bytes(5)
GRPC_ERRORS = ("2", "13", "14", "15")


async def perform(
    task: Task, /, *, router: Router, platform: Platform, sandbox: Sandbox, tools: Tools, metrics: Metrics
) -> Outcome:
    """Run both parts; the policies decide on the counts, this check only refuses to invent them.

    A release that keeps ending is a failure, whatever the counts are.
    """
    if task.release is None:
        raise Broken("acceptance without a release", where=task.delivery)
    state = await router.read(task.change.service, task.change.environment)
    if not state.ready(task.release.id):
        verdict, _ = await _life(task, platform)
        if verdict:
            return Outcome(State.FAILURE, verdict)
        raise Unavailable(f"the proxy cannot reach {task.release.id}", where=state.address)
    await chained.lead(task, state, router)
    before = await chained.read(task, metrics)
    suite = await _suite(task, state, sandbox, tools)
    if isinstance(suite, str):
        return Outcome(State.ERROR, suite)
    latencies, errors = await _generate(task, state)
    together = chained.met(task, before, await chained.read(task, metrics))
    verdict, ended = await _life(task, platform)
    accepted = Accepted(
        passed=suite.passed,
        failed=suite.failed + bool(verdict),
        failed_tests=(*suite.failing, verdict) if verdict else suite.failing,
        requests=len(latencies) + errors,
        errors=errors,
        p95_ms=round(percentile(latencies, 0.95), 1),
        p95_limit_ms=task.config.acceptance.p95_ms,
        together=together,
    )
    words = (
        f"{accepted.passed} tests passed, {accepted.failed} failed; {accepted.requests} generated requests, "
        f"{errors} errors, p95 {accepted.p95_ms:g} ms"
    ) + (f"{chained.in_words(together)}; {ended}" if ended else chained.in_words(together))
    subjects = (Subject(task.release.id, task.release.digest),)
    statements = (Statement(subjects, accepted),)
    outcome = State.FAILURE if verdict else State.SUCCESS
    return Outcome(outcome, verdict or words, statements)


async def _life(task: Task, platform: Platform) -> tuple[str, str]:
    """Why the release can be none for users, and how it last ended by itself, both in the platform's words
    and its own; "" where there is nothing to say."""
    placement = await platform.observe(task.release.id) if task.release else None
    if placement is None:
        return "", ""
    return masked(placement.verdict, task.secrets), masked(placement.ended, task.secrets)


def preview_headers(state: TrafficState, release: str) -> dict[str, str]:
    """The headers that lead to a dark release."""
    return {PREVIEW_HEADER: release, TOKEN_HEADER: state.preview_token}


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
    release = task.release.id if task.release else ""
    step = Step(
        argv=tuple(shlex.split(config.run)),
        cwd="/app",
        mounts=(Mount(str(copy), "/app", writable=True), *prepared.mounts),
        env={
            **prepared.env,
            "PENSTOCK_BASE_URL": state.address,
            "PENSTOCK_PREVIEW_HEADERS": json.dumps(preview_headers(state, release)),
        },
        network=True,
        seconds=config.seconds,
        secrets=(*task.secrets, state.preview_token),
    )
    result = await sandbox.run(step, task.log)
    if config.junit is None:
        failing = () if result.exit_code == 0 else (f"{config.run}: exited with {result.exit_code}",)
        return JUnit(int(not failing), len(failing), 0, failing)
    return _read_report(copy / config.junit, result.exit_code, result.tail)


def _read_report(report: Path, exit_code: int, tail: str) -> JUnit | str:
    if not report.is_file():
        return f"the acceptance command wrote no {report.name} (exit {exit_code}):\n{tail[-1500:]}"
    try:
        junit = parse_junit(report.read_bytes(), report.name)
    except Invalid as error:
        return str(error)
    if exit_code != 0 and not junit.failed:
        return f"the acceptance command exited with {exit_code} though no test failed:\n{tail[-1500:]}"
    return junit


async def _generate(task: Task, state: TrafficState) -> tuple[list[float], int]:
    """Latencies (ms) of the generated requests that were answered below 500, and how many were not."""
    config, grpc = task.config.acceptance, task.config.protocol == "grpc"
    release = task.release.id if task.release else ""
    latencies: list[float] = []
    errors = 0
    timeout = httpx.Timeout(REQUEST_SECONDS)
    headers = preview_headers(state, release) | (GRPC_HEADERS if grpc else {})
    async with httpx.AsyncClient(base_url=state.address, headers=headers, timeout=timeout) as client:
        for number in range(config.requests):
            path = config.paths[number % len(config.paths)] if config.paths else "/"
            try:
                response = await (client.post(path, content=EMPTY_MESSAGE) if grpc else client.get(path))
            except httpx.HTTPError:
                errors += 1
                continue
            served_by = response.headers.get("x-penstock-release", release)
            if response.status_code >= 500 or served_by != release or _failed_call(response):
                errors += 1
            else:
                latencies.append(response.elapsed.total_seconds() * 1000)
    return latencies, errors


def _failed_call(response: httpx.Response) -> bool:
    """Whether a gRPC call ended at once with what is an error of the server's own."""
    return response.headers.get("grpc-status") in GRPC_ERRORS


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least *share* of the values do not exceed; 0 of nothing."""
    if not values:
        return 0.0
    return sorted(values)[min(len(values) - 1, math.ceil(share * len(values)) - 1)]
