"""What a policy would have decided in past deliveries, beside what was decided then.

Called by the server before somebody publishes a change. It asks the very questions that the gates asked,
with the evidence and the roles of then, through the same pure function; only the policy is another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from penstock.core.authority import Authority
from penstock.core.people import BY_PEOPLE
from penstock.core.policy import PolicyDocument, Rules, guarding, sign_off, soaking
from penstock.core.predicates import SignOff
from penstock.core.selection import Question
from penstock.ledger.again import question_of
from penstock.ledger.inputs import inputs
from penstock.ledger.log import Ledger
from penstock.ports import Transaction

#: One asking of the gate: delivery, action, ledger size.
Asked = tuple[str, str, int]


@dataclass(frozen=True)
class Replayed:
    """One question, and both answers. *then* is "" if the policy was not asked.

    *effect* is "refused" if the delivery went on then and would not have, "let through" if this policy
    alone stopped it and would not have, "" if nothing changes for it.
    """

    delivery: str
    service: str
    action: str
    then: str
    now: str
    says: str
    effect: str


@dataclass(frozen=True)
class Replay:
    policy: str
    deliveries: int
    questions: int
    refused: int
    let_through: int
    answers: tuple[Replayed, ...]


async def replay(
    ledger: Ledger, tx: Transaction, document: PolicyDocument, rules: Rules, limit: int
) -> Replay:
    """Over the newest *limit* deliveries that were asked anything, oldest first."""
    asked = await _asked(ledger, tx, limit)
    authorities = await _authorities(ledger, tx, sorted({size for _, _, size in asked}))
    answers = []
    for place, given in asked.items():
        question, authority = question_of(given[0]), authorities[place[2]]
        if _guards(document, question, authority):
            question = soaking(question, [document])
            selected = await inputs(ledger, tx, question)
            signed = await asyncio.to_thread(
                sign_off, question, document, "urn:penstock:replay", rules, selected, authority
            )
            answers.append(_answer(document, given, signed))
    effects = [answer.effect for answer in answers]
    return Replay(
        policy=document.policy,
        deliveries=len({delivery for delivery, _, _ in asked}),
        questions=len(answers),
        refused=effects.count("refused"),
        let_through=effects.count("let through"),
        answers=tuple(answers),
    )


async def _asked(ledger: Ledger, tx: Transaction, limit: int) -> dict[Asked, list[SignOff]]:
    """The sign-offs of the newest deliveries, by the asking that gave them, oldest first."""
    entries = await ledger.tagged(tx, f"type:{SignOff.TYPE}")
    signed = [e.statement.predicate for e in entries if isinstance(e.statement.predicate, SignOff)]
    newest = list(dict.fromkeys(s.penstock.delivery for s in reversed(signed)))[:limit]
    asked: dict[Asked, list[SignOff]] = {}
    for one in signed:
        decision = one.penstock
        if decision.delivery in newest:
            asked.setdefault((decision.delivery, decision.action, decision.size), []).append(one)
    return asked


async def _authorities(ledger: Ledger, tx: Transaction, sizes: list[int]) -> Mapping[int, Authority]:
    """Who might say what at each of these ledger sizes."""
    said = {e.index: e for kind in BY_PEOPLE for e in await ledger.tagged(tx, f"type:{kind.TYPE}")}
    found, authority, waiting = {}, Authority(), sorted(said)
    for size in sizes:
        while waiting and waiting[0] < size:
            authority = authority.admit(said[waiting.pop(0)])
        found[size] = authority
    return found


def _guards(document: PolicyDocument, question: Question, authority: Authority) -> bool:
    change = question.change
    team = authority.teams.get(change.service)
    return bool(guarding([document], question.action, change.service, team, change.environment))


def _answer(document: PolicyDocument, given: list[SignOff], now: SignOff) -> Replayed:
    own = [signed for signed in given if signed.penstock.policy == document.policy]
    others = all(_passed(signed) for signed in given if signed not in own)
    went_on = others and all(_passed(signed) for signed in own)
    effect = ""
    if went_on and not _passed(now):
        effect = "refused"
    elif own and others and not went_on and _passed(now):
        effect = "let through"
    return Replayed(
        delivery=now.penstock.delivery,
        service=now.penstock.change.service,
        action=now.penstock.action,
        then=_verdict(own[0]) if own else "",
        now=_verdict(now),
        says=now.penstock.explanation,
        effect=effect,
    )


def _passed(signed: SignOff) -> bool:
    return signed.verification_result == "PASSED"


def _verdict(signed: SignOff) -> str:
    decision = signed.penstock
    cause = f"({decision.cause})" if decision.cause else ""
    return f"{decision.verdict}{cause}" + (" overridden" if decision.override else "")
