"""Deciding again what a sign-off decided: the heart of ``ledger verify`` and of ``penstock verify``.

Called by `ledger.fsck` (which knows every entry) and by `ledger.bundle` (which knows the bundled ones).
It trusts nothing that a sign-off says of itself: the question must be the delivery's own, the policy the
one in force, the evidence what the selection rule gives, and the payload must come out the same.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from penstock.core.authority import Authority, InForce
from penstock.core.evidence import Entry, Statement
from penstock.core.facts import ENGINES
from penstock.core.people import PolicyVersion
from penstock.core.policy import PolicyDocument, Rules, guarding, sign_off, soaking
from penstock.core.predicates import Deployed, Promoted, Proposed, Shifted, SignOff
from penstock.core.release import Change, Release
from penstock.core.selection import Question, select, tags_of
from penstock.errors import Invalid, PenstockError
from penstock.policyfile import parse_policy
from penstock.ports import Language

#: The action that an entry is the evidence of.
ACTION: dict[type, str] = {Deployed: "deploy", Shifted: "shift", Promoted: "promote"}
DONE = (Deployed, Shifted, Promoted)
#: What was known when each sign-off was made, by its index.
Views = Mapping[int, Authority]


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
        engine=decision.engine,
    )


def needs(signed: SignOff, authority: Authority) -> tuple[str, ...]:
    """The tags of all that a sign-off may rest on; *authority* is that of the entries before it."""
    held = authority.policies.get(signed.penstock.policy)
    try:
        policies = [document_of(held)] if held else []
    except PenstockError:  # `faults` says so
        policies = []
    return tags_of(soaking(question_of(signed), policies))


def cited(signed: SignOff) -> tuple[int, ...]:
    """The entries that a sign-off names: its policy first, then its inputs."""
    uris = [signed.policy.uri, *(item.uri for item in signed.input_attestations)]
    return tuple(_index(uri) for uri in uris)


def faults(
    entry: Entry, pool: Sequence[Entry], authority: Authority, languages: Mapping[str, Language]
) -> list[str]:
    """What is wrong with a sign-off; nothing if it recomputes to the same payload.

    *pool* holds at least the entries of `needs`; *authority* is that of the entries before this one.
    """
    signed = entry.statement.predicate
    assert isinstance(signed, SignOff)
    try:
        return list(_faults(entry, signed, pool, authority, languages))
    except PenstockError as error:
        return [str(error)]


def _faults(
    entry: Entry,
    signed: SignOff,
    pool: Sequence[Entry],
    authority: Authority,
    languages: Mapping[str, Language],
) -> Iterator[str]:
    question = question_of(signed)
    if question.engine not in ENGINES:
        yield f"it was computed by {question.engine[:80]}, which this release does not know"
        return
    # 1. It looked at a beginning of the ledger, and at the delivery's own change.
    if question.size > entry.index:
        yield "it claims to have seen entries after itself"
        return
    yield from _contradictions(question, pool)
    # 2. Nobody had changed a rule or a role when it was recorded.
    if authority.changed >= question.size:
        yield "the rules or the roles were changed before it was recorded"
        return
    # 3. The policy is the version in force then, and guards this action here; no newer evidence had come.
    held = authority.policies.get(signed.penstock.policy)
    if held is None or held.index != _index(signed.policy.uri):
        yield f"it does not cite the version of {signed.penstock.policy} that was in force"
        return
    document = document_of(held)
    question = soaking(question, [document])
    selected = select(pool, question)
    if selected != select(pool, replace(question, size=entry.index)):
        yield "newer evidence was there when it was recorded"
    if document not in needed(authority, question.action, question.change):
        yield f"policy {document.policy} does not guard {question.action} here"
    # 4. The evidence that counts gives the same bytes.
    rules = compiled(document, languages)
    again = sign_off(question, document, signed.policy.uri, rules, selected, authority)
    if Statement(entry.statement.subjects, again).payload() != entry.envelope.payload:
        yield "it does not recompute: its inputs give other bytes"


def unsigned(entry: Entry, pool: Sequence[Entry], authority: Authority, views: Views) -> list[str]:
    """The sign-offs that an action was done without; empty for entries that are no action.

    *pool* holds at least the earlier entries of its delivery, and the promotions of its release;
    *authority* is that of the entries before it, *views* those of its delivery's sign-offs. Going back to a
    pair that was promoted before needs no sign-off: that promotion is on record.
    """
    done = entry.statement.predicate
    if not isinstance(done, DONE):
        return []
    action, earlier = ACTION[type(done)], [held for held in pool if held.index < entry.index]
    if isinstance(done, (Deployed, Promoted)) and not entry.statement.about(done.release.digest):
        return [f"{action} of another release than it is about"]
    if isinstance(done, (Deployed, Promoted)) and done.data.digest != done.release.data:
        return [f"{action} with other environment data than its release has"]
    begun = proposed(earlier, done.delivery)
    if begun is None:
        return [f"{action} by a delivery that never began"]
    if begun.change.kind == "rollback":
        known = any(_promotes(held, entry) for held in earlier)
        return [] if known else [f"{action} by a rollback, of what was never promoted"]
    asked = _sign_offs(earlier, done.delivery, action)
    if begun.change.kind == "experiment":  # each variant has sign-offs of its own
        action = "experiment" if isinstance(done, Shifted) else action
        asked = [(at, s) for at, s in _sign_offs(earlier, done.delivery, action) if _same(s, entry)]
    size = max((signed.penstock.size for _, signed in asked), default=0)
    newest = [(at, signed) for at, signed in asked if signed.penstock.size == size]
    known_then = views.get(newest[0][0], authority) if newest else authority
    wanted = [document.policy for document in needed(known_then, action, begun.change)]
    given = {s.penstock.policy for at, s in newest if s.verification_result == "PASSED" and _same(s, entry)}
    late = _late(entry, earlier, [signed for _, signed in newest])
    if not wanted:
        return [f"{action} although no policy guards it"]
    return late + [f"{action} without the sign-off of {name}" for name in wanted if name not in given]


def needed(authority: Authority, action: str, of: Change | Release) -> list[PolicyDocument]:
    """The policies that hold for this transition, by name."""
    documents = [document_of(held) for held in authority.policies.values()]
    return guarding(documents, action, of.service, authority.teams.get(of.service), of.environment)


def document_of(version: InForce | PolicyVersion) -> PolicyDocument:
    """The policy that a version publishes; `Invalid` if its text is another's."""
    document = _parsed(version.source, version.name)
    said = (version.name, version.owner, version.scope)
    if (document.policy, document.owner, document.scope) != said:
        raise Invalid(
            f"published as {version.name} of {version.owner} for {version.scope}, but its text is "
            f"{document.policy} of {document.owner} for {document.scope}",
            where=f"policy {version.name}",
        )
    return document


@functools.lru_cache(maxsize=256)
def _parsed(source: str, name: str) -> PolicyDocument:
    return parse_policy(source.encode(), name)


def compiled(document: PolicyDocument, languages: Mapping[str, Language]) -> Rules:
    """The policy's rules, ready to decide; `Invalid` if its language is not installed."""
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
    """Whether *held* is the promotion of the release that *entry* is about."""
    promoted = held.statement.predicate
    return isinstance(promoted, Promoted) and _done_to(entry, promoted.release)


def _sign_offs(entries: Iterable[Entry], delivery: str, action: str) -> list[tuple[int, SignOff]]:
    signed = [(e.index, e.statement.predicate) for e in entries if isinstance(e.statement.predicate, SignOff)]
    return [
        (index, s)
        for index, s in signed
        if isinstance(s, SignOff) and (s.penstock.delivery, s.penstock.action) == (delivery, action)
    ]


def _same(signed: SignOff, entry: Entry) -> bool:
    """Whether a sign-off is for the very release that an action is about."""
    return _done_to(entry, signed.penstock.release)


def _done_to(entry: Entry, release: Release) -> bool:
    """Whether an action was done to this release: by what it says, and by all that it is filed under."""
    done = entry.statement.predicate
    if isinstance(done, (Deployed, Promoted)) and done.release != release:
        return False
    return all(subject.digest in (release.digest, release.artifact) for subject in entry.statement.subjects)


def _late(entry: Entry, earlier: Sequence[Entry], signed: Sequence[SignOff]) -> list[str]:
    """An action that began after its sign-offs had expired; what follows in its stage is the same action."""
    done = entry.statement.predicate
    assert isinstance(done, DONE)
    begun_before = any(
        type(e.statement.predicate) is type(done) and f"{done.delivery}" == _delivery(e) for e in earlier
    )
    if begun_before or done.at is None:
        return []
    return [
        f"{ACTION[type(done)]} after the sign-off of {s.penstock.policy} had expired"
        for s in signed
        if done.at >= s.penstock.expires
    ]


def _delivery(entry: Entry) -> str:
    done = entry.statement.predicate
    return done.delivery if isinstance(done, DONE) else ""


def _index(uri: str) -> int:
    prefix, _, number = uri.rpartition(":")
    if prefix != "urn:penstock:entry" or not number.isascii() or not number.isdigit() or len(number) > 18:
        raise Invalid(f"not an entry of the ledger: {uri[:80]!r}")
    return int(number)
