"""The tests beside a policy (``<policy>.test.yaml``): facts given, verdicts expected.

Called by ``penstock policy test`` and by our own tests of the shipped policies. Pure: the same function
decides as at the gate, and no server, store or clock is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from penstock.config import parse
from penstock.core.facts import FACTS, Fact, FactType, fits
from penstock.core.policy import PolicyDocument, Rules, judge
from penstock.core.verdict import Verdict, combine
from penstock.errors import Invalid

REFERENCE = "the documented reference: penstock doctor --reference policy-test"

Written = str | bool | int | float | list[str]
Expected = Literal["PASS", "FAIL", "MISSING", "STALE", "ERROR"]


@dataclass(frozen=True)
class Case:
    """*facts* and *ages* (seconds, by kind of evidence) are added to the file's own; null takes one away.

    *rules* expects verdicts of single rules, *says* a part of the explanation.
    """

    name: str
    expect: Expected
    facts: Mapping[str, Written | None] = field(default_factory=dict)
    ages: Mapping[str, float] = field(default_factory=dict)
    rules: Mapping[str, Expected] = field(default_factory=dict)
    says: str = ""


@dataclass(frozen=True)
class CasesFile:
    """All of one ``policies/<name>.test.yaml``. *facts* hold in every one of the *cases*."""

    cases: tuple[Case, ...]
    facts: Mapping[str, Written] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    case: str
    problem: str


def load_tests(data: bytes, name: str) -> tuple[Case, ...]:
    """The cases of a file, each with all of its facts. `Invalid` with file and line."""
    found = parse(CasesFile, data, name, REFERENCE)
    if not found.cases:
        raise Invalid("no cases: nothing is tested", where=name, next_move=REFERENCE)
    cases = []
    for case in found.cases:
        facts = {key: value for key, value in {**found.facts, **case.facts}.items() if value is not None}
        unknown = [key for key in facts if key not in FACTS]
        if unknown:
            move = "penstock policy facts lists them"
            raise Invalid(f"case {case.name!r}: no fact {unknown[0]!r}", where=name, next_move=move)
        cases.append(replace(case, facts=facts))
    return tuple(cases)


def run_case(policy: PolicyDocument, rules: Rules, case: Case) -> list[Failure]:
    """What did not come out as expected; nothing if all did."""
    facts = {name: _fact(name, value, case) for name, value in case.facts.items()}
    decided = judge(policy, rules, facts, case.ages)
    whole = combine(rule.verdict for rule in decided)
    found = {rule.id: rule for rule in decided}
    problems = []
    if _word(whole) != case.expect:
        words = "; ".join(rule.says for rule in decided if rule.verdict.result is whole.result)
        problems.append(f"expected {case.expect}, found {_word(whole)}: {words}")
    for name, expected in case.rules.items():
        if name not in found:
            problems.append(f"there is no rule {name!r}; rules: {', '.join(found)}")
        elif _word(found[name].verdict) != expected:
            problems.append(f"rule {name}: expected {expected}, found {_word(found[name].verdict)}")
    said = "; ".join(rule.says for rule in decided)
    if case.says not in said:
        problems.append(f"expected the words {case.says!r}; it says: {said}")
    return [Failure(case.name, problem) for problem in problems]


def _fact(name: str, written: Written | None, case: Case) -> Fact:
    kind = FACTS[name][0]
    value: object = written
    if kind is FactType.NUMBER and type(written) is int:
        value = float(written)
    if kind is FactType.TEXTS and isinstance(written, list):
        value = tuple(written)
    if not fits(name, value):  # type: ignore[arg-type]
        raise Invalid(f"case {case.name!r}: {name} is of type {kind.value}, found {written!r}")
    return value  # type: ignore[return-value]


def _word(verdict: Verdict) -> str:
    return verdict.cause.value if verdict.cause else verdict.result.value
