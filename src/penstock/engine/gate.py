"""The gate: before an action that policies guard, ask every policy in force, and record each answer.

Called by the engine. It decides nothing itself: a sign-off is computed by the pure
`core.policy.sign_off` from entries of the ledger at one index, and can be computed again by anybody.
An action that no policy guards is refused: nothing never passes. While only evidence is missing or too
old, and the policies wait, it answers that it waits; nobody holds anything meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from penstock.core import soak
from penstock.core.authority import Authority
from penstock.core.evidence import Entry, Statement, Subject
from penstock.core.pipeline import Blocked, Gated, State
from penstock.core.policy import PolicyDocument, Rules, sign_off, soaking
from penstock.core.predicates import SignOff
from penstock.core.selection import Question, tags_of
from penstock.core.verdict import Cause, Result, Verdict, combine
from penstock.errors import Broken
from penstock.ledger.again import compiled, needed
from penstock.ledger.inputs import inputs
from penstock.ledger.log import Batch, Ledger
from penstock.ports import Language, Outcome, Store, Task, Transaction


@dataclass(frozen=True)
class _Asked:
    """A question with all that its answer follows from."""

    question: Question
    policies: Sequence[PolicyDocument]
    selected: Sequence[Entry]
    authority: Authority

    def sign_off(self, policy: PolicyDocument, rules: Rules) -> SignOff:
        published = f"urn:penstock:entry:{self.authority.policies[policy.policy].index}"
        return sign_off(self.question, policy, published, rules, self.selected, self.authority)

    def outcome(self, sign_offs: Sequence[SignOff], waits_until: float) -> Outcome:
        """Of all its policies' sign-offs, in their order."""
        outcome = _outcome(self.question, self.policies, sign_offs, self.authority, waits_until)
        if outcome.state is State.PENDING and isinstance(outcome.detail, Gated):
            outcome = replace(outcome, detail=replace(outcome.detail, due=self._due))
        release, artifact = self.question.release, self.question.artifact
        subjects = (Subject(release.id, release.digest), Subject(artifact.name, artifact.digest))
        return replace(outcome, statements=tuple(Statement(subjects, signed) for signed in sign_offs))

    @property
    def _due(self) -> float:
        """When the artifact will have soaked somewhere, if nothing happens; 0 if none of it is on its way."""
        asked, artifact = self.question, self.question.artifact
        ends = (soak.due(self.selected, artifact, policy.soak, asked.now) for policy in self.policies)
        return min((end for end in ends if end), default=0.0)


async def perform(
    task: Task, /, *, store: Store, ledger: Ledger, languages: Mapping[str, Language]
) -> Outcome:
    """Ask all policies that guard ``task.intent.guards`` for this service, at one index of the ledger."""
    async with store.transaction(write=False) as tx:
        asked = await _asked(tx, await ledger.batch(tx), task, ledger)
    sign_offs = []
    for policy in asked.policies:
        rules = compiled(policy, languages)
        if languages[policy.language].at_once:
            sign_offs.append(asked.sign_off(policy, rules))
        else:  # it may take seconds (Rego does, until it is stopped): leases are renewed meanwhile
            sign_offs.append(await asyncio.to_thread(asked.sign_off, policy, rules))
    return replace(asked.outcome(sign_offs, task.waits_until), rests_on=asked.question)


async def at_once(
    task: Task, tx: Transaction, batch: Batch, /, *, ledger: Ledger, languages: Mapping[str, Language]
) -> Outcome | None:
    """The same in the transaction that appends *batch*, which counts as if it were there already.

    None if the answer may take its time: a transaction must not wait for it.
    """
    asked = await _asked(tx, batch, task, ledger)
    if not all(p.language in languages and languages[p.language].at_once for p in asked.policies):
        return None
    sign_offs = [asked.sign_off(policy, compiled(policy, languages)) for policy in asked.policies]
    return asked.outcome(sign_offs, task.waits_until)


async def _asked(tx: Transaction, batch: Batch, task: Task, ledger: Ledger) -> _Asked:
    question = replace(question_of(task), size=batch.size, now=batch.now)
    policies = needed(batch.authority, question.action, question.change)
    question = soaking(question, policies)
    selected = await inputs(ledger, tx, question, batch.entries)
    return _Asked(question, policies, selected, batch.authority)


def question_of(task: Task) -> Question:
    """What the gate before a task's action asks; its size and time are the caller's to fill in."""
    if task.artifact is None or task.release is None:
        raise Broken("a gate before there is a release", where=task.delivery)
    return Question(
        delivery=task.delivery,
        action=task.intent.guards,
        change=task.change,
        artifact=task.artifact,
        release=task.release,
        first=task.baseline is None,
        size=0,
        now=0.0,
    )


async def lapsed(ledger: Ledger, tx: Transaction, question: Question) -> bool:
    """Whether the answer to a question might be another one now: asked at the size that it names.

    Rules and roles, or the evidence that counts, are not what they were.
    """
    size = await ledger.size(tx)
    if size == question.size:
        return False
    authority = await ledger.authority(tx)
    if authority.changed >= question.size:
        return True
    question = soaking(question, needed(authority, question.action, question.change))
    if not await ledger.tagged_since(tx, tags_of(question), question.size):
        return False
    now = replace(question, size=size)
    return await inputs(ledger, tx, question) != await inputs(ledger, tx, now)


def _outcome(
    question: Question,
    policies: Sequence[PolicyDocument],
    sign_offs: Sequence[SignOff],
    authority: Authority,
    waits_until: float,
) -> Outcome:
    expires = min((signed.penstock.expires for signed in sign_offs), default=0.0)
    open_ones = [(p, s) for p, s in zip(policies, sign_offs, strict=True) if not _passed(s)]
    blocked = tuple(_blocked(policy, signed, authority) for policy, signed in open_ones)
    overridden = tuple(
        f"{s.penstock.policy} by {s.penstock.override.identity}" for s in sign_offs if s.penstock.override
    )
    names = tuple(policy.policy for policy, _ in open_ones)
    gated = Gated("gated", names, question.size, expires, 0.0, blocked, overridden)
    if not sign_offs:
        why = f"no policy guards {question.action} in {question.change.environment}, and nothing never passes"
        return Outcome(State.ERROR, why, (), replace(gated, refused_by=("(none)",)))
    if not open_ones:
        return Outcome(State.SUCCESS, "signed off by " + ", ".join(map(_signed_by, sign_offs)), (), gated)
    why = "; ".join(f"{b.policy}: {b.says}" for b in blocked)
    until = waits_until or question.now + max(policy.waits for policy, _ in open_ones)
    if all(_may_come(p, s) for p, s in open_ones) and question.now < until:
        return Outcome(State.PENDING, f"waits: {why}", (), replace(gated, waits_until=until))
    whole = combine(_verdict(signed) for _, signed in open_ones)
    state = State.FAILURE if whole.result is Result.FAIL else State.ERROR
    return Outcome(state, why, (), gated)


def _passed(signed: SignOff) -> bool:
    return signed.verification_result == "PASSED"


def _may_come(policy: PolicyDocument, signed: SignOff) -> bool:
    """Whether more evidence may still let this pass, and the policy waits for it."""
    return policy.waits > 0 and signed.penstock.cause in (Cause.MISSING.value, Cause.STALE.value)


def _blocked(policy: PolicyDocument, signed: SignOff, authority: Authority) -> Blocked:
    holders = authority.holders(policy.owner, policy.scope)
    return Blocked(policy.policy, signed.penstock.explanation, policy.owner, holders)


def _signed_by(signed: SignOff) -> str:
    override = signed.penstock.override
    return signed.penstock.policy + (f" (overridden by {override.identity})" if override else "")


def _verdict(signed: SignOff) -> Verdict:
    decision = signed.penstock
    cause = Cause(decision.cause) if decision.cause else None
    return Verdict(Result(decision.verdict), cause, decision.explanation)
