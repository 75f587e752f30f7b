"""What becomes of every state of evidence: the tables of ``docs/reference/evidence-states.md``, all of them.

The tables are the tests' parameters: what the document says is what is tried, and nothing is left out.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.core.authority import Authority
from penstock.core.evidence import Entry
from penstock.core.facts import Fact
from penstock.core.people import By, Override, Person
from penstock.core.pipeline import State
from penstock.core.policy import PolicyDocument, RuleDocument, RuleVerdict, judge, sign_off
from penstock.core.release import Artifact, Change, Release
from penstock.core.saying import spoken, statement_of
from penstock.core.selection import Question
from penstock.core.verdict import Cause, Verdict, combine, failing, passing, unknown
from penstock.engine.gate import _outcome
from unit.test_owners import Hall

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "evidence-states.md"
STATES = ("PASS", "FAIL", "MISSING", "STALE", "ERROR")


def rows(heading: str) -> list[tuple[str, ...]]:
    """The body of the first table below a heading."""
    section = DOCUMENT.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]) for line in lines[2:]]


def verdict(word: str) -> Verdict:
    match word:
        case "PASS":
            return passing()
        case "FAIL":
            return failing("no")
        case _:
            return unknown(Cause(word), "nobody can tell")


def word(found: Verdict) -> str:
    return found.cause.value if found.cause else found.result.value


# --- two rules make a policy -----------------------------------------------------------------------------

COMPOSED = rows("Rules into a policy")


def test_the_table_has_every_pair() -> None:
    assert {(a, b) for a, b, _ in COMPOSED} == set(itertools.product(STATES, STATES))


@pytest.mark.parametrize(("first", "second", "whole"), COMPOSED)
def test_two_rules(first: str, second: str, whole: str) -> None:
    assert word(combine([verdict(first), verdict(second)])) == whole


def test_nothing_never_passes() -> None:
    assert word(combine([])) == "MISSING"
    for states in itertools.product(STATES, repeat=3):
        whole = word(combine([verdict(state) for state in states]))
        assert (whole == "PASS") == (states == ("PASS",) * 3)
        worst = next(state for state in ("FAIL", "ERROR", "STALE", "MISSING", "PASS") if state in states)
        assert whole == worst


# --- evidence makes a rule ---------------------------------------------------------------------------------

FACT = "evidence.findings.critical"
GIVEN: Mapping[str, Mapping[str, Fact]] = {
    "there, and the rule is met": {FACT: 0},
    "there, and the rule is not met": {FACT: 1},
    "absent": {},
    "of the wrong type": {FACT: "none"},
    "not a number (NaN)": {FACT: float("nan")},
}
RULED = rows("Evidence into a rule")


class OneRule:
    """``FACT == 0``, as a language decides it."""

    def decide(self, facts: Mapping[str, Fact]) -> Sequence[RuleVerdict]:
        value = facts.get(FACT)
        if value is None:
            return (RuleVerdict("r", unknown(Cause.MISSING, "absent"), "absent", {}, (FACT,)),)
        if type(value) is not int:
            return (RuleVerdict("r", unknown(Cause.ERROR, "type"), "type", {FACT: value}),)
        found = passing() if value == 0 else failing("critical")
        return (RuleVerdict("r", found, "says", {FACT: value}),)


def document(*, patient: bool = False, waits: float = 0.0) -> PolicyDocument:
    rules = (RuleDocument("r", f"{FACT} == 0", "'yes'", "'no'", patient),)
    fresh = {"evidence.findings": 100.0}
    return PolicyDocument(
        "p-organisation", "security-lead", ("deploy",), ("production",), rules, "t", waits=waits, fresh=fresh
    )


def test_the_table_has_every_kind_of_evidence() -> None:
    assert {(e, o, p) for e, o, p, _ in RULED} == set(
        itertools.product(GIVEN, ("fresh", "too old"), ("strict", "patient"))
    )


@pytest.mark.parametrize(("evidence", "age", "rule", "state"), RULED)
def test_one_rule(evidence: str, age: str, rule: str, state: str) -> None:
    ages = {"evidence.findings": 50.0 if age == "fresh" else 150.0} if evidence != "absent" else {}
    (found,) = judge(document(patient=rule == "patient"), OneRule(), GIVEN[evidence], ages)  # type: ignore[arg-type]
    assert word(found.verdict) == state


# --- a policy makes a gate ---------------------------------------------------------------------------

GATED = rows("A policy at the gate")
ARTIFACT = Artifact("catalog", "sha256:" + "a" * 64)
RELEASE = Release("catalog", "production", ARTIFACT.digest, "sha256:" + "b" * 64)
CHANGE = Change("code", "catalog", "production", "/repo", "ab" * 20, "Ada <ada@example.org>", "a change")
QUESTION = Question("d", "deploy", CHANGE, ARTIFACT, RELEASE, False, 500, 1000.0)
WHO = "security-lead-organisation"


class Says:
    """A policy that says what it is told to."""

    def __init__(self, state: str) -> None:
        self.state = state

    def decide(self, facts: Mapping[str, Fact]) -> tuple[RuleVerdict, ...]:
        return (RuleVerdict("r", verdict(self.state), self.state, {}),)


@pytest.fixture(scope="module")
def authority() -> Authority:
    hall = Hall()
    hall.say("op", Person(By("op"), WHO, ("sec@example.org",)))
    return hall.authority


def override(expires: float = 2000.0, who: str = WHO) -> Entry:
    said = spoken(Override(By(who), "p-organisation", "deploy", RELEASE.digest, "fire", expires), 1.0)
    statement = statement_of(said)
    return Entry(7, Hall().entry("op", Person(By("op"), "x", ())).envelope, statement)


def test_the_table_has_every_policy_state() -> None:
    assert {(s, w, o) for s, w, o, _ in GATED} == set(
        itertools.product(STATES, ("waits", "does not wait"), ("none", "overridden"))
    )


@pytest.mark.parametrize(("state", "waiting", "overridden", "then"), GATED)
def test_one_policy(authority: Authority, state: str, waiting: str, overridden: str, then: str) -> None:
    policy = document(waits=600.0 if waiting == "waits" else 0.0)
    selected = [override()] if overridden == "overridden" else []
    signed = sign_off(QUESTION, policy, "urn:penstock:entry:1", Says(state), selected, authority)
    outcome = _outcome(QUESTION, [policy], [signed], authority, 0.0)
    words = {
        "goes on": State.SUCCESS,
        "waits": State.PENDING,
        "refused": State.FAILURE,
        "refused, as an error": State.ERROR,
    }
    assert outcome.state is words[then]
    assert signed.penstock.verdict == ("UNKNOWN" if state in ("MISSING", "STALE", "ERROR") else state)
    assert (signed.verification_result == "PASSED") == (then == "goes on")
    # The deadline is absolute: once it has passed, asking again does not wait again.
    late = replace(QUESTION, now=1700.0)
    again = _outcome(late, [policy], [signed], authority, 1600.0)
    assert again.state is not State.PENDING
    assert (again.state is State.SUCCESS) == (then == "goes on")


@pytest.mark.parametrize(
    ("change", "who", "expires", "holds"),
    [
        (CHANGE, WHO, 2000.0, True),
        (CHANGE, WHO, 1000.0, False),
        (CHANGE, WHO, 999.0, False),
        (CHANGE, "test-lead-organisation", 2000.0, False),
        (CHANGE, "security-lead-team-shop", 2000.0, False),
        (CHANGE, "security-lead-team-other", 2000.0, False),
        (CHANGE, "stranger", 2000.0, False),
        (replace(CHANGE, author="Sec <SEC@example.org>"), WHO, 2000.0, False),
        (replace(CHANGE, author="sec@example.org"), WHO, 2000.0, False),
        (replace(CHANGE, author="a name that was cut, and its address with it"), WHO, 2000.0, False),
        (replace(CHANGE, author=""), WHO, 2000.0, False),
        (replace(CHANGE, author="Ada <>"), WHO, 2000.0, False),
        (replace(CHANGE, author="Ada <ada@example.org> <sec@example.org>"), WHO, 2000.0, False),
        (replace(CHANGE, signing_key=Hall().raw[WHO]), WHO, 2000.0, False),
    ],
)
def test_whose_override_holds(
    authority: Authority, change: Change, who: str, expires: float, holds: bool
) -> None:
    """A present holder of the owning role, until it expires, and never for a change of their own."""
    question = replace(QUESTION, change=change)
    signed = sign_off(
        question, document(), "urn:penstock:entry:1", Says("FAIL"), [override(expires, who)], authority
    )
    assert (signed.penstock.override is not None) is holds
    assert (signed.verification_result == "PASSED") is holds
    assert signed.penstock.verdict == "FAIL"
    if holds:
        assert signed.penstock.expires == 2000.0
        assert signed.verified_levels == ("PENSTOCK_P_ORGANISATION_OVERRIDDEN",)


def test_an_override_of_another_policy_does_nothing(authority: Authority) -> None:
    other = replace(document(), policy="another")
    signed = sign_off(QUESTION, other, "urn:penstock:entry:1", Says("FAIL"), [override()], authority)
    assert signed.verification_result == "FAILED"
    assert signed.input_attestations == ()
