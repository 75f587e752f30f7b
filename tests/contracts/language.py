"""What every `Language` must do. Subclass `LanguageContract` and give it a fixture ``subject``.

`RulesContract` has more to ask of a language whose policies are lists of rules with words of their own.
Must not know which language it tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest

from penstock.core.facts import FACTS, Fact
from penstock.core.policy import PolicyDocument, RuleDocument, RuleVerdict
from penstock.core.verdict import Cause, Result
from penstock.errors import Invalid
from penstock.ports import Language


@dataclass(frozen=True)
class Subject:
    """A language, and how some rules are written in it.

    *nothing_failed* is true if ``evidence.tests.failed`` is 0, *first* if ``release.first``, *fast* if
    ``evidence.acceptance.p95_ms`` is at most 100. *raising* compiles, and goes wrong when it is asked.
    *text* writes a text, *named* the words that are the value of ``artifact.name``, *needs_author*
    words that need ``change.author``. *refused* are rules that must not compile, each with what is wrong,
    and *no_words* what no words can be. *place* begins the place that an error names.

    A language whose policies are whole programs writes a policy of its own in `policy`.
    """

    language: Language
    nothing_failed: str
    first: str
    fast: str
    raising: str
    text: str
    named: str
    needs_author: str
    refused: Mapping[str, str]
    no_words: tuple[str, ...] = ("evidence.tests.failed", "evidence.tests.no_such_fact")
    place: str = "tests: rule the-rule"

    def policy(self, *rules: RuleDocument) -> PolicyDocument:
        return PolicyDocument("tests", "test-lead", ("deploy",), ("production",), rules, "source")

    def decide(self, when: str, facts: Mapping[str, Fact], say: str = "", otherwise: str = "") -> RuleVerdict:
        rule = RuleDocument("the-rule", when, say or self.text, otherwise or self.text)
        (verdict,) = self.language.compile(self.policy(rule)).decide(facts)
        return verdict


class LanguageContract:
    def test_true_passes_and_false_fails(self, subject: Subject) -> None:
        assert subject.decide(subject.nothing_failed, {"evidence.tests.failed": 0}).verdict.passed
        failed = subject.decide(subject.nothing_failed, {"evidence.tests.failed": 1}).verdict
        assert (failed.result, failed.cause) == (Result.FAIL, None)

    @pytest.mark.parametrize("first", [True, False])
    def test_a_fact_that_is_a_boolean(self, subject: Subject, first: bool) -> None:
        assert subject.decide(subject.first, {"release.first": first}).verdict.passed is first

    @pytest.mark.parametrize(("p95", "fast"), [(99.5, True), (100.0, True), (100.5, False)])
    def test_a_fact_that_is_a_number(self, subject: Subject, p95: float, fast: bool) -> None:
        assert subject.decide(subject.fast, {"evidence.acceptance.p95_ms": p95}).verdict.passed is fast

    def test_an_absent_fact_is_missing_and_named(self, subject: Subject) -> None:
        verdict = subject.decide(subject.nothing_failed, {"release.first": True}, say=subject.needs_author,
                                 otherwise=subject.needs_author).verdict  # fmt: skip
        assert (verdict.result, verdict.cause) == (Result.UNKNOWN, Cause.MISSING)
        assert "evidence.tests.failed" in verdict.reason

    @pytest.mark.parametrize("value", ["0", True, 0.0, ("0",), float("nan")])
    def test_a_value_of_the_wrong_type_is_an_error(self, subject: Subject, value: Fact) -> None:
        verdict = subject.decide(subject.nothing_failed, {"evidence.tests.failed": value}).verdict
        assert (verdict.result, verdict.cause) == (Result.UNKNOWN, Cause.ERROR)

    @pytest.mark.parametrize("value", [1, "true", 0.5])
    def test_nothing_but_true_is_true(self, subject: Subject, value: Fact) -> None:
        verdict = subject.decide(subject.first, {"release.first": value}).verdict
        assert (verdict.result, verdict.cause) == (Result.UNKNOWN, Cause.ERROR)

    def test_whatever_goes_wrong_is_an_error_and_told(self, subject: Subject) -> None:
        facts: dict[str, Fact] = {"release.first": True, "evidence.tests.failed": 0}
        found = subject.decide(subject.raising, facts)
        assert (found.verdict.result, found.verdict.cause) == (Result.UNKNOWN, Cause.ERROR)
        assert found.says
        assert "fine" not in found.says

    def test_a_failure_is_told_in_the_words_of_the_policy(self, subject: Subject) -> None:
        facts: dict[str, Fact] = {"evidence.tests.failed": 2, "artifact.name": "catalog"}
        assert subject.decide(subject.nothing_failed, facts, otherwise=subject.named).says == "catalog"

    def test_the_values_are_those_that_the_rule_mentions(self, subject: Subject) -> None:
        facts: dict[str, Fact] = {
            "evidence.tests.failed": 0,
            "evidence.tests.failing": (),
            "artifact.name": "catalog",
            "release.first": True,
        }
        values = subject.decide(subject.nothing_failed, facts, otherwise=subject.named).values
        assert values == {"evidence.tests.failed": 0, "artifact.name": "catalog"}

    def test_the_same_facts_give_the_same_answer(self, subject: Subject) -> None:
        facts: dict[str, Fact] = {"evidence.tests.failed": 3}
        assert subject.decide(subject.nothing_failed, facts) == subject.decide(subject.nothing_failed, facts)

    def test_no_fact_at_all_never_raises_and_never_passes(self, subject: Subject) -> None:
        for when in (subject.nothing_failed, subject.first, subject.fast, subject.raising):
            assert not subject.decide(when, {}).verdict.passed

    def test_a_rule_that_cannot_be_right_is_refused_before_it_is_used(self, subject: Subject) -> None:
        assert subject.refused
        for when, what in subject.refused.items():
            with pytest.raises(Invalid) as caught:
                subject.decide(when, {})
            assert subject.place in caught.value.where, what
            assert caught.value.what

    def test_words_must_be_text_and_known(self, subject: Subject) -> None:
        for words in subject.no_words:
            with pytest.raises(Invalid) as caught:
                subject.decide(subject.first, {}, otherwise=words)
            assert subject.place in caught.value.where

    def test_a_policy_of_the_other_form_is_refused(self, subject: Subject) -> None:
        rules = (RuleDocument("the-rule", subject.first, subject.text, subject.text),)
        mine = subject.policy(*rules)
        for other_rules, module in ((rules, ""), ((), "package tests"), (rules, "package tests")):
            if (bool(other_rules), bool(module)) != (bool(mine.rules), bool(mine.module)):
                with pytest.raises(Invalid, match="module"):
                    subject.language.compile(replace(mine, rules=other_rules, module=module))

    def test_the_facts_that_are_tested_exist(self, subject: Subject) -> None:
        assert {"evidence.tests.failed", "release.first", "evidence.acceptance.p95_ms"} <= set(FACTS)


class RulesContract(LanguageContract):
    def test_words_come_from_the_side_that_was_taken(self, subject: Subject) -> None:
        facts: dict[str, Fact] = {"evidence.tests.failed": 0, "artifact.name": "catalog"}
        assert subject.decide(subject.nothing_failed, facts, say=subject.named).says == "catalog"
        assert subject.decide(subject.nothing_failed, facts, otherwise=subject.named).says == "fine"

    @pytest.mark.parametrize("failed", [0, 1])
    def test_words_that_cannot_be_formed_do_not_change_the_verdict(
        self, subject: Subject, failed: int
    ) -> None:
        words = {"say": subject.needs_author, "otherwise": subject.needs_author}
        found = subject.decide(subject.nothing_failed, {"evidence.tests.failed": failed}, **words)
        assert found.verdict.result is (Result.FAIL if failed else Result.PASS)
        assert found.says

    def test_every_rule_is_decided_in_order(self, subject: Subject) -> None:
        texts = {"b": subject.first, "a": subject.nothing_failed}
        rules = [RuleDocument(name, when, subject.text, subject.text) for name, when in texts.items()]
        compiled = subject.language.compile(subject.policy(*rules))
        decided = compiled.decide({"release.first": False, "evidence.tests.failed": 0})
        assert [(rule.id, rule.verdict.passed) for rule in decided] == [("b", False), ("a", True)]

    def test_the_words_of_a_pass_must_be_text_and_known(self, subject: Subject) -> None:
        for words in subject.no_words:
            with pytest.raises(Invalid, match="rule the-rule"):
                subject.decide(subject.first, {}, say=words)
