"""How fast policies decide: ten rules in CEL with their explanations, on 5 KB of facts that evidence gave.

    benchmarks/decisions.py [--json FILE]

A decision is a verdict, the words and the values of every rule. A sign-off is all that and more: the facts
are taken from the evidence anew, and the statement that goes into the ledger is made. One process, one core.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

from penstock.adapters.cel import Cel
from penstock.bootstrap.identity import shipped_policies
from penstock.core import factfinding
from penstock.core.authority import Authority
from penstock.core.digest import canonical, digest
from penstock.core.evidence import Entry, Statement, Subject, seal
from penstock.core.policy import PolicyDocument, judge, sign_off
from penstock.core.predicates import (
    BuildDefinition,
    BuilderId,
    BuildMetadata,
    Components,
    Coverage,
    Finding,
    Findings,
    Predicate,
    Provenance,
    RunDetails,
    TestResult,
)
from penstock.core.release import Artifact, Change, Release
from penstock.core.selection import Question
from penstock.policyfile import parse_policy

DECISIONS = 2000
#: Id, when, say, else: some with lists, all with words made of values.
RULES = (
    (
        "tests",
        "evidence.tests.failed == 0",
        "'all ' + string(evidence.tests.passed) + ' passed'",
        "string(evidence.tests.failed) + ' failed: ' + evidence.tests.failing.join(', ')",
    ),
    (
        "names",
        "evidence.tests.failing.all(name, name.startsWith('suite'))",
        "'only known suites'",
        "'unknown suites in ' + evidence.tests.failing.join(', ')",
    ),
    (
        "enough",
        "evidence.tests.passed >= 50",
        "string(evidence.tests.passed) + ' tests'",
        "'only ' + string(evidence.tests.passed) + ' tests'",
    ),
    (
        "critical",
        "evidence.findings.critical == 0",
        "'no critical findings in ' + artifact.name",
        "string(evidence.findings.critical) + ' critical: ' + evidence.findings.ids.join(', ')",
    ),
    (
        "high",
        "evidence.findings.high < 5",
        "string(evidence.findings.high) + ' high'",
        "'too many: ' + string(evidence.findings.high)",
    ),
    (
        "scanners",
        "evidence.findings.scanners >= 1",
        "string(evidence.findings.scanners) + ' scanners'",
        "'no scanner reported'",
    ),
    (
        "coverage",
        "evidence.coverage.lines >= 0.8",
        "'covered: ' + string(evidence.coverage.lines)",
        "'covered only ' + string(evidence.coverage.lines)",
    ),
    (
        "author",
        "change.author != '' && change.kind in ['code', 'configuration']",
        "change.kind + ' by ' + change.author",
        "'nobody made it'",
    ),
    (
        "builder",
        "evidence.provenance.builder.startsWith('urn:penstock:')",
        "'built by ' + evidence.provenance.builder",
        "'not by us: ' + evidence.provenance.builder",
    ),
    (
        "licences",
        "evidence.components.unlicensed == 0 && !('AGPL-3.0' in evidence.components.licences)",
        "string(evidence.components.count) + ' components'",
        "'licences: ' + evidence.components.licences.join(', ')",
    ),
)
ARTIFACT = Artifact("catalog", digest(b"artifact"))
RELEASE = Release("catalog", "production", ARTIFACT.digest, digest(b"data"))
CHANGE = Change("code", "catalog", "production", "/repo", "ab" * 20, "ada", "a change")
QUESTION = Question("d-1", "deploy", CHANGE, ARTIFACT, RELEASE, False, 50, 1_700_000_000.25)


def policy() -> PolicyDocument:
    rules = [dict(zip(("id", "when", "say", "else"), rule, strict=True)) for rule in RULES]
    heading = {"policy": "ten-rules", "owner": "test-lead", "guards": ["deploy"]}
    text = json.dumps({**heading, "environments": ["production"], "rules": rules})
    return parse_policy(text.encode(), "policy")


def evidence() -> tuple[Entry, ...]:
    """Much of everything: fifty failed tests, fifty critical findings, fifty licences."""
    definition = BuildDefinition("urn:x", {}, {"isolation": "bubblewrap"}, ())
    failed = tuple(f"suite_{n:02}/tests/test_shop.py::test_it_says_{n:02}" for n in range(50))
    critical = tuple(Finding(f"CVE-2026-{n:05}", "critical", "bad") for n in range(50))
    said: tuple[Predicate, ...] = (
        Provenance(definition, RunDetails(BuilderId("urn:penstock:builder:python"), BuildMetadata("1"))),
        TestResult("FAILED", "unit", (), 100, 50, 0, failed),
        Coverage("unit", 90, 100, "self-reported"),
        Findings("scanner", "platform", 50, 1, 0, 0, critical),
        Components("components", "platform", 100, 0, tuple(f"Licence-{n:03}" for n in range(50))),
    )
    return tuple(entry(index, predicate) for index, predicate in enumerate(said))


def entry(index: int, predicate: Predicate) -> Entry:
    statement = Statement((Subject("catalog", ARTIFACT.digest),), predicate)
    return Entry(index, seal(statement.payload(), "ab" * 32, b"signature"), statement)


def measure() -> dict[str, float]:
    language, asked, entries = Cel(), policy(), evidence()
    rules, nobody = language.compile(asked), Authority()
    facts = factfinding.facts(entries, QUESTION, nobody)
    decided = judge(asked, rules, facts, {})
    assert [rule.id for rule in decided if not rule.verdict.passed] == ["tests", "critical"], decided
    small = parse_policy(shipped_policies()[0].encode(), "policy")
    few = language.compile(small)
    return {
        "bytes of facts": len(canonical(facts)),
        "decisions/s: ten rules": rate(lambda: judge(asked, rules, facts, {}), DECISIONS),
        "sign-offs/s: ten rules, from evidence": rate(
            lambda: sign_off(QUESTION, asked, "urn:penstock:entry:1", rules, entries, nobody), DECISIONS
        ),
        "decisions/s: the shipped development-lead's": rate(lambda: few.decide(facts), DECISIONS),
        "policies compiled/s: ten rules": rate(lambda: language.compile(asked), DECISIONS // 20),
    }


def rate(work: Callable[[], object], times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        work()
    return times / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    figures = measure()
    for name, value in figures.items():
        print(f"{name:50} {value:10,.0f}")
    if given.json:
        given.json.write_text(json.dumps({"figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
