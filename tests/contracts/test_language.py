"""The language contract on CEL, Rego and the fake, and what only CEL can get wrong (Rego: test_rego)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from contracts.language import LanguageContract, RulesContract, Subject
from fakes.language import FakeLanguage
from penstock.adapters.cel import MAX_EXPRESSION, Cel
from penstock.adapters.rego import Rego
from penstock.adapters.rego.tokens import MAX_MODULE
from penstock.core.facts import FACTS, Fact
from penstock.core.policy import PolicyDocument, RuleDocument
from penstock.core.verdict import Cause, Result
from penstock.errors import Invalid

CEL = Cel()
REGO = Rego()


def on_cel() -> Subject:
    return Subject(
        language=CEL,
        nothing_failed="evidence.tests.failed == 0",
        first="release.first",
        fast="evidence.acceptance.p95_ms <= 100.0",
        raising="1 / evidence.tests.failed > 0",
        text="'fine'",
        named="artifact.name",
        needs_author="'by ' + change.author",
        refused={
            "evidence.tests.fialed == 0": "a misspelt fact",
            "evidence.tests.failed == '0'": "two types",
            "evidence.tests.failed": "not a boolean",
            "evidence.tests.failed ==": "no expression",
            "": "nothing",
            "evidence.tests.failed == 0" + " " * MAX_EXPRESSION: "too long",
        },
    )


class TestCel(RulesContract):
    @pytest.fixture
    def subject(self) -> Subject:
        return on_cel()

    def test_an_error_names_line_and_column(self, subject: Subject) -> None:
        with pytest.raises(Invalid) as caught:
            subject.decide("release.first\n  && evidence.tests.fialed == 0", {})
        assert caught.value.where.startswith("tests: rule the-rule: when:2:")
        assert "evidence.tests.fialed" in caught.value.what

    @pytest.mark.parametrize("name", FACTS)
    def test_every_fact_is_declared_with_its_type(self, subject: Subject, name: str) -> None:
        kind = FACTS[name][0]
        same = {"texts": f"{name}.size() == 0", "text": f"{name} == ''", "bool": f"{name} == true"}
        assert not subject.decide(same.get(kind, f"{name} <= {name}"), {}).verdict.passed
        other = f"{name} == 1" if kind in ("text", "texts", "bool") else f"{name} == ''"
        with pytest.raises(Invalid):
            subject.decide(other, {})

    def test_an_alternative_may_stand_in_for_what_is_absent(self, subject: Subject) -> None:
        either = "evidence.tests.failed == 0 || release.first"
        assert subject.decide(either, {"release.first": True}).verdict.passed
        verdict = subject.decide(either, {"release.first": False}).verdict
        assert (verdict.result, verdict.cause) == (Result.UNKNOWN, Cause.MISSING)

    def test_an_error_is_not_blamed_on_a_fact_that_was_not_needed(self, subject: Subject) -> None:
        facts: dict[str, Fact] = {"evidence.tests.failed": 0, "release.first": False}
        when = "release.first && evidence.tests.passed > 0 ? true : 1 / evidence.tests.failed > 0"
        assert subject.decide(when, facts).verdict.cause is Cause.ERROR

    def test_a_rule_cannot_take_for_ever(self, subject: Subject) -> None:
        names: Fact = tuple(f"test-{number}" for number in range(50))
        when = "true"
        for variable in "edcba":
            when = f"evidence.tests.failing.all({variable}, {when})"
        verdict = subject.decide(when, {"evidence.tests.failing": names}).verdict
        assert (verdict.result, verdict.cause) == (Result.UNKNOWN, Cause.ERROR)

    def test_a_list_can_be_told_in_words(self, subject: Subject) -> None:
        facts: dict[str, Fact] = {"evidence.tests.failed": 2, "evidence.tests.failing": ("a", "b")}
        found = subject.decide(subject.nothing_failed, facts, otherwise="evidence.tests.failing.join(', ')")
        assert found.says == "a, b"
        assert found.values["evidence.tests.failing"] == ("a", "b")

    def test_a_fact_whose_name_begins_like_another_is_not_mentioned(self, subject: Subject) -> None:
        facts: dict[str, Fact] = {"evidence.acceptance.p95_ms": 5.0, "evidence.acceptance.p95_limit_ms": 9.0}
        assert subject.decide(subject.fast, facts).values == {"evidence.acceptance.p95_ms": 5.0}

    def test_one_bad_rule_refuses_the_whole_policy(self, subject: Subject) -> None:
        good = RuleDocument("good", "release.first", "''", "''")
        bad = RuleDocument("bad", "release.frist", "''", "''")
        with pytest.raises(Invalid, match="rule bad"):
            CEL.compile(subject.policy(good, bad))


class RegoSubject(Subject):
    """In Rego a policy says what is denied, with the words for it; a pass has none of its own."""

    def policy(self, *rules: RuleDocument) -> PolicyDocument:
        denied = [f"deny contains {rule.otherwise} if {{ not {rule.when} }}" for rule in rules]
        module = "\n".join(["package tests", "import rego.v1", *denied])
        return replace(super().policy(), module=module, language="rego")


class TestRego(LanguageContract):
    @pytest.fixture
    def subject(self) -> Subject:
        return RegoSubject(
            language=REGO,
            nothing_failed="input.evidence.tests.failed == 0",
            first="input.release.first",
            fast="input.evidence.acceptance.p95_ms <= 100",
            raising="1 / input.evidence.tests.failed > 0",
            text='"fine"',
            named="input.artifact.name",
            needs_author='concat("", ["by ", input.change.author])',
            refused={
                "input.evidence.tests.fialed == 0": "a misspelt fact",
                "inptu.evidence.tests.failed == 0": "a misspelt root",
                'input.evidence.tests.failed == "0"': "two types",
                "input.evidence.tests.failed": "not a boolean",
                "input.evidence.tests.failed ==": "no expression",
                "": "nothing",
                "input.release.first" + " " * MAX_MODULE: "too long",
            },
            no_words=("input.evidence.tests.failed", "input.evidence.tests.no_such_fact"),
            place="tests: module:",
        )


class TestFake(RulesContract):
    @pytest.fixture
    def subject(self) -> Subject:
        return Subject(
            language=FakeLanguage(),
            nothing_failed="evidence.tests.failed == 0",
            first="release.first == true",
            fast="evidence.acceptance.p95_ms <= 100",
            raising="crash",
            text="'fine'",
            named="artifact.name",
            needs_author="change.author",
            refused={
                "evidence.tests.fialed == 0": "a misspelt fact",
                "evidence.tests.failed == zero": "two types",
                "evidence.tests.failed": "not a boolean",
            },
        )
