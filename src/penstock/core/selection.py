"""Which evidence a sign-off rests on, and the facts that it gives. Pure.

The rule, used by the gate and by everybody who recomputes a sign-off:

1. Only entries below the ledger size that the gate looked at, signed by workers.
2. About the artifact: provenance, test results, coverage, findings. Of several with the same type and
   the same suite or tool, the newest counts.
3. About the release, and newer than the delivery's own beginning: acceptance and canary looks. The
   newest of each counts: the canary of an earlier delivery never signs for a later one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from penstock.core.evidence import Entry
from penstock.core.facts import MAX_NAMES, Fact
from penstock.core.predicates import (
    Accepted,
    Coverage,
    Findings,
    Look,
    Proposed,
    Provenance,
    TestResult,
)
from penstock.core.release import Artifact, Change, Release


def select(
    entries: Iterable[Entry], *, artifact: Artifact, release: Release, delivery: str, size: int
) -> tuple[Entry, ...]:
    """The entries that count, oldest first. *entries* holds at least those about either digest, and the
    delivery's own."""
    known = {entry.index: entry for entry in entries if entry.index < size}
    ordered = [known[index] for index in sorted(known)]
    began = [e.index for e in ordered if _begins(e, delivery)]
    newest: dict[tuple[str, ...], Entry] = {}
    for entry in ordered:
        name = _name(entry, artifact, release, began[0] if began else size)
        if name is not None:
            newest[name] = entry
    return tuple(sorted(newest.values(), key=lambda entry: entry.index))


def _begins(entry: Entry, delivery: str) -> bool:
    predicate = entry.statement.predicate
    return isinstance(predicate, Proposed) and predicate.delivery == delivery


def _name(entry: Entry, artifact: Artifact, release: Release, began: int) -> tuple[str, ...] | None:
    """What this entry is the newest of; None if it does not count."""
    statement = entry.statement
    if statement.about(artifact.digest):
        match statement.predicate:
            case Provenance():
                return (statement.predicate.TYPE,)
            case TestResult(suite=suite) | Coverage(suite=suite):
                return (statement.predicate.TYPE, suite)
            case Findings(tool=tool, origin=origin):
                return (statement.predicate.TYPE, origin, tool)
            case _:
                pass
    if statement.about(release.digest) and entry.index > began:
        match statement.predicate:
            case Accepted() | Look():
                return (statement.predicate.TYPE,)
            case _:
                pass
    return None


def facts(
    selected: Iterable[Entry], *, change: Change, artifact: Artifact, release: Release, first: bool
) -> dict[str, Fact]:
    """The facts of `core.facts.FACTS` that this evidence gives; what it does not give is absent."""
    found: dict[str, Fact] = {
        "change.kind": change.kind,
        "change.author": change.author,
        "change.revision": change.revision,
        "artifact.name": artifact.name,
        "artifact.digest": artifact.digest,
        "release.digest": release.digest,
        "release.first": first,
    }
    predicates = [entry.statement.predicate for entry in selected]
    found |= _tests([p for p in predicates if isinstance(p, TestResult)])
    found |= _coverage([p for p in predicates if isinstance(p, Coverage)])
    found |= _findings([p for p in predicates if isinstance(p, Findings)])
    for predicate in predicates:
        match predicate:
            case Provenance():
                found |= _provenance(predicate)
            case Accepted():
                found |= _acceptance(predicate)
            case Look():
                found |= _canary(predicate)
            case _:
                pass
    return found


def _tests(results: list[TestResult]) -> Mapping[str, Fact]:
    if not results:
        return {}
    return {
        "evidence.tests.passed": sum(r.passed for r in results),
        "evidence.tests.failed": sum(r.failed for r in results),
        "evidence.tests.skipped": sum(r.skipped for r in results),
        "evidence.tests.failing": tuple(name for r in results for name in r.failed_tests)[:MAX_NAMES],
    }


def _coverage(reports: list[Coverage]) -> Mapping[str, Fact]:
    total = sum(report.total for report in reports)
    return {"evidence.coverage.lines": sum(r.covered for r in reports) / total} if total else {}


def _findings(reports: list[Findings]) -> Mapping[str, Fact]:
    if not reports:
        return {}
    critical = (f.id for r in reports for f in r.findings if f.severity == "critical")
    return {
        "evidence.findings.scanners": sum(r.origin == "platform" for r in reports),
        "evidence.findings.critical": sum(r.critical for r in reports),
        "evidence.findings.high": sum(r.high for r in reports),
        "evidence.findings.ids": tuple(dict.fromkeys(critical))[:MAX_NAMES],
    }


def _provenance(provenance: Provenance) -> Mapping[str, Fact]:
    given = provenance.build_definition.internal_parameters
    facts: dict[str, Fact] = {"evidence.provenance.builder": provenance.run_details.builder.id}
    if "isolation" in given:
        facts["evidence.provenance.isolation"] = given["isolation"]
    return facts


def _acceptance(accepted: Accepted) -> Mapping[str, Fact]:
    return {
        "evidence.acceptance.passed": accepted.passed,
        "evidence.acceptance.failed": accepted.failed,
        "evidence.acceptance.failing": accepted.failed_tests[:MAX_NAMES],
        "evidence.acceptance.requests": accepted.requests,
        "evidence.acceptance.errors": accepted.errors,
        "evidence.acceptance.p95_ms": accepted.p95_ms,
        "evidence.acceptance.p95_limit_ms": accepted.p95_limit_ms,
    }


def _canary(look: Look) -> Mapping[str, Fact]:
    return {
        "evidence.canary.verdict": look.verdict,
        "evidence.canary.requests": look.new_to.requests - look.new_from.requests,
        "evidence.canary.needed": look.needed,
        "evidence.canary.quiet": look.quiet,
        "evidence.canary.explanation": look.explanation,
    }
