"""Which evidence a sign-off rests on. Pure.

The rule, used by the gate and by everybody who recomputes a sign-off:

1. Only entries below the ledger size that the gate looked at.
2. About the artifact: provenance, test results, coverage, findings, components, and statements signed
   elsewhere. Of several with the same type, origin, source and suite or tool, the newest counts.
   (`FIRST_ENGINE` did not look at the suite or tool of what was signed elsewhere.)
3. About the release, and newer than the delivery's own beginning: acceptance, canary looks and error
   budgets. The newest of each counts: the canary of an earlier delivery never signs for a later one.
4. About the release, at any time: the newest override of each policy for this action, and the newest look of
   an experiment that it was in.
5. About the change's revision: each person's newest review.
6. About the service's tests: the newest word on each test, if it quarantines it still.
7. Of the service in each environment that a policy lets it soak in: the newest promotion, and rollback.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from penstock.core import soak
from penstock.core.authority import TEST_LEAD, Authority
from penstock.core.digest import digest
from penstock.core.evidence import Entry
from penstock.core.experiment import Experiment
from penstock.core.facts import ENGINE, FIRST_ENGINE
from penstock.core.imported import translate
from penstock.core.objectives import Budget
from penstock.core.people import Override, Quarantine, Review
from penstock.core.predicates import (
    Accepted,
    Components,
    Coverage,
    Findings,
    Imported,
    Look,
    Predicate,
    Proposed,
    Provenance,
    TestResult,
)
from penstock.core.release import Artifact, Change, Release
from penstock.core.reviews import objection
from penstock.core.saying import about_tests
from penstock.errors import Invalid

Name = tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """What a sign-off is about. *size* and *now* fix which evidence and policies counted, and when; *engine*
    by which version of the rule above; *soaks* are environments that policies ask about."""

    delivery: str
    action: str
    change: Change
    artifact: Artifact
    release: Release
    first: bool
    size: int
    now: float
    engine: str = ENGINE
    soaks: tuple[str, ...] = ()

    @property
    def revision(self) -> str:
        """The digest under which reviews of the change are found."""
        return digest(self.change.revision.encode())


def tags_of(question: Question) -> tuple[str, ...]:
    """The ledger's tags (see `ledger.tags`) that hold everything `select` may need."""
    tests = about_tests(question.change.service).digest
    about = (question.artifact.digest, question.release.digest, question.revision, tests)
    places = (f"service:{question.change.service}/{name}" for name in question.soaks)
    return (*(f"about:{subject}" for subject in about), f"delivery:{question.delivery}", *places)


def select(entries: Iterable[Entry], question: Question) -> tuple[Entry, ...]:
    """The entries that count, oldest first. *entries* holds at least those of `tags_of`."""
    known = {entry.index: entry for entry in entries if entry.index < question.size}
    ordered = [known[index] for index in sorted(known)]
    began = [e.index for e in ordered if _begins(e, question.delivery)]
    newest: dict[Name, Entry] = {}
    for entry in ordered:
        name = _name(entry, question, began[0] if began else question.size)
        if name is not None:
            newest[name] = entry
    kept = (entry for entry in newest.values() if not _lifted(entry, question.now))
    return tuple(sorted(kept, key=lambda entry: entry.index))


def _lifted(entry: Entry, now: float) -> bool:
    """Whether it is a quarantine that holds no longer."""
    said = entry.statement.predicate
    return isinstance(said, Quarantine) and said.expires <= now


def _begins(entry: Entry, delivery: str) -> bool:
    predicate = entry.statement.predicate
    return isinstance(predicate, Proposed) and predicate.delivery == delivery


def _name(entry: Entry, question: Question, began: int) -> Name | None:
    """What this entry is the newest of; None if it does not count."""
    statement = entry.statement
    if statement.about(question.artifact.digest):
        name = report_name(statement.predicate, question.engine)
        if name is not None:
            return name
    if statement.about(question.release.digest):
        match statement.predicate:
            case Accepted() | Look() | Budget() if entry.index > began:
                return (statement.predicate.TYPE,)
            case Experiment():
                return (Experiment.TYPE,)
            case Override(policy=policy, action=action) if action == question.action:
                return (Override.TYPE, policy)
            case _:
                pass
    if isinstance(statement.predicate, Review) and statement.about(question.revision):
        return (Review.TYPE, statement.predicate.by.identity)
    if isinstance(statement.predicate, Quarantine) and statement.predicate.service == question.change.service:
        return (Quarantine.TYPE, statement.predicate.test)
    return soak.named(statement.predicate, question.change.service, question.soaks)


def quarantines(selected: Sequence[Entry], question: Question, authority: Authority) -> dict[str, Quarantine]:
    """By test, those that count, of tests that failed: said by whoever is still the service's test lead, and
    not for their own change."""
    told = (p for entry in selected for p in in_our_words(entry.statement.predicate))
    failed = {name for p in told if isinstance(p, (TestResult, Accepted)) for name in p.failed_tests}
    found = {}
    for entry in selected:
        said = entry.statement.predicate
        if not isinstance(said, Quarantine) or said.test not in failed:
            continue
        who = said.by.identity
        holds = authority.covers(who, TEST_LEAD, f"service/{said.service}")
        if holds and not objection(who, question.change, authority, question.engine):
            found[said.test] = said
    return found


def report_name(predicate: Predicate, engine: str = ENGINE) -> Name | None:
    """What a report about an artifact is the newest of; None for what is no such report."""
    match predicate:
        case Provenance():
            return (predicate.TYPE,)
        case TestResult(suite=name, origin=origin) | Coverage(suite=name, origin=origin):
            return (predicate.TYPE, origin, predicate.source or "", name)
        case Findings(tool=name, origin=origin) | Components(tool=name, origin=origin):
            return (predicate.TYPE, origin, predicate.source or "", name)
        case Imported(source=source, predicate_type=kind, envelope=envelope):
            told = () if engine == FIRST_ENGINE else _tools(envelope)
            return (predicate.TYPE, source, kind, *told)
        case _:
            return None


def _tools(envelope: str) -> tuple[str, ...]:
    """The suites and tools of what was signed elsewhere: one that passed must not hide another that failed.
    What cannot be read has none: it is for `facts` to refuse."""
    try:
        reports = translate(envelope)
    except Invalid:
        return ()
    return tuple(str(getattr(report, "suite", "") or getattr(report, "tool", "")) for report in reports)


def in_our_words(predicate: Predicate) -> tuple[Predicate, ...]:
    """The statement itself and, if it was signed elsewhere, what it says in our words."""
    return (predicate, *translate(predicate.envelope)) if isinstance(predicate, Imported) else (predicate,)
