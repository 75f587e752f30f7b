"""A policy language of five words, for tests that are not about CEL. Passes `contracts.language`.

``FACT OPERATOR VALUE`` with ``==``, ``>`` or ``<=``, or ``crash``; words are a text in single quotes, or
the name of a fact. Any policy is small enough for it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from penstock.core.facts import FACTS, Fact, FactType
from penstock.core.policy import PolicyDocument, RuleDocument, RuleVerdict
from penstock.core.verdict import Cause, Verdict, failing, passing, unknown
from penstock.errors import Invalid

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {"==": operator.eq, ">": operator.gt, "<=": operator.le}
READ: dict[FactType, Callable[[str], Fact]] = {
    FactType.TEXT: lambda text: text.strip("'"),
    FactType.INT: int,
    FactType.NUMBER: float,
    FactType.BOOL: lambda text: {"true": True, "false": False}[text],
}
TYPES: dict[FactType, type] = {
    FactType.TEXT: str,
    FactType.INT: int,
    FactType.NUMBER: float,
    FactType.BOOL: bool,
    FactType.TEXTS: tuple,
}


class FakeLanguage:
    at_once = True

    def compile(self, policy: PolicyDocument) -> FakeRules:
        if policy.module:
            raise Invalid("has rules, and no module", where=f"{policy.policy}: module:1:1")
        return FakeRules(tuple(_compile(policy.policy, rule) for rule in policy.rules))


@dataclass(frozen=True)
class _Rule:
    document: RuleDocument
    fact: str
    test: Callable[[Any], bool]


@dataclass(frozen=True)
class FakeRules:
    rules: tuple[_Rule, ...]

    def decide(self, facts: Mapping[str, Fact]) -> tuple[RuleVerdict, ...]:
        return tuple(_decide(rule, facts) for rule in self.rules)


def _compile(policy: str, rule: RuleDocument) -> _Rule:
    where = f"{policy}: rule {rule.id}"
    for words in (rule.say, rule.otherwise):
        quoted = words.startswith("'") and words.endswith("'") and len(words) > 1
        if not quoted and _kind(words, where) is not FactType.TEXT:
            raise Invalid(f"{words} is not a text", where=f"{where}:1:1")
    if rule.when == "crash":
        return _Rule(rule, "release.first", lambda value: value == 1 // 0)
    parts = rule.when.split(" ", 2)
    if len(parts) != 3 or parts[1] not in OPERATORS:
        raise Invalid(f"not a rule: {rule.when}", where=f"{where}:1:1")
    try:
        wanted = READ[_kind(parts[0], where)](parts[2])
    except (KeyError, ValueError) as error:
        raise Invalid(f"{parts[0]} cannot be compared with {parts[2]}", where=f"{where}:1:1") from error
    compare = OPERATORS[parts[1]]
    return _Rule(rule, parts[0], lambda value: compare(value, wanted))


def _kind(name: str, where: str) -> FactType:
    if name not in FACTS:
        raise Invalid(f"no fact {name!r}", where=f"{where}:1:1")
    return FACTS[name][0]


def _decide(rule: _Rule, facts: Mapping[str, Fact]) -> RuleVerdict:
    mentioned = (rule.fact, rule.document.say, rule.document.otherwise)
    verdict = _verdict(rule, facts)
    words = rule.document.say if verdict.passed else rule.document.otherwise
    said = words[1:-1] if words.startswith("'") else str(facts.get(words, ""))
    says = verdict.reason if verdict.cause else said or f"{rule.document.id}: {verdict.result}"
    values = {name: facts[name] for name in mentioned if name in facts}
    missing = (rule.fact,) if verdict.cause is Cause.MISSING else ()
    return RuleVerdict(rule.document.id, Verdict(verdict.result, verdict.cause, says), says, values, missing)


def _verdict(rule: _Rule, facts: Mapping[str, Fact]) -> Verdict:
    if rule.fact not in facts:
        return unknown(Cause.MISSING, f"no evidence for {rule.fact}")
    value = facts[rule.fact]
    if type(value) is not TYPES[FACTS[rule.fact][0]]:
        return unknown(Cause.ERROR, f"{rule.fact} is {value!r}")
    try:
        return passing() if rule.test(value) else failing(rule.document.id)
    except ArithmeticError as error:
        return unknown(Cause.ERROR, str(error))
