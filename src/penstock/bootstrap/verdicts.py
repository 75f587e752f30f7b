"""What policies would say of evidence that is in no ledger: the gate's own functions, asked here.

Called by `bootstrap.local`. A policy that is UNKNOWN only because production, people or a stage that was left
out have not spoken yet is answered *later*; UNKNOWN for any other reason would not pass, and is *fail*.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from penstock.bootstrap.identity import shipped_policies
from penstock.core import selection
from penstock.core.authority import Authority
from penstock.core.evidence import Entry, Statement
from penstock.core.facts import group
from penstock.core.pipeline import Facts
from penstock.core.policy import (
    SHIPPING,
    PolicyDocument,
    RuleVerdict,
    facts_for,
    guarding,
    judge,
    sign_off,
)
from penstock.core.selection import Question
from penstock.core.verdict import Cause, Result
from penstock.engine.journal import Header
from penstock.errors import Broken, Invalid
from penstock.ledger.again import compiled
from penstock.ledger.log import attest
from penstock.policyfile import parse_policy
from penstock.ports import Language, Signer

#: Evidence that a delivery gets after the stages that can be run anywhere, or that others bring.
LATER = (
    "evidence.acceptance",
    "evidence.canary",
    "evidence.reviews",
    "evidence.imported",
    "evidence.components",
)


@dataclass(frozen=True)
class Case:
    """One run: the change, its records, the evidence, and the kinds of it that nobody wanted this time."""

    header: Header
    facts: Facts
    statements: tuple[Statement, ...]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """One policy for one action. *would*: pass, fail or later; *awaits* names the evidence not there yet."""

    action: str
    policy: str
    would: str
    verdict: str
    says: str
    awaits: tuple[str, ...] = ()


def load(folder: Path | None) -> tuple[PolicyDocument, ...]:
    """The policies of a folder, or those that come with Penstock. `Invalid` with file and line."""
    if folder is None:
        return tuple(parse_policy(text.encode(), str(files("penstock"))) for text in shipped_policies())
    found = [path for path in sorted(folder.glob("*.yaml")) if not path.name.endswith(".test.yaml")]
    if not found:
        raise Invalid("no policy here", where=str(folder), next_move="name a folder with .yaml policies")
    return tuple(parse_policy(path.read_bytes(), str(path)) for path in found)


def answers(
    case: Case, policies: Sequence[PolicyDocument], languages: Mapping[str, Language], signer: Signer
) -> tuple[Answer, ...]:
    """Every policy's answer for every action that it guards, in the order of the actions."""
    return tuple(_answers(case, policies, languages, signer))


def _answers(
    case: Case, policies: Sequence[PolicyDocument], languages: Mapping[str, Language], signer: Signer
) -> Iterator[Answer]:
    change = case.header.change
    entries = [Entry(i, attest(signer, statement), statement) for i, statement in enumerate(case.statements)]
    for action in SHIPPING:
        question = _question(case, action, len(entries))
        selected = selection.select(entries, question)
        # The team that the file claims: which one it is bound to, only the ledger knows.
        for policy in guarding(policies, action, change.service, case.header.config.team, change.environment):
            yield _answer(case, question, policy, selected, languages)


def _question(case: Case, action: str, size: int) -> Question:
    artifact, release = case.facts.artifact, case.facts.release
    if artifact is None or release is None:
        raise Broken("policies are asked about an artifact, and there is none")
    change = case.header.change
    return Question(case.header.change.service, action, change, artifact, release, False, size, time.time())


def _answer(
    case: Case,
    question: Question,
    policy: PolicyDocument,
    selected: tuple[Entry, ...],
    languages: Mapping[str, Language],
) -> Answer:
    rules, nobody = compiled(policy, languages), Authority()
    signed = sign_off(question, policy, "urn:penstock:local", rules, selected, nobody).penstock
    verdict = f"{signed.verdict}({signed.cause})" if signed.cause else signed.verdict
    answer = Answer(question.action, policy.policy, "fail", verdict, signed.explanation)
    if signed.verdict == Result.PASS.value:
        return replace(answer, would="pass")
    if signed.verdict != Result.UNKNOWN.value:
        return answer
    # A sign-off does not say which facts were missing; the rules do.
    facts = facts_for(policy, question, selected, nobody)
    open_ones = [r for r in judge(policy, rules, facts, {}) if r.verdict.result is Result.UNKNOWN]
    awaits = sorted({kind for rule in open_ones for kind in map(group, rule.missing)})
    may_come = bool(open_ones) and all(
        _may_come(rule, policy, (*LATER, *case.left_out)) for rule in open_ones
    )
    return replace(answer, would="later" if may_come else "fail", awaits=tuple(awaits))


def _may_come(rule: RuleVerdict, policy: PolicyDocument, later: tuple[str, ...]) -> bool:
    """Whether what this rule lacks is not for a run like this to give."""
    if rule.verdict.cause is not Cause.MISSING:
        return False
    if not rule.missing:  # a patient rule that is not met: the policy waits
        return policy.waits > 0
    return all(group(name) in later for name in rule.missing)
