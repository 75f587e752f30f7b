"""What decided a rule is told once: not again by the facts that its words were made of."""

from __future__ import annotations

import json

from penstock.core.decisive import decided_by

LONG = "no worse than the stable release: 0 of 516 failed against 0 of 1202"


def test_short_facts_are_all_told() -> None:
    values = {"evidence.canary.verdict": '"PASS"', "evidence.tests.failed": "0"}
    assert (
        decided_by(values, "PASS: 0 failed") == 'evidence.canary.verdict = "PASS", evidence.tests.failed = 0'
    )


def test_a_long_text_that_the_rule_says_is_not_told_twice() -> None:
    values = {"evidence.canary.explanation": json.dumps(LONG), "release.first": "false"}
    assert decided_by(values, f"the canary: {LONG}") == "release.first = false"
    assert LONG in decided_by(values, "the canary was good")


def test_a_list_is_told_whatever_it_holds() -> None:
    values = {"evidence.findings.ids": json.dumps(["x" * 50])}
    assert decided_by(values, values["evidence.findings.ids"]) != ""
