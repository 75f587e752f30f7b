"""Deciding again what a sign-off decided: the heart of ``ledger verify`` and of ``penstock verify``.

Called by `ledger.fsck` (which knows every entry) and by `ledger.bundle` (which knows the bundled ones).
It trusts nothing that a sign-off says of itself: the question must be the delivery's own, the policy the
one in force, the evidence what the selection rule gives, and the payload must come out the same.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence

from penstock.config import parse_policy
from penstock.core.evidence import Entry, Statement
from penstock.core.people import Binding, PolicyVersion
from penstock.core.policy import PolicyDocument, Question, Rules, guarding, sign_off
from penstock.core.predicates import Decision, Deployed, Promoted, Proposed, Shifted, SignOff
from penstock.core.release import Change
from penstock.core.selection import select
from penstock.errors import Invalid, PenstockError
from penstock.ports import Language

#: What decides which policies hold: `faults` and `unsigned` need all of it.
RULES = (PolicyVersion, Binding)
#: The action that an entry is the evidence of.
ACTION: dict[type, str] = {Deployed: "deploy", Shifted: "shift", Promoted: "promote"}
DONE = (Deployed, Shifted, Promoted)


def question_of(signed: SignOff) -> Question:
    """What a sign-off says that it was asked."""
    decision = signed.penstock
    return Question(
        delivery=decision.delivery,
        action=decision.action,
        change=decision.change,
        artifact=decision.artifact,
        release=decision.release,
        first=decision.first,
        size=decision.size,
        now=decision.now,
    )


def cited(signed: SignOff) -> tuple[int, ...]:
    """The entries that a sign-off names: its policy first, then its inputs."""
    uris = [signed.policy.uri, *(item.uri for item in signed.input_attestations)]
    return tuple(_index(uri) for uri in uris)


def faults(
    entry: Entry,
    pool: Sequence[Entry],
    rules: Sequence[Entry],
    languages: Mapping[str, Language],
) -> list[str]:
    """What is wrong with a sign-off; nothing if it recomputes to the same payload.

    *pool* holds at least the entries about its artifact and release, and its delivery's; *rules* every
    policy version and every binding.
    """
    signed = entry.statement.predicate
    assert isinstance(signed, SignOff)
    try:
        return list(_faults(entry, signed, pool, rules, languages))
    except PenstockError as error:
        return [str(error)]


def _faults(
    entry: Entry,
    signed: SignOff,
    pool: Sequence[Entry],
    rules: Sequence[Entry],
    languages: Mapping[str, Language],
) -> Iterator[str]:
    question = question_of(signed)
    # 1. It looked at a beginning of the ledger, and at the delivery's own change.
    if question.size > entry.index:
        yield "it claims to have seen entries after itself"
        return
    yield from _contradictions(question, pool)
    # 2. The policy is the version in force then, and guards this action here.
    held = in_force(rules, question.size).get(signed.penstock.policy)
    if held is None or held[1] != _index(signed.policy.uri):
        yield f"it does not cite the version of {signed.penstock.policy} that was in force"
        return
    document = held[0]
    if not _guarding([document], rules, question.action, question.change, question.size):
        yield f"policy {document.policy} does not guard {question.action} here"
    # 3. The evidence that counts gives the same bytes.
    selected = select(
        pool,
        artifact=question.artifact,
        release=question.release,
        delivery=question.delivery,
        size=question.size,
    )
    again = sign_off(question, document, signed.policy.uri, _rules(document, languages), selected)
    if Statement(entry.statement.subjects, again).payload() != entry.envelope.payload:
        yield "it does not recompute: its inputs give other bytes"


def unsigned(entry: Entry, pool: Sequence[Entry], rules: Sequence[Entry]) -> list[str]:
    """The sign-offs that an action was done without; empty for entries that are no action.

    *pool* holds at least the earlier entries of its delivery, and the promotions of its release; *rules*
    is as for `faults`. Going back to a pair that was promoted before needs no sign-off: that promotion is
    on record.
    """
    done = entry.statement.predicate
    if not isinstance(done, DONE):
        return []
    action, earlier = ACTION[type(done)], [held for held in pool if held.index < entry.index]
    begun = proposed(earlier, done.delivery)
    if begun is None:
        return [f"{action} by a delivery that never began"]
    if begun.change.kind == "rollback":
        known = any(_promotes(held, entry) for held in earlier)
        return [] if known else [f"{action} by a rollback, of what was never promoted"]
    asked = [decision for decision in _decisions(earlier, done.delivery) if decision.action == action]
    size = max((decision.size for decision in asked), default=entry.index)
    documents = [document for document, _ in in_force(rules, size).values()]
    needed = _guarding(documents, rules, action, begun.change, size)
    given = {d.policy for d in asked if d.size == size and d.verdict == "PASS"}
    if not needed:
        return [f"{action} although no policy guards it"]
    return [f"{action} without the sign-off of {d.policy}" for d in needed if d.policy not in given]


def in_force(rules: Iterable[Entry], size: int) -> dict[str, tuple[PolicyDocument, int]]:
    """The newest version of every policy below *size*, with the index that published it."""
    found = {}
    for entry in sorted(rules, key=lambda item: item.index):
        version = entry.statement.predicate
        if isinstance(version, PolicyVersion) and entry.index < size:
            found[version.name] = (document_of(version), entry.index)
    return found


def _guarding(
    documents: Sequence[PolicyDocument], rules: Iterable[Entry], action: str, change: Change, size: int
) -> list[PolicyDocument]:
    """Those that guard the action for this change, with the team that its service was bound to then."""
    team = None
    for entry in sorted(rules, key=lambda item: item.index):
        binding = entry.statement.predicate
        if isinstance(binding, Binding) and binding.service == change.service and entry.index < size:
            team = binding.team
    return guarding(documents, action, change.service, team, change.environment)


def document_of(version: PolicyVersion) -> PolicyDocument:
    """The policy that a version publishes; `Invalid` if its text is another's."""
    document = _parsed(version.source, version.name)
    if (document.policy, document.owner) != (version.name, version.owner):
        raise Invalid(
            f"published as {version.name} of {version.owner}, "
            f"but its text is {document.policy} of {document.owner}",
            where=f"policy {version.name}",
        )
    return document


@functools.lru_cache(maxsize=256)
def _parsed(source: str, name: str) -> PolicyDocument:
    return parse_policy(source.encode(), name)


def _rules(document: PolicyDocument, languages: Mapping[str, Language]) -> Rules:
    language = languages.get(document.language)
    if language is None:
        known = ", ".join(sorted(languages))
        raise Invalid(f"policy {document.policy} is written in {document.language!r}; known: {known}")
    return language.compile(document)


def _contradictions(question: Question, pool: Sequence[Entry]) -> list[str]:
    """Where the question is not what its delivery's beginning says."""
    begun = proposed([e for e in pool if e.index < question.size], question.delivery)
    release, change = question.release, question.change
    if begun is None:
        return [f"delivery {question.delivery} had not begun"]
    found = []
    if begun.change != change:
        found.append("its change is not the delivery's")
    if (begun.baseline is None) != question.first:
        found.append("it is mistaken about being the first release")
    if (release.artifact, release.service, release.environment) != (
        question.artifact.digest,
        change.service,
        change.environment,
    ):
        found.append("its release is not of its artifact and change")
    return found


def proposed(entries: Iterable[Entry], delivery: str) -> Proposed | None:
    """How a delivery began, if it is among these entries."""
    for entry in sorted(entries, key=lambda item: item.index):
        begun = entry.statement.predicate
        if isinstance(begun, Proposed) and begun.delivery == delivery:
            return begun
    return None


def _promotes(held: Entry, entry: Entry) -> bool:
    """Whether *held* is the promotion of a release that *entry* is about."""
    promotes = isinstance(held.statement.predicate, Promoted)
    return promotes and any(held.statement.about(subject.digest) for subject in entry.statement.subjects)


def _decisions(entries: Iterable[Entry], delivery: str) -> list[Decision]:
    signed = [e.statement.predicate for e in entries if isinstance(e.statement.predicate, SignOff)]
    return [s.penstock for s in signed if s.penstock.delivery == delivery]


def _index(uri: str) -> int:
    prefix, _, number = uri.rpartition(":")
    if prefix != "urn:penstock:entry" or not number.isascii() or not number.isdigit() or len(number) > 18:
        raise Invalid(f"not an entry of the ledger: {uri[:80]!r}")
    return int(number)
