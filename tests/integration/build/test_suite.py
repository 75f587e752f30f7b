"""Suites and scanners in a real sandbox: what they report, and that nothing can pass silently."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from building import task_for, write

from penstock.adapters.build import ProjectTools
from penstock.checks import scan, suite
from penstock.checks.scan import Scanner
from penstock.config import AcceptanceConfig, ServiceConfig, SuiteConfig
from penstock.core.pipeline import Intent, State
from penstock.core.predicates import Coverage, Findings, Predicate, TestResult
from penstock.errors import Broken, Invalid
from penstock.ports import Outcome, Sandbox

PASSING = '<testsuite><testcase classname="a" name="b"/></testsuite>'
LCOV = "SF:app.py\nDA:1,1\nDA:2,0\nend_of_record\n"
RUN = '{"tool": {"driver": {"name": "lint"}}, "results": [{"ruleId": "R1"}]}'
SARIF = f'{{"version": "2.1.0", "runs": [{RUN}]}}'
FAILS_AFTER_ALL = f"open('junit.out', 'w').write({PASSING!r}); raise SystemExit(9)"

needs_kingfisher = pytest.mark.skipif(
    importlib.util.find_spec("kingfisher") is None and os.environ.get("CI") != "true",
    reason='pip install "penstock[scan]"',
)


def python(code: str) -> str:
    return shlex.join(["python3", "-c", code])


def says(**reports: str) -> str:
    """A suite command that writes these texts into files (``junit`` → ``junit.out``)."""
    code = "; ".join(f"open({name + '.out'!r}, 'w').write({text!r})" for name, text in reports.items())
    return python(code or "pass")


async def run(sandbox: Sandbox, work: Path, **suites: SuiteConfig) -> Outcome:
    write(work / "tree", {"README.md": ""})
    task = task_for(work, ServiceConfig(service="shop", checks=suites))
    return await suite.perform(task, sandbox=sandbox, tools=ProjectTools(sandbox, work / "cache"))


def predicates(outcome: Outcome) -> list[Predicate]:
    return [statement.predicate for statement in outcome.statements]


async def test_every_report_becomes_self_reported_evidence(sandbox: Sandbox, tmp_path: Path) -> None:
    unit = SuiteConfig(
        run=says(junit=PASSING, cov=LCOV, sarif=SARIF),
        junit="junit.out",
        coverage="cov.out",
        sarif="sarif.out",
    )
    outcome = await run(sandbox, tmp_path, unit=unit)
    assert outcome.state is State.SUCCESS
    tests, coverage, findings = predicates(outcome)
    assert tests == TestResult("PASSED", "unit", (), 1, 0, 0, (), "self-reported")
    assert coverage == Coverage("unit", 1, 2, "self-reported")
    assert isinstance(findings, Findings)
    assert (findings.tool, findings.origin, findings.medium) == ("lint", "self-reported", 1)
    assert all(statement.about("sha256:" + "a" * 64) for statement in outcome.statements)


@pytest.mark.parametrize(
    ("command", "junit", "counts", "failing"),
    [
        ("python3 -c 'raise SystemExit(3)'", "junit.out", (0, 1), ("unit: exited with 3",)),
        ("python3 -c 'raise SystemExit(3)'", None, (0, 1), ("unit: exited with 3",)),
        ("absent-program", "junit.out", (0, 1), None),
        ("python3 -c pass", None, (1, 0), ()),
        (says(junit=PASSING), "junit.out", (1, 0), ()),
        (
            python(FAILS_AFTER_ALL),
            "junit.out",
            (1, 1),
            None,
        ),
    ],
)
async def test_a_command_that_fails_never_passes(
    sandbox: Sandbox,
    tmp_path: Path,
    command: str,
    junit: str | None,
    counts: tuple[int, int],
    failing: tuple[str, ...] | None,
) -> None:
    outcome = await run(sandbox, tmp_path, unit=SuiteConfig(run=command, junit=junit))
    (tests,) = predicates(outcome)
    assert isinstance(tests, TestResult)
    assert (tests.passed, tests.failed) == counts
    assert failing is None or tests.failed_tests == failing
    assert tests.result == ("FAILED" if counts[1] else "PASSED")


@pytest.mark.parametrize("text", [None, "garbage", "<!DOCTYPE x><testsuite/>"])
async def test_a_missing_or_damaged_report_is_an_error(
    sandbox: Sandbox, tmp_path: Path, text: str | None
) -> None:
    reports = {"junit": text} if text else {}
    good = SuiteConfig(run=says(junit=PASSING), junit="junit.out")
    bad = SuiteConfig(run=says(**reports), junit="junit.out")
    outcome = await run(sandbox, tmp_path, bad=bad, good=good)
    assert outcome.state is State.ERROR
    assert "junit.out" in outcome.reason
    assert [p.suite for p in predicates(outcome) if isinstance(p, TestResult)] == ["good"]


async def test_a_report_that_was_committed_does_not_count(sandbox: Sandbox, tmp_path: Path) -> None:
    write(tmp_path / "tree", {"junit.out": PASSING})
    outcome = await run(sandbox, tmp_path, unit=SuiteConfig(run="python3 -c pass", junit="junit.out"))
    assert outcome.state is State.ERROR
    assert (tmp_path / "tree/junit.out").read_text() == PASSING


async def test_a_report_that_links_out_is_an_error(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "secret.xml").write_text(PASSING)
    code = python(f"import os; os.symlink({str(tmp_path / 'secret.xml')!r}, 'junit.out')")
    outcome = await run(sandbox, tmp_path, unit=SuiteConfig(run=code, junit="junit.out"))
    assert outcome.state is State.ERROR
    assert not outcome.statements


async def test_an_analyser_that_finds_something_is_no_test(sandbox: Sandbox, tmp_path: Path) -> None:
    code = python(f"open('r', 'w').write({SARIF!r}); raise SystemExit(1)")
    audit = SuiteConfig(run=code, sarif="r")
    outcome = await run(sandbox, tmp_path, one=audit, two=audit)
    (findings,) = predicates(outcome)
    assert isinstance(findings, Findings)
    assert findings.medium == 2  # both suites', under one tool


async def test_a_stage_runs_its_own_check_for_its_own_target(sandbox: Sandbox, tmp_path: Path) -> None:
    """Of two reports by one tool the newer would count: each is named after its stage."""
    write(tmp_path / "tree", {"README.md": ""})
    report = {"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "lint"}}, "results": []}]}
    written = f"open('s', 'w').write({json.dumps(report)!r})"
    code = f"import os; {written}; print('for', os.environ['PENSTOCK_TARGET'])"
    checks = {
        "style": SuiteConfig(python(code), sarif="s", each=("src", "tools")),
        "other": SuiteConfig(python("raise SystemExit(1)")),
    }
    task = task_for(tmp_path, ServiceConfig(service="shop", checks=checks))
    for number, target in enumerate(("src", "tools"), 1):
        intent = Intent(f"style-{number}", "suite", part="style", target=target)
        outcome = await suite.perform(
            replace(task, intent=intent), sandbox=sandbox, tools=ProjectTools(sandbox, tmp_path / "cache")
        )
        (found,) = predicates(outcome)
        assert isinstance(found, Findings), outcome.reason
        assert found.tool == f"lint (style-{number})"
        assert f"for {target}" in (tmp_path / "log").read_text()


async def test_python_tests_are_found_and_get_pytest(sandbox: Sandbox, tmp_path: Path) -> None:
    """Needs the network once: pytest itself."""
    files = {
        "shop.py": "ANSWER = 42\n",
        "tests/test_shop.py": "import shop\ndef test_good(): assert shop.ANSWER == 42\n"
        "def test_bad(): assert shop.ANSWER == 43\n",
    }
    write(tmp_path / "tree", files)
    outcome = await suite.perform(
        task_for(tmp_path), sandbox=sandbox, tools=ProjectTools(sandbox, tmp_path / "cache")
    )
    (tests,) = predicates(outcome)
    assert isinstance(tests, TestResult), outcome.reason
    assert (tests.passed, tests.failed) == (1, 1)
    assert tests.failed_tests == ("tests.test_shop::test_bad",)
    assert {path.name for path in (tmp_path / "tree").rglob("*")} == {"shop.py", "tests", "test_shop.py"}


async def test_tools_of_an_earlier_delivery_need_no_network(sandbox: Sandbox, tmp_path: Path) -> None:
    files = {"requirements-dev.txt": "idna==3.10\n", "app.py": ""}
    config = ServiceConfig(service="shop", acceptance=AcceptanceConfig(run="idna x"))
    tools = ProjectTools(sandbox, tmp_path / "cache")
    prepared = []
    for name in ("one", "two"):
        write(tmp_path / name / "tree", files)
        prepared.append(await tools.prepare(task_for(tmp_path / name, config)))
    assert prepared[0] == prepared[1]
    assert not (tmp_path / "two/tools").exists()  # where a resolution would have worked


@pytest.mark.skipif(
    shutil.which("node") is None and os.environ.get("CI") != "true", reason="apt install nodejs"
)
async def test_node_tests_are_found(sandbox: Sandbox, tmp_path: Path) -> None:
    files = {
        "package.json": '{"scripts": {"test": "node --test"}}',
        "a.test.js": "const t = require('node:test'); t('yes', () => {}); t('no', () => { throw 1 })\n",
    }
    write(tmp_path / "tree", files)
    outcome = await suite.perform(
        task_for(tmp_path), sandbox=sandbox, tools=ProjectTools(sandbox, tmp_path / "cache")
    )
    (tests,) = predicates(outcome)
    assert isinstance(tests, TestResult)
    assert (tests.passed, tests.failed) == (1, 1)


async def test_no_checks_is_no_evidence(sandbox: Sandbox, tmp_path: Path) -> None:
    outcome = await run(sandbox, tmp_path)
    assert (outcome.state, outcome.statements) == (State.SUCCESS, ())


@needs_kingfisher
async def test_the_scanner_finds_a_key_that_tries_to_hide(sandbox: Sandbox, tmp_path: Path) -> None:
    openssl = "-----BEGIN PRIVATE KEY-----\n"
    body = "".join(
        f"{chr(65 + i % 26)}{chr(97 + i * 7 % 26)}{i * 31 % 97:02d}x{chr(75 + i % 9)}/Q" for i in range(120)
    )
    lines = "\n".join(body[i : i + 64] for i in range(0, len(body), 64))
    key = f"{openssl}{lines}\n-----END PRIVATE KEY----- # kingfisher:ignore\n"
    write(tmp_path / "tree", {"deploy.pem": key, ".gitignore": "*.pem\n", ".ignore": "*.pem\n", "app.py": ""})
    tools = ProjectTools(sandbox, tmp_path / "cache")
    outcome = await scan.perform(task_for(tmp_path), sandbox=sandbox, tools=tools)
    (findings,) = predicates(outcome)
    assert isinstance(findings, Findings), outcome.reason
    assert (findings.tool, findings.origin) == ("kingfisher", "platform")
    assert findings.critical + findings.high >= 1
    assert findings.findings[0].location.startswith("deploy.pem:")
    assert any(tools.cache("kingfisher").iterdir())
    (tmp_path / "tree/deploy.pem").unlink()
    clean = await scan.perform(task_for(tmp_path), sandbox=sandbox, tools=tools)
    (nothing,) = predicates(clean)
    assert nothing == Findings("kingfisher", "platform", 0, 0, 0, 0)


@pytest.mark.parametrize(
    "scanner",
    [
        Scanner("sh", ("-c", "exit 3")),
        Scanner("sh", ("-c", "true")),
        Scanner("sh", ("-c", "echo '{}' > /penstock/out/report.sarif")),
        Scanner("absent-scanner", ()),
    ],
)
async def test_a_scanner_that_crashes_gives_no_evidence(
    sandbox: Sandbox, tmp_path: Path, scanner: Scanner
) -> None:
    write(tmp_path / "tree", {"app.py": ""})
    tools = ProjectTools(sandbox, tmp_path / "cache")
    outcome = await scan.scan(task_for(tmp_path), [scanner], sandbox, tools)
    assert not outcome.statements
    assert f"{scanner.name} gave no evidence" in outcome.reason


async def test_any_tool_that_writes_sarif_can_be_added(sandbox: Sandbox, tmp_path: Path) -> None:
    write(tmp_path / "tree", {"report.json": SARIF})
    scanner = Scanner("sh", ("-c", "cat /app/report.json > /penstock/out/report.sarif"), floor="high")
    tools = ProjectTools(sandbox, tmp_path / "cache")
    outcome = await scan.scan(task_for(tmp_path), [scanner], sandbox, tools)
    (findings,) = predicates(outcome)
    assert isinstance(findings, Findings)
    assert (findings.tool, findings.high, findings.medium) == ("lint", 1, 0)


async def test_a_scanner_that_prepares_itself_first_says_so_once(sandbox: Sandbox, tmp_path: Path) -> None:
    write(tmp_path / "tree", {"report.json": SARIF})
    work = f"touch {scan.CACHE}/ready; cat /app/report.json > /penstock/out/report.sarif"
    scanner = Scanner("sh", ("-c", work), env={"RULES": scan.CACHE})
    tools, task = ProjectTools(sandbox, tmp_path / "cache"), task_for(tmp_path)
    for _ in range(2):
        await scan.scan(task, [scanner], sandbox, tools)
    assert task.log.read_text().count("sh prepares its rules, once") == 1


async def test_without_an_artifact_the_engine_is_broken(sandbox: Sandbox, tmp_path: Path) -> None:
    write(tmp_path / "tree", {})
    task = replace(task_for(tmp_path), artifact=None)
    with pytest.raises(Broken):
        await suite.perform(task, sandbox=sandbox, tools=ProjectTools(sandbox, tmp_path))


async def test_hostile_requirements_are_invalid(sandbox: Sandbox, tmp_path: Path) -> None:
    write(tmp_path / "tree", {"requirements-dev.txt": "--no-such-option\n", "app.py": ""})
    with pytest.raises(Invalid, match="resolving"):
        await ProjectTools(sandbox, tmp_path / "cache").prepare(task_for(tmp_path))
