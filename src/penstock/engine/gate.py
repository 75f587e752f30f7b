"""The gate: before an action that policies guard, ask every policy in force, and record each answer.

Called by the engine. It decides nothing itself: a sign-off is computed by the pure
`core.policy.sign_off` from entries of the ledger at one index, and can be computed again by anybody.
An action that no policy guards is refused: nothing never passes.
"""

from __future__ import annotations

from collections.abc import Mapping

from penstock.config import parse_policy
from penstock.core.authority import Authority
from penstock.core.evidence import Statement, Subject
from penstock.core.pipeline import Gated, State
from penstock.core.policy import PolicyDocument, Question, Rules, guarding, sign_off
from penstock.core.predicates import SignOff
from penstock.core.verdict import Cause, Result, Verdict, combine
from penstock.errors import Broken, Invalid
from penstock.ledger.inputs import inputs
from penstock.ledger.log import Ledger
from penstock.ports import Language, Outcome, Store, Task


async def perform(
    task: Task, /, *, store: Store, ledger: Ledger, languages: Mapping[str, Language]
) -> Outcome:
    """Ask all policies that guard ``task.intent.guards`` for this service, at one index of the ledger."""
    artifact, release = task.artifact, task.release
    if artifact is None or release is None:
        raise Broken("a gate before there is a release", where=task.delivery)
    async with store.transaction(write=False) as tx:
        question = Question(
            delivery=task.delivery,
            action=task.intent.guards,
            change=task.change,
            artifact=artifact,
            release=release,
            first=task.baseline is None,
            size=await ledger.size(tx),
            now=await tx.now(),
        )
        authority = await ledger.authority(tx)
        selected = await inputs(ledger, tx, question)
        policies = in_force(authority, question)
    sign_offs = [
        sign_off(question, policy, f"urn:penstock:entry:{index}", _rules(languages, policy), selected)
        for policy, index in policies
    ]
    subjects = (Subject(release.id, release.digest), Subject(artifact.name, artifact.digest))
    return _outcome(question, sign_offs, tuple(Statement(subjects, signed) for signed in sign_offs))


def in_force(authority: Authority, question: Question) -> list[tuple[PolicyDocument, int]]:
    """The policies that hold for this question, each with the entry that published it."""
    documents = {
        held.name: (parse_policy(held.source.encode(), held.name), held.index)
        for held in authority.policies.values()
    }
    change = question.change
    chosen = guarding(
        (document for document, _ in documents.values()),
        question.action,
        change.service,
        authority.teams.get(change.service),
        change.environment,
    )
    return [documents[policy.policy] for policy in chosen]


def _rules(languages: Mapping[str, Language], policy: PolicyDocument) -> Rules:
    if policy.language not in languages:
        known = ", ".join(sorted(languages))
        raise Invalid(f"policy {policy.policy} is written in {policy.language!r}; known: {known}")
    return languages[policy.language].compile(policy)


def _outcome(question: Question, sign_offs: list[SignOff], statements: tuple[Statement, ...]) -> Outcome:
    verdicts = [_verdict(signed) for signed in sign_offs]
    whole = combine(verdicts)
    refused = tuple(s.penstock.policy for s in sign_offs if s.verification_result != "PASSED")
    if whole.passed:
        names = ", ".join(signed.penstock.policy for signed in sign_offs)
        return Outcome(State.SUCCESS, f"signed off by {names}", statements, Gated("gated"))
    if not sign_offs:
        why = f"no policy guards {question.action} in {question.change.environment}, and nothing never passes"
        return Outcome(State.ERROR, why, (), Gated("gated", ("(none)",)))
    why = "; ".join(
        f"{s.penstock.policy}: {s.penstock.explanation}" for s in sign_offs if s.penstock.policy in refused
    )
    state = State.FAILURE if whole.result is Result.FAIL else State.ERROR
    return Outcome(state, why, statements, Gated("gated", refused))


def _verdict(signed: SignOff) -> Verdict:
    decision = signed.penstock
    cause = Cause(decision.cause) if decision.cause else None
    return Verdict(Result(decision.verdict), cause, decision.explanation)
