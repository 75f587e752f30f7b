"""Scan: tools of the platform's own look at the change's tree, read-only.

Called by the engine for a code change, after the build. What they find is evidence that the change cannot
alter: nothing of it is run, and marks in its files that would silence a scanner are not honoured. Any
tool that writes SARIF can be a row of `SCANNERS`. One that crashes gives no evidence at all.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from penstock.checks.noting import note
from penstock.checks.reports import MAX_BYTES
from penstock.checks.sarif import at_least, merge, parse_sarif
from penstock.core.evidence import Statement, Subject
from penstock.core.findings import Severity
from penstock.core.pipeline import State
from penstock.core.predicates import Findings
from penstock.core.workload import Mount, Step
from penstock.errors import Broken, Invalid, Unavailable
from penstock.ports import Outcome, Sandbox, Task, Tools

PROGRAM = "/penstock/bin/scanner"
CACHE = "/penstock/cache"
OUT = "/penstock/out"
REPORT = "report.sarif"


@dataclass(frozen=True)
class Scanner:
    """*package* holds the program at *inside* it; else it is looked for on PATH by *name*.

    *argv* are the words after the program; the report belongs in `OUT`/`REPORT`. Any exit code that is
    not in *done* is a crash. What is found counts as *floor* at least.
    """

    name: str
    argv: tuple[str, ...]
    package: str = ""
    inside: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    done: tuple[int, ...] = (0,)
    floor: Severity = "low"
    seconds: float = 300.0
    install: str = ""


SCANNERS: tuple[Scanner, ...] = (
    Scanner(
        name="kingfisher",
        argv=(
            *("scan", "/app", "--format", "sarif", "--output", f"{OUT}/{REPORT}"),
            *("--no-validate", "--no-update-check", "--git-history", "none", "--no-ignore", "--redact"),
        ),
        package="kingfisher",
        inside="bin/kingfisher",
        env={"KF_RULE_CACHE_DIR": CACHE},  # compiling its rules takes ten times as long as a scan
        done=(0, 200, 205),
        floor="critical",  # a committed secret is one, whatever its rule thinks of it
        install='pip install "penstock[scan]"',
    ),
)


async def perform(task: Task, /, *, sandbox: Sandbox, tools: Tools) -> Outcome:
    """Run every scanner. Without a report there is no evidence, and the policy says what that means."""
    return await scan(task, SCANNERS, sandbox, tools)


async def scan(task: Task, scanners: Sequence[Scanner], sandbox: Sandbox, tools: Tools) -> Outcome:
    """`perform` with another list of scanners."""
    artifact = task.artifact
    if artifact is None:
        raise Broken("a scan before there is an artifact", where=task.delivery)
    reports: list[Findings] = []
    words = []
    for scanner in scanners:
        try:
            found = await _run(scanner, task, sandbox, tools)
        except (Invalid, Unavailable) as error:
            words.append(f"{scanner.name} gave no evidence: {error}")
            continue
        reports.extend(found)
        words += [f"{f.tool}: {f.critical} critical, {f.high} high" for f in found]
    subjects = (Subject(artifact.name, artifact.digest),)
    statements = tuple(Statement(subjects, report) for report in merge(reports))
    return Outcome(State.SUCCESS, "; ".join(words) or "no scanner is configured", statements)


async def _run(scanner: Scanner, task: Task, sandbox: Sandbox, tools: Tools) -> list[Findings]:
    out = task.work / "scan" / scanner.name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    cache = tools.cache(scanner.name)
    if CACHE in scanner.env.values() and not any(cache.iterdir()):
        note(task, (f"{scanner.name} prepares its rules, once: later scans find them ready",))
    step = Step(
        argv=(PROGRAM, *scanner.argv),
        cwd="/",
        mounts=(
            Mount(str(_program(scanner)), PROGRAM),
            Mount(str(task.tree), "/app"),
            Mount(str(out), OUT, writable=True),
            Mount(str(cache), CACHE, writable=True),
        ),
        env=scanner.env,
        seconds=scanner.seconds,
        secrets=task.secrets,
        fence=task.fence,
    )
    result = await sandbox.run(step, task.log)
    if result.timed_out or result.exit_code not in scanner.done:
        raise Invalid(f"it ended with {result.exit_code}: {result.tail.strip()[-500:]}", where=scanner.name)
    report = out / REPORT
    if not report.is_file() or report.stat().st_size > MAX_BYTES:
        raise Invalid(f"it wrote no report of at most {MAX_BYTES} bytes", where=scanner.name)
    # Without a sandbox the tool sees the tree where it is; evidence names files as the sandbox does.
    data = report.read_bytes().replace(f"{task.tree}/".encode(), b"/app/")
    found = parse_sarif(data, f"{scanner.name}'s report", "platform")
    return [at_least(findings, scanner.floor) for findings in found]


def _program(scanner: Scanner) -> Path:
    spec = importlib.util.find_spec(scanner.package) if scanner.package else None
    if spec is not None and spec.origin is not None:
        inside = Path(spec.origin).parent / scanner.inside
        if inside.is_file():
            return inside
    system = shutil.which(scanner.name)
    if system is None:
        raise Unavailable(f"{scanner.name} is not installed", next_move=scanner.install)
    return Path(system).resolve()
