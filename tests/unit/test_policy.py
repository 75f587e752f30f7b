"""Selection, facts and sign-offs, without a ledger: which evidence counts, and what it says."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from fakes.language import FakeLanguage
from penstock.core.authority import Authority
from penstock.core.digest import digest
from penstock.core.evidence import Entry, Statement, Subject, seal
from penstock.core.factfinding import facts
from penstock.core.facts import FACTS, MAX_NAMES, fits
from penstock.core.policy import PolicyDocument, RuleDocument, guarding, sign_off
from penstock.core.predicates import (
    Accepted,
    Coverage,
    Finding,
    Findings,
    Imported,
    Look,
    Predicate,
    Proposed,
    SignOff,
    TestResult,
)
from penstock.core.release import Artifact, Change, Release
from penstock.core.selection import Question, select
from penstock.core.traffic import Counters
from penstock.errors import Invalid
from penstock.policyfile import parse_policy

ARTIFACT = Artifact("catalog", digest(b"a"))
OTHER = Artifact("catalog", digest(b"b"))
RELEASE = Release("catalog", "production", ARTIFACT.digest, digest(b"data"))
CHANGE = Change("code", "catalog", "production", "/repo", "ab" * 20, "ada", "a change")
QUESTION = Question("d", "deploy", CHANGE, ARTIFACT, RELEASE, False, 50, 1000.25)
NONE = Counters("r", 1.0, "e", 0, 0)


def entry(
    index: int, predicate: Predicate, artifact: Artifact = ARTIFACT, release: Release = RELEASE
) -> Entry:
    subjects = (Subject("a", artifact.digest), Subject("r", release.digest))
    statement = Statement(subjects, predicate)
    return Entry(index, seal(statement.payload(), "ab" * 32, b"s"), statement)


def suite_ran(suite: str = "unit", passed: int = 1, failed: int = 0) -> TestResult:
    names = tuple(f"{suite}-{number}" for number in range(failed))
    return TestResult("FAILED" if failed else "PASSED", suite, (), passed, failed, 2, names)


def signed_elsewhere(report: Predicate) -> Imported:
    """The report as a source signs it. Nobody here asks whose signature it is."""
    payload = Statement((Subject("a", ARTIFACT.digest),), report).payload()
    envelope = seal(payload, "ab" * 32, b"s").raw
    return Imported("ci", report.TYPE, base64.b64encode(envelope).decode())


def findings(tool: str, origin: str = "platform", ids: tuple[str, ...] = ()) -> Findings:
    listed = tuple(Finding(name, "critical", "bad") for name in ids)
    return Findings(tool, origin, len(ids), 1, 0, 0, listed)  # type: ignore[arg-type]


def look(verdict: str = "PASS") -> Look:
    return Look(verdict, "words", 1, 2, 3, False, NONE, Counters("r", 2.0, "e", 9, 0), NONE, NONE)  # type: ignore[arg-type]


def begun(delivery: str = "d") -> Proposed:
    return Proposed(delivery, CHANGE)


def selected(*entries: Entry, size: int = 100) -> list[int]:
    found = select(entries, replace(QUESTION, size=size))
    return [item.index for item in found]


class TestSelection:
    def test_the_newest_of_each_suite_tool_and_type_counts(self) -> None:
        entries = [
            entry(1, suite_ran("unit")),
            entry(2, suite_ran("e2e")),
            entry(3, Coverage("unit", 1, 2, "self-reported")),
            entry(4, findings("secrets")),
            entry(5, findings("secrets", "self-reported")),
            entry(6, suite_ran("unit")),
            entry(7, findings("secrets")),
        ]
        assert selected(*entries) == [2, 3, 5, 6, 7]
        assert selected(*reversed(entries)) == [2, 3, 5, 6, 7]
        assert selected(*entries, *entries) == [2, 3, 5, 6, 7]

    def test_of_what_was_signed_elsewhere_no_suite_hides_another(self) -> None:
        failed, passed = suite_ran("unit", 0, 2), suite_ran("lint")
        said = [signed_elsewhere(report) for report in (failed, passed, findings("a"))]
        entries = [entry(number, one) for number, one in enumerate(said, 1)]
        assert selected(*entries, entry(4, signed_elsewhere(findings("b")))) == [1, 2, 3, 4]
        assert selected(*entries, entry(4, signed_elsewhere(suite_ran("unit")))) == [2, 3, 4]

    def test_only_what_the_gate_could_see_counts(self) -> None:
        assert selected(entry(1, suite_ran(passed=1)), entry(5, suite_ran(passed=2)), size=5) == [1]

    def test_evidence_about_something_else_does_not_count(self) -> None:
        other = Release("catalog", "production", OTHER.digest, digest(b"data"))
        entries = [entry(2, suite_ran(), OTHER, other), entry(3, Accepted(1, 0, ()), OTHER, other)]
        assert selected(entry(1, begun()), *entries) == []

    def test_what_users_saw_counts_only_from_this_delivery_on(self) -> None:
        before = [entry(1, look()), entry(2, Accepted(1, 0, ())), entry(3, suite_ran())]
        after = [entry(5, look()), entry(6, Accepted(1, 0, ()))]
        assert selected(*before, *after) == [3]
        assert selected(*before, entry(4, begun("other")), *after) == [3]
        assert selected(*before, entry(4, begun()), *after) == [3, 5, 6]

    def test_a_sign_off_is_no_evidence_for_another(self) -> None:
        assert selected(entry(1, begun()), entry(2, decided(suite_ran()))) == []


class TestFacts:
    def given(self, *predicates: Predicate) -> dict[str, object]:
        entries = [entry(number, predicate) for number, predicate in enumerate(predicates)]
        found = facts(entries, QUESTION, Authority())
        assert all(name in FACTS and fits(name, value) for name, value in found.items())
        return {name: value for name, value in found.items() if name.startswith("evidence.")}

    def test_what_no_evidence_gives_is_absent(self) -> None:
        assert self.given() == {}

    def test_suites_are_added_up(self) -> None:
        assert self.given(suite_ran("unit", 3, 1), suite_ran("e2e", 2, 2)) == {
            "evidence.tests.passed": 5,
            "evidence.tests.failed": 3,
            "evidence.tests.skipped": 4,
            "evidence.tests.failing": ("unit-0", "e2e-0", "e2e-1"),
            "evidence.tests.blocking": 3,
            "evidence.tests.quarantined": (),
            "evidence.tests.independent": 0,
            "evidence.tests.origins": ("self-reported",),
        }

    def test_an_empty_run_passes_nothing(self) -> None:
        assert self.given(suite_ran(passed=0))["evidence.tests.passed"] == 0

    def test_names_are_cut_and_counts_are_not(self) -> None:
        found = self.given(suite_ran(failed=200), findings("x", ids=tuple(f"CVE-{n}" for n in range(200))))
        assert found["evidence.tests.failed"] == 200
        assert len(found["evidence.tests.failing"]) == MAX_NAMES  # type: ignore[arg-type]
        assert found["evidence.findings.critical"] == 200
        assert len(found["evidence.findings.ids"]) == MAX_NAMES  # type: ignore[arg-type]

    def test_a_change_cannot_scan_itself(self) -> None:
        found = self.given(findings("own", "self-reported", ("A",)), findings("ours", ids=("A", "B")))
        assert found == {
            "evidence.findings.scanners": 1,
            "evidence.findings.critical": 3,
            "evidence.findings.high": 2,
            "evidence.findings.ids": ("A", "B"),
            "evidence.findings.origins": ("platform", "self-reported"),
        }

    def test_coverage_is_of_all_lines_together(self) -> None:
        reports = Coverage("a", 1, 1, "self-reported"), Coverage("b", 0, 3, "self-reported")
        assert self.given(*reports) == {
            "evidence.coverage.lines": 0.25,
            "evidence.coverage.origins": ("self-reported",),
        }
        assert self.given(Coverage("a", 0, 0, "self-reported")) == {}

    def test_the_canary_counts_what_came_during_it(self) -> None:
        found = self.given(look())
        assert found["evidence.canary.requests"] == 9
        assert found["evidence.canary.verdict"] == "PASS"


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("change.author", "ada", True),
        ("change.author", 1, False),
        ("evidence.tests.passed", 1, True),
        ("evidence.tests.passed", True, False),
        ("evidence.tests.passed", 1.0, False),
        ("evidence.coverage.lines", 0.5, True),
        ("evidence.coverage.lines", 1, False),
        ("evidence.coverage.lines", float("nan"), False),
        ("evidence.coverage.lines", float("inf"), False),
        ("release.first", True, True),
        ("release.first", 1, False),
        ("evidence.tests.failing", (), True),
        ("evidence.tests.failing", ("a", 1), False),
        ("evidence.tests.failing", "a", False),
    ],
)
def test_a_fact_has_exactly_its_type(name: str, value: object, right: bool) -> None:
    assert fits(name, value) is right  # type: ignore[arg-type]


def document(*rules: RuleDocument, **changes: object) -> PolicyDocument:
    return PolicyDocument("p", "test-lead", ("deploy",), ("production",), rules, "text", **changes)  # type: ignore[arg-type]


def decided(*predicates: Predicate, rules: tuple[str, ...] = ("evidence.tests.failed == 0",)) -> SignOff:
    policy = document(*(RuleDocument(when, when, "'yes'", "'no'") for when in rules))
    entries = [entry(number, predicate) for number, predicate in enumerate(predicates)]
    rules_ = FakeLanguage().compile(policy)
    return sign_off(QUESTION, policy, "urn:penstock:entry:3", rules_, entries, Authority())


class TestSignOff:
    def test_what_it_says(self) -> None:
        signed = decided(suite_ran())
        assert (signed.verification_result, signed.penstock.verdict) == ("PASSED", "PASS")
        assert signed.penstock.cause is None
        assert signed.time_verified == "1970-01-01T00:16:40Z"
        assert signed.policy.digest == {"sha256": digest(b"text")[7:]}
        assert signed.input_attestations[0].uri == "urn:penstock:entry:0"
        assert signed.penstock.rules[0].values == {"evidence.tests.failed": "0"}
        assert signed.penstock.expires == 1000.25 + 86400

    def test_the_same_question_gives_the_same_bytes(self) -> None:
        subject = (Subject("r", RELEASE.digest),)
        payloads = {Statement(subject, decided(suite_ran(failed=1))).payload() for _ in range(3)}
        assert len(payloads) == 1

    @pytest.mark.parametrize(
        ("rules", "verdict", "cause", "words"),
        [
            (("evidence.tests.failed == 0", "evidence.tests.passed > 0"), "PASS", None, "yes; yes"),
            (("evidence.tests.failed > 0", "evidence.tests.passed > 0"), "FAIL", None, "no"),
            (("evidence.tests.failed > 0", "evidence.coverage.lines > 0"), "FAIL", None, "no"),
            (("evidence.tests.failed == 0", "crash"), "UNKNOWN", "ERROR", "division"),
            (("evidence.coverage.lines > 0", "crash"), "UNKNOWN", "ERROR", "no evidence for"),
            (("evidence.coverage.lines > 0",), "UNKNOWN", "MISSING", "no evidence for evidence.coverage"),
            ((), "UNKNOWN", "MISSING", ""),
        ],
    )
    def test_rules_are_combined(
        self, rules: tuple[str, ...], verdict: str, cause: str | None, words: str
    ) -> None:
        signed = decided(suite_ran(), rules=rules)
        assert (signed.penstock.verdict, signed.penstock.cause) == (verdict, cause)
        assert (signed.verification_result == "PASSED") == (verdict == "PASS") == bool(signed.verified_levels)
        assert words in signed.penstock.explanation


@pytest.mark.parametrize(
    ("scope", "team", "holds"),
    [
        ("organisation", None, True),
        ("team/shop", "shop", True),
        ("team/shop", "other", False),
        ("team/shop", None, False),
        ("service/catalog", None, True),
        ("service/other", "other", False),
    ],
)
def test_where_a_policy_holds(scope: str, team: str | None, holds: bool) -> None:
    policy = document(scope=scope)
    assert bool(guarding([policy], "deploy", "catalog", team, "production")) is holds
    assert guarding([policy], "promote", "catalog", team, "production") == []
    assert guarding([policy], "deploy", "catalog", team, "staging") == []


POLICY = """policy: p
owner: test-lead
guards: [deploy]
environments: [production]
rules:
  - id: one
    when: "true"
    say: "'yes'"
    else: "'no'"
"""


def test_a_policy_is_read_with_its_exact_text() -> None:
    found = parse_policy(POLICY.encode(), "p.yaml")
    assert found == replace(document(RuleDocument("one", "true", "'yes'", "'no'")), source=POLICY)


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("guards: [deploy]", "guards: [rollback]", "rollback"),
        ("guards: [deploy]", "guards: []", "nothing"),
        ("environments: [production]", "environments: []", "environment"),
        ("environments: [production]\n", "", "missing field 'environments'"),
        ("rules:", "soak: {production: 60}\nrules:", "'production' is not another environment"),
        ("rules:", "soak: {EU: 60}\nrules:", "'EU' is not another environment"),
        ("rules:", "soak: {eu: -1}\nrules:", "soak must be from 0 to 2592000 seconds"),
        ("rules:", "soak: [eu]\nrules:", "soak"),
        ("owner:", "ownr:", "unknown field 'ownr'"),
        ("policy: p", "policy: Not A Name", "names"),
        ('when: "true"', "when: true", "expected text, found True"),
        ("    else: \"'no'\"\n", "", "missing field 'else'"),
        ("    say:", "    sya:", "unknown field 'sya'"),
        ("rules:\n  - id: one\n    when", "rules: []\nx:\n  - id: one\n    when", "unknown field 'x'"),
    ],
)
def test_a_policy_that_is_wrong_is_refused_with_its_place(old: str, new: str, what: str) -> None:
    assert POLICY.count(old) == 1
    with pytest.raises(Invalid) as caught:
        parse_policy(POLICY.replace(old, new).encode(), "p.yaml")
    assert caught.value.where.startswith("p.yaml")
    assert what in str(caught.value)


def test_a_rule_is_named_once_and_there_is_one() -> None:
    rule = POLICY[POLICY.index("  - id") :]
    for text in (POLICY + rule, POLICY.replace("rules:\n" + rule, "rules: []\n")):
        with pytest.raises(Invalid, match="distinct ids"):
            parse_policy(text.encode(), "p.yaml")


MODULE = POLICY[: POLICY.index("rules:")] + 'language: rego\nmodule: |\n  package p\n  deny contains "x"\n'


def test_a_policy_may_be_a_module_instead() -> None:
    found = parse_policy(MODULE.encode(), "p.yaml")
    assert (found.language, found.rules, found.module) == ("rego", (), 'package p\ndeny contains "x"\n')
    assert found.source == MODULE


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (MODULE + POLICY[POLICY.index("rules:") :], "p.yaml:6"),
        (MODULE + "rules: []\n", "p.yaml:6"),
        (MODULE[: MODULE.index("module:")], "p.yaml:1"),
        (MODULE[: MODULE.index("module:")] + "module: ' '\n", "p.yaml:6"),
        (MODULE[: MODULE.index("module:")] + "module: [a]\n", "p.yaml:6"),
    ],
)
def test_a_policy_has_either_rules_or_a_module(text: str, where: str) -> None:
    with pytest.raises(Invalid, match="module") as caught:
        parse_policy(text.encode(), "p.yaml")
    assert caught.value.where == where
