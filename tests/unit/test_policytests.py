"""The tests beside policies: those of the shipped ones, and what the runner says of bad ones."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest

from fakes.language import FakeLanguage
from penstock.bootstrap.identity import LEADS
from penstock.cli.main import main
from penstock.errors import Invalid
from penstock.policyfile import parse_policy
from penstock.policytests import load_tests, run_case

POLICY = """
policy: p
owner: test-lead
guards: [deploy]
environments: [production]
fresh: {evidence.tests: 100}
rules:
  - {id: none-failed, when: "evidence.tests.failed == 0", say: "'none'", else: "'some'"}
"""


def run(tests: str) -> list[str]:
    """What is wrong, in words, case by case."""
    policy = parse_policy(POLICY.encode(), "p.yaml")
    rules = FakeLanguage().compile(policy)
    cases = load_tests(tests.encode(), "p.test.yaml")
    return [f"{f.case}: {f.problem}" for case in cases for f in run_case(policy, rules, case)]


def case(**given: object) -> str:
    return json.dumps({"cases": [{"name": "c", **given}]})


@pytest.mark.parametrize("lead", LEADS)
def test_every_shipped_policy_has_tests_and_they_pass(lead: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(files("penstock") / "policies" / f"{lead}.yaml")
    assert main(["policy", "test", path, "-o", "json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert (result["policy"], result["failures"]) == (lead, [])
    assert result["cases"] >= 4


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"evidence.tests.failed": 0}, "PASS"),
        ({"evidence.tests.failed": 1}, "FAIL"),
        ({}, "MISSING"),
    ],
)
def test_a_case_expects_a_verdict(facts: dict[str, object], expected: str) -> None:
    for said in ("PASS", "FAIL", "MISSING", "STALE", "ERROR"):
        problems = run(case(facts=facts, expect=said))
        assert bool(problems) == (said != expected), problems


def test_a_case_can_be_about_age() -> None:
    facts = {"evidence.tests.failed": 0}
    assert run(case(facts=facts, ages={"evidence.tests": 99}, expect="PASS")) == []
    assert run(case(facts=facts, ages={"evidence.tests": 101}, expect="STALE")) == []


def test_a_case_can_be_about_rules_and_words() -> None:
    facts = {"evidence.tests.failed": 0}
    (problem,) = run(case(facts=facts, expect="PASS", rules={"none-failed": "FAIL"}))
    assert "rule none-failed: expected FAIL, found PASS" in problem
    (problem,) = run(case(facts=facts, expect="PASS", rules={"other": "PASS"}))
    assert "there is no rule 'other'" in problem
    (problem,) = run(case(facts=facts, expect="PASS", says="many"))
    assert "it says: none" in problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("cases: []", "nothing is tested"),
        ("{}", "missing field 'cases'"),
        (case(expect="PASS", facts={"evidence.tests.fialed": 0}), "no fact 'evidence.tests.fialed'"),
        (case(expect="PASS", facts={"evidence.tests.failed": "0"}), "is of type int"),
        (case(expect="PASS", facts={"evidence.tests.failed": True}), "is of type int"),
        (case(expect="PASS", facts={"evidence.tests.failing": [1]}), "expected"),
        (case(expect="MAYBE"), "expected one of"),
        (case(), "missing field 'expect'"),
        ("cases: [{name: a, expect: PASS}]\nfacst: {}", "unknown field 'facst'"),
    ],
)
def test_a_bad_test_file_is_invalid(text: str, problem: str) -> None:
    with pytest.raises(Invalid, match=problem):
        run(text)


def test_a_policy_without_tests_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (files("penstock") / "policies" / "test-lead.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text)
    assert main(["policy", "test", str(tmp_path)]) == 1
    assert "no tests beside it" in capsys.readouterr().out
    (tmp_path / "mine.test.yaml").write_text(case(expect="PASS"))
    assert main(["policy", "test", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "0 of 1 cases pass" in out
    assert "✗ c: expected PASS, found MISSING" in out
    assert main(["policy", "lint", str(tmp_path / "mine.yaml")]) == 0
