"""Suites: the project's own checks (tests, coverage, analysers), run on a copy of its tree.

Called by the engine for a code change, after the build. What they say is marked self-reported: the code
under test can forge it. Must not invent a result: a report that is missing or damaged is an error, and a
command that fails without naming a failing test counts as one failed test.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from penstock.checks.reports import MAX_BYTES, JUnit, parse_coverage, parse_junit
from penstock.checks.sarif import merge, parse_sarif
from penstock.config import SuiteConfig
from penstock.core.evidence import Statement, Subject
from penstock.core.outside import clean
from penstock.core.pipeline import State
from penstock.core.predicates import Coverage, Findings, TestResult
from penstock.core.workload import Mount, Step, StepResult
from penstock.errors import Broken, Invalid
from penstock.ports import Outcome, Prepared, Sandbox, Task, Tools
from penstock.treefile import read_inside

REPORT = "penstock-junit.xml"
PYTEST = SuiteConfig(run=f"python3 -m pytest -q --junitxml={REPORT}", junit=REPORT)
NODE_TEST = f"node --test --test-reporter=junit --test-reporter-destination={REPORT}"


@dataclass(frozen=True)
class SuiteResult:
    """What one suite gave. *trouble* says why its result cannot be told, if it cannot."""

    words: str
    tests: TestResult | None = None
    coverage: Coverage | None = None
    findings: tuple[Findings, ...] = ()
    trouble: str = ""


async def perform(task: Task, /, *, sandbox: Sandbox, tools: Tools) -> Outcome:
    """Run the suite that the stage is for, or every one. Failing tests are evidence, not an error: the
    policies decide what they mean."""
    artifact = task.artifact
    if artifact is None:
        raise Broken("suites before there is an artifact", where=task.delivery)
    suites = _suites(task)
    if not suites:
        return Outcome(State.SUCCESS, "the project has no checks: nothing is known of its tests")
    try:
        prepared = await tools.prepare(task)
    except Invalid as error:
        return Outcome(State.ERROR, f"what the tests need cannot be prepared: {error}")
    results = [await _run(name, suite, task, sandbox, prepared) for name, suite in suites.items()]
    predicates = [p for result in results for p in (result.tests, result.coverage) if p is not None]
    found = merge(_named(report, task) for result in results for report in result.findings)
    subjects = (Subject(artifact.name, artifact.digest),)
    statements = tuple(Statement(subjects, predicate) for predicate in (*predicates, *found))
    troubles = [result.trouble for result in results if result.trouble]
    if troubles:
        return Outcome(State.ERROR, "\n".join(troubles), statements)
    return Outcome(State.SUCCESS, "; ".join(result.words for result in results), statements)


def _suites(task: Task) -> Mapping[str, SuiteConfig]:
    """By the name of their evidence: of one check's targets, each has a name of its own."""
    part = task.intent.part
    if part:
        return {task.intent.stage: task.config.checks[part]}
    return task.config.checks or default_suites(task.tree)


def _named(report: Findings, task: Task) -> Findings:
    # Of two reports by one tool the newer would count, and hide what the other check found.
    return replace(report, tool=f"{report.tool} ({task.intent.stage})") if task.intent.part else report


def default_suites(tree: Path) -> Mapping[str, SuiteConfig]:
    """What a project most likely means by its tests if it does not say; empty if nothing can be seen."""
    patterns = ("test_*.py", "*_test.py", "tests/**/test_*.py", "test/**/test_*.py", "tests/**/*_test.py")
    if any(next(tree.glob(pattern), None) for pattern in patterns):
        return {"tests": PYTEST}
    script = _node_test_script(tree)
    if script is not None and (script == "node --test" or script.startswith("node --test ")):
        return {"tests": SuiteConfig(run=NODE_TEST + script.removeprefix("node --test"), junit=REPORT)}
    return {}


def _node_test_script(tree: Path) -> str | None:
    try:
        script = json.loads(read_inside(tree, "package.json", MAX_BYTES))["scripts"]["test"]
    except (Invalid, ValueError, KeyError, TypeError, RecursionError):
        return None
    return script.strip() if isinstance(script, str) else None


async def _run(
    name: str, suite: SuiteConfig, task: Task, sandbox: Sandbox, prepared: Prepared
) -> SuiteResult:
    # A copy for each: suites must see the commit, not what another suite left behind.
    copy = task.work / "suites" / name
    shutil.rmtree(copy, ignore_errors=True)
    copy.parent.mkdir(parents=True, exist_ok=True)
    await asyncio.to_thread(shutil.copytree, task.tree, copy, symlinks=True)
    for report in filter(None, (suite.junit, suite.coverage, suite.sarif)):
        # One that was committed must not pass for one that this run wrote.
        _remove(copy / report)
    target = {"PENSTOCK_TARGET": task.intent.target} if task.intent.target else {}
    step = Step(
        argv=tuple(shlex.split(suite.run)),
        cwd="/app",
        mounts=(Mount(str(copy), "/app", writable=True), *prepared.mounts),
        env={**prepared.env, **target},
        seconds=suite.seconds,
        secrets=task.secrets,
        fence=task.fence,
    )
    result = await sandbox.run(step, task.log)
    try:
        return _read(name, suite, copy, result)
    except Invalid as error:
        return SuiteResult("", trouble=f"{name}: {error}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _read(name: str, suite: SuiteConfig, copy: Path, result: StepResult) -> SuiteResult:
    junit = _tests(name, suite, copy, result)
    words = f"{name}: {junit.passed} passed, {junit.failed} failed" if junit else f"{name}: done"
    coverage: Coverage | None = None
    findings: tuple[Findings, ...] = ()
    if suite.coverage and (result.exit_code == 0 or (copy / suite.coverage).is_file()):
        lines = parse_coverage(_report(copy, suite.coverage, result), suite.coverage)
        coverage = Coverage(name, lines.covered, lines.total, "self-reported")
    if suite.sarif and (result.exit_code == 0 or (copy / suite.sarif).is_file()):
        findings = parse_sarif(_report(copy, suite.sarif, result), suite.sarif, "self-reported")
    tests = _test_result(name, junit) if junit else None
    return SuiteResult(words, tests, coverage, findings)


def _tests(name: str, suite: SuiteConfig, copy: Path, result: StepResult) -> JUnit | None:
    """The suite's counts; None for one that only writes other reports, and wrote them."""
    ended = f"{name}: " + ("not done in time" if result.timed_out else f"exited with {result.exit_code}")
    crashed = JUnit(0, 1, 0, (ended,))
    reports = [report for report in (suite.junit, suite.coverage, suite.sarif) if report]
    wrote = any((copy / report).is_file() for report in reports)
    failed = result.exit_code != 0 or result.timed_out
    if failed and not wrote:
        return crashed
    if suite.junit is None:
        # Analysers tell by their exit code that they found something; their report says what.
        return None if reports else JUnit(1, 0, 0, ())
    if failed and not (copy / suite.junit).is_file():
        return crashed
    junit = parse_junit(_report(copy, suite.junit, result), suite.junit)
    if failed and not junit.failed:
        return JUnit(junit.passed, 1, junit.skipped, (ended,))
    return junit


def _report(copy: Path, report: str, result: StepResult) -> bytes:
    """A report's bytes. The suite may have put a link there, or more than fits the memory."""
    if not (copy / report).is_file():
        tail = clean(result.tail[-800:].replace("\n", " ⏎ "), 800)
        raise Invalid(f"was expected, and the command did not write it. Its last words: {tail}", where=report)
    return read_inside(copy, report, MAX_BYTES)


def _test_result(name: str, junit: JUnit) -> TestResult:
    return TestResult(
        result="FAILED" if junit.failed else "PASSED",
        suite=name,
        configuration=(),
        passed=junit.passed,
        failed=junit.failed,
        skipped=junit.skipped,
        failed_tests=junit.failing,
    )
