"""The facts that evidence gives, as policies may use them. Pure.

Called by `core.policy` with what `core.selection` selected. What they are called and mean is in `core.facts`.
Must not decide what counts, nor whether it is enough.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from penstock.core.acceptance import Compared, Contract, Sent
from penstock.core.authority import Authority
from penstock.core.evidence import Entry
from penstock.core.experiment import Experiment
from penstock.core.experiment import facts as experiment_facts
from penstock.core.facts import MAX_NAMES, Fact
from penstock.core.objectives import Budget
from penstock.core.objectives import facts as budget_facts
from penstock.core.people import Review
from penstock.core.predicates import (
    Accepted,
    Components,
    Coverage,
    Findings,
    Imported,
    Look,
    Provenance,
    TestResult,
)
from penstock.core.release import Change
from penstock.core.reviews import judged
from penstock.core.selection import Question, in_our_words, quarantines


def facts(selected: Sequence[Entry], question: Question, authority: Authority) -> dict[str, Fact]:
    """The facts of `core.facts.FACTS` that this evidence gives; what it does not give is absent.

    *authority* is that of the question's ledger size: who holds which role, and whose commits these are.
    """
    change, release = question.change, question.release
    found: dict[str, Fact] = {
        "change.kind": change.kind,
        "change.author": change.author,
        "change.revision": change.revision,
        "change.signer": signer(change, authority),
        "artifact.name": question.artifact.name,
        "artifact.digest": question.artifact.digest,
        "release.digest": release.digest,
        "release.first": question.first,
        "service.slos": sum(service == change.service for service, _ in authority.slos),
    }
    predicates = [p for entry in selected for p in in_our_words(entry.statement.predicate)]
    flaky = quarantines(selected, question, authority)
    found |= _tests([p for p in predicates if isinstance(p, TestResult)], flaky)
    found |= _coverage([p for p in predicates if isinstance(p, Coverage)])
    found |= _findings([p for p in predicates if isinstance(p, Findings)])
    found |= _components([p for p in predicates if isinstance(p, Components)])
    found |= _imported([p for p in predicates if isinstance(p, Imported)])
    found |= _reviews([p for p in predicates if isinstance(p, Review)], question, authority)
    for predicate in predicates:
        match predicate:
            case Provenance():
                found |= _provenance(predicate)
            case Accepted():
                found |= _acceptance(predicate, flaky)
            case Look():
                found |= _canary(predicate)
            case Budget():
                found |= budget_facts(predicate)
            case Experiment():
                found |= experiment_facts(predicate)
            case _:
                pass
    return found


def signer(change: Change, authority: Authority) -> str:
    """The identity whose key signed the commit; "" if it is nobody's that is known here."""
    raw = change.signing_key
    keys = authority.keys.values()
    return next((k.identity for k in keys if k.purpose == "person" and k.public_key.hex() == raw), "")


def ages(selected: Iterable[Entry], now: float) -> dict[str, float]:
    """The age in seconds of the oldest evidence of each kind (`core.facts.AGED`), where it is known."""
    found: dict[str, float] = {}
    for entry in selected:
        predicate = entry.statement.predicate
        at = getattr(predicate, "at", None)
        for told in in_our_words(predicate):
            kind = KINDS.get(type(told))
            if kind and at is not None:
                found[kind] = max(found.get(kind, 0.0), now - at)
    return found


KINDS: dict[type, str] = {
    TestResult: "evidence.tests",
    Coverage: "evidence.coverage",
    Findings: "evidence.findings",
    Components: "evidence.components",
    Imported: "evidence.imported",
    Budget: "evidence.slo",
    Experiment: "evidence.experiment",
}


def _origins(reports: Iterable[TestResult | Coverage | Findings]) -> tuple[str, ...]:
    return tuple(sorted({report.origin for report in reports}))


def _spared(result: TestResult | Accepted, flaky: Collection[str]) -> list[str]:
    """The failed tests that are quarantined; what is not named is not."""
    return [name for name in result.failed_tests if name in flaky][: result.failed]


def _tests(results: list[TestResult], flaky: Collection[str]) -> Mapping[str, Fact]:
    if not results:
        return {}
    spared = [name for r in results for name in _spared(r, flaky)]
    return {
        "evidence.tests.blocking": sum(r.failed for r in results) - len(spared),
        "evidence.tests.quarantined": tuple(spared)[:MAX_NAMES],
        "evidence.tests.passed": sum(r.passed for r in results),
        "evidence.tests.failed": sum(r.failed for r in results),
        "evidence.tests.skipped": sum(r.skipped for r in results),
        "evidence.tests.failing": tuple(name for r in results for name in r.failed_tests)[:MAX_NAMES],
        "evidence.tests.independent": sum(r.passed for r in results if r.origin != "self-reported"),
        "evidence.tests.origins": _origins(results),
    }


def _coverage(reports: list[Coverage]) -> Mapping[str, Fact]:
    total = sum(report.total for report in reports)
    if not total:
        return {}
    lines = sum(r.covered for r in reports) / total
    return {"evidence.coverage.lines": lines, "evidence.coverage.origins": _origins(reports)}


def _findings(reports: list[Findings]) -> Mapping[str, Fact]:
    if not reports:
        return {}
    critical = (f.id for r in reports for f in r.findings if f.severity == "critical")
    return {
        "evidence.findings.scanners": sum(r.origin != "self-reported" for r in reports),
        "evidence.findings.critical": sum(r.critical for r in reports),
        "evidence.findings.high": sum(r.high for r in reports),
        "evidence.findings.ids": tuple(dict.fromkeys(critical))[:MAX_NAMES],
        "evidence.findings.origins": _origins(reports),
    }


def _components(documents: list[Components]) -> Mapping[str, Fact]:
    if not documents:
        return {}
    return {
        "evidence.components.count": sum(d.count for d in documents),
        "evidence.components.unlicensed": sum(d.unlicensed for d in documents),
        "evidence.components.licences": tuple(sorted({n for d in documents for n in d.licences}))[:MAX_NAMES],
    }


def _imported(statements: list[Imported]) -> Mapping[str, Fact]:
    types = tuple(sorted({statement.predicate_type for statement in statements}))[:MAX_NAMES]
    return {"evidence.imported.types": types} if types else {}


def _reviews(reviews: list[Review], question: Question, authority: Authority) -> Mapping[str, Fact]:
    if not reviews:
        return {}
    change = question.change
    approving = judged(reviews, change, authority, question.engine)
    counted = sorted(who for who, why in approving.items() if not why)
    roles = {role for who in counted for role in authority.roles_for(who, change.service)}
    return {
        "evidence.reviews.approvals": len(counted),
        "evidence.reviews.rejections": sum(review.verdict == "reject" for review in reviews),
        "evidence.reviews.approvers": tuple(counted)[:MAX_NAMES],
        "evidence.reviews.roles": tuple(sorted(roles))[:MAX_NAMES],
        "evidence.reviews.discounted": tuple(
            f"{who}: {why}" for who, why in sorted(approving.items()) if why
        )[:MAX_NAMES],
    }


def _provenance(provenance: Provenance) -> Mapping[str, Fact]:
    given = provenance.build_definition.internal_parameters
    facts: dict[str, Fact] = {"evidence.provenance.builder": provenance.run_details.builder.id}
    if "isolation" in given:
        facts["evidence.provenance.isolation"] = given["isolation"]
    return facts


def _acceptance(accepted: Accepted, flaky: Collection[str]) -> Mapping[str, Fact]:
    spared = _spared(accepted, flaky)
    together = accepted.together or ()
    return {
        "evidence.acceptance.blocking": accepted.failed - len(spared),
        "evidence.acceptance.quarantined": tuple(spared)[:MAX_NAMES],
        "evidence.acceptance.passed": accepted.passed,
        "evidence.acceptance.failed": accepted.failed,
        "evidence.acceptance.failing": accepted.failed_tests[:MAX_NAMES],
        "evidence.acceptance.requests": accepted.requests,
        "evidence.acceptance.errors": accepted.errors,
        "evidence.acceptance.p95_ms": accepted.p95_ms,
        "evidence.acceptance.p95_limit_ms": accepted.p95_limit_ms,
        **_contract(accepted.contract),
        **({"evidence.acceptance.consumers": len(accepted.consumers)} if accepted.consumers else {}),
        **_load(accepted.load),
        **_compared(accepted.compared),
        "evidence.acceptance.together": tuple(met.digest for met in together if met.requests),
        "evidence.acceptance.lost": tuple(met.release for met in together if not met.requests),
    }


def _contract(contract: Contract | None) -> Mapping[str, Fact]:
    if contract is None:
        return {}
    return {
        "evidence.acceptance.operations": contract.operations,
        "evidence.acceptance.undocumented": contract.failed,
    }


def _load(load: Sent | None) -> Mapping[str, Fact]:
    if load is None or not load.requests:
        return {}
    return {
        "evidence.acceptance.load_per_second": load.per_second,
        "evidence.acceptance.load_p95_ms": load.p95_ms,
        "evidence.acceptance.load_p99_ms": load.p99_ms,
        "evidence.acceptance.load_error_rate": load.errors / load.requests,
    }


def _compared(compared: Compared | None) -> Mapping[str, Fact]:
    if compared is None or not compared.pairs:
        return {}
    share = compared.different / compared.pairs
    return {"evidence.acceptance.compared": compared.pairs, "evidence.acceptance.different": share}


def _canary(look: Look) -> Mapping[str, Fact]:
    return {
        "evidence.canary.verdict": look.verdict,
        "evidence.canary.requests": look.new_to.requests - look.new_from.requests,
        "evidence.canary.needed": look.needed,
        "evidence.canary.quiet": look.quiet,
        "evidence.canary.explanation": look.explanation,
    }
