"""The typed facts that policies may use: one flat name for each, with its type.

This table is the schema, and `ENGINE` its version: a policy that misspells a name or mistakes
a type is refused when it is published. Called by `core.factfinding` (to draw facts from evidence) and by the
languages (to declare variables). A fact that no evidence gives is simply absent, and a rule that needs it is
UNKNOWN(MISSING).
"""

from __future__ import annotations

from enum import StrEnum
from math import isfinite

Fact = str | int | float | bool | tuple[str, ...]


class FactType(StrEnum):
    TEXT = "text"
    INT = "int"
    NUMBER = "number"
    BOOL = "bool"
    TEXTS = "texts"


#: Name, type, and what it says.
FACTS: dict[str, tuple[FactType, str]] = {
    "change.kind": (FactType.TEXT, "code, configuration, experiment or rollback"),
    "change.author": (FactType.TEXT, "the commit's author, as the commit claims"),
    "change.revision": (FactType.TEXT, "the full commit id"),
    "change.signer": (FactType.TEXT, "whose granted key signed the commit; empty if nobody's did"),
    "artifact.name": (FactType.TEXT, "the service whose artifact this is"),
    "artifact.digest": (FactType.TEXT, "sha256:… of the image manifest"),
    "release.digest": (FactType.TEXT, "sha256:… of the pair (artifact, environment data)"),
    "service.slos": (FactType.INT, "SLOs that are in force for the service"),
    "release.first": (FactType.BOOL, "true while the service has never been promoted here"),
    "evidence.provenance.builder": (FactType.TEXT, "who built the artifact"),
    "evidence.provenance.isolation": (FactType.TEXT, "bubblewrap, or none"),
    "evidence.tests.passed": (FactType.INT, "tests that passed, over all suites"),
    "evidence.tests.failed": (FactType.INT, "tests that failed or ended in an error"),
    "evidence.tests.skipped": (FactType.INT, "tests that were skipped"),
    "evidence.tests.failing": (FactType.TEXTS, "the names of the failed tests, at most 50"),
    "evidence.tests.blocking": (FactType.INT, "failed tests that the test lead has not quarantined"),
    "evidence.tests.quarantined": (FactType.TEXTS, "failed tests that are quarantined, at most 50"),
    "evidence.tests.independent": (FactType.INT, "tests that passed as others than the change itself report"),
    "evidence.tests.origins": (FactType.TEXTS, "who reported: self-reported, platform, external"),
    "evidence.coverage.lines": (FactType.NUMBER, "share of lines covered, 0 to 1"),
    "evidence.coverage.origins": (FactType.TEXTS, "who reported it"),
    "evidence.findings.scanners": (FactType.INT, "scanners from outside the change's own code that reported"),
    "evidence.findings.critical": (FactType.INT, "critical findings, over all reports"),
    "evidence.findings.high": (FactType.INT, "high findings, over all reports"),
    "evidence.findings.ids": (FactType.TEXTS, "identifiers of the critical findings, at most 50"),
    "evidence.findings.origins": (FactType.TEXTS, "who reported them"),
    "evidence.components.count": (FactType.INT, "components that the artifact is made of (CycloneDX)"),
    "evidence.components.licences": (FactType.TEXTS, "their distinct licences, sorted, at most 50"),
    "evidence.components.unlicensed": (FactType.INT, "components that name no licence"),
    "evidence.imported.types": (FactType.TEXTS, "predicate types of statements signed by trusted sources"),
    "evidence.reviews.approvals": (FactType.INT, "people who approve, none of them the change's author"),
    "evidence.reviews.rejections": (FactType.INT, "people who reject"),
    "evidence.reviews.approvers": (FactType.TEXTS, "who approves"),
    "evidence.reviews.roles": (FactType.TEXTS, "the roles that approvers hold for this service"),
    "evidence.reviews.discounted": (FactType.TEXTS, "approvals that do not count, and why"),
    "evidence.acceptance.passed": (FactType.INT, "acceptance tests that passed against the dark release"),
    "evidence.acceptance.failed": (FactType.INT, "acceptance tests that failed"),
    "evidence.acceptance.failing": (FactType.TEXTS, "the names of the failed acceptance tests"),
    "evidence.acceptance.blocking": (FactType.INT, "those of them that the test lead has not quarantined"),
    "evidence.acceptance.quarantined": (FactType.TEXTS, "those that are quarantined, at most 50"),
    "evidence.acceptance.requests": (FactType.INT, "generated requests against the dark release"),
    "evidence.acceptance.errors": (FactType.INT, "generated requests answered 5xx or not at all"),
    "evidence.acceptance.p95_ms": (FactType.NUMBER, "95th percentile of their latency, milliseconds"),
    "evidence.acceptance.p95_limit_ms": (FactType.NUMBER, "the limit the service declares for it"),
    "evidence.acceptance.operations": (FactType.INT, "operations of its OpenAPI document that were asked"),
    "evidence.acceptance.undocumented": (FactType.INT, "those that answered otherwise than documented"),
    "evidence.acceptance.consumers": (FactType.INT, "live consumers whose contracts were checked"),
    "evidence.acceptance.load_per_second": (FactType.NUMBER, "requests a second of the load test"),
    "evidence.acceptance.load_p95_ms": (FactType.NUMBER, "95th percentile under that load, milliseconds"),
    "evidence.acceptance.load_p99_ms": (FactType.NUMBER, "99th percentile under that load, milliseconds"),
    "evidence.acceptance.load_error_rate": (FactType.NUMBER, "share of its requests that failed, 0 to 1"),
    "evidence.acceptance.compared": (FactType.INT, "pairs of answers of the stable and the dark release"),
    "evidence.acceptance.different": (FactType.NUMBER, "share of them that differ, 0 to 1"),
    "evidence.acceptance.together": (FactType.TEXTS, "digests of the dark releases that it met meanwhile"),
    "evidence.acceptance.lost": (FactType.TEXTS, "dark releases that it was to meet, and did not"),
    "evidence.canary.verdict": (FactType.TEXT, "PASS, FAIL or UNKNOWN: the last look of the canary"),
    "evidence.canary.requests": (FactType.INT, "user requests that the new release answered in the canary"),
    "evidence.canary.needed": (FactType.INT, "user requests that the judge needs for a verdict"),
    "evidence.canary.quiet": (FactType.BOOL, "true if all the service's traffic was too little to tell"),
    "evidence.canary.explanation": (FactType.TEXT, "the judge's words"),
    "evidence.experiment.name": (FactType.TEXT, "the newest experiment that this very release was in"),
    "evidence.experiment.verdict": (FactType.TEXT, "PASS, FAIL or UNKNOWN: its last look at this release"),
    "evidence.experiment.users": (FactType.INT, "users that it was told from, those of the control too"),
    "evidence.experiment.explanation": (FactType.TEXT, "its judge's words"),
    "evidence.slo.verdict": (FactType.TEXT, "PASS, FAIL or UNKNOWN: the service's error budgets"),
    "evidence.slo.burning": (FactType.TEXTS, "objectives whose budget goes too fast to last"),
    "evidence.slo.exhausted": (FactType.TEXTS, "objectives whose budget is used up"),
    "evidence.slo.quiet": (FactType.TEXTS, "objectives with too few user requests to tell"),
    "evidence.slo.unknown": (FactType.TEXTS, "objectives for which nothing was counted of late"),
    "evidence.slo.left": (
        FactType.NUMBER,
        "the smallest budget that is left: 1 is all, below 0 too much used",
    ),
    "evidence.slo.explanation": (FactType.TEXT, "how each objective stands, in words"),
    "evidence.soak.done": (FactType.TEXTS, "environments of the policy's soak that have had it long enough"),
    "evidence.soak.waiting": (FactType.TEXTS, "the others, each with how it stands there, in words"),
    "evidence.soak.taken_back": (FactType.TEXTS, "those of them where this artifact was taken back last"),
}

#: Recorded in every sign-off. It changes when a sign-off computed from the same inputs would; what an earlier
#: one signed is computed again by the rule of then.
FIRST_ENGINE = "urn:penstock:engine:1"
ENGINE = "urn:penstock:engine:2"
ENGINES = (FIRST_ENGINE, ENGINE)
#: Facts that name many things are cut here; the counts beside them are never cut.
MAX_NAMES = 50


def group(name: str) -> str:
    """The kind of evidence that gives a fact: its first two words (``evidence.tests``)."""
    return ".".join(name.split(".")[:2])


#: Kinds of evidence whose age is known: what a policy's ``fresh`` may limit.
AGED = (
    "evidence.tests",
    "evidence.coverage",
    "evidence.findings",
    "evidence.components",
    "evidence.imported",
    "evidence.slo",
    "evidence.experiment",
)


def fits(name: str, value: Fact) -> bool:
    """Whether the value is exactly of the fact's type: True is no number, and NaN is none either."""
    match FACTS[name][0]:
        case FactType.TEXT:
            return type(value) is str
        case FactType.INT:
            return type(value) is int
        case FactType.NUMBER:
            return type(value) is float and isfinite(value)
        case FactType.BOOL:
            return type(value) is bool
        case FactType.TEXTS:
            return isinstance(value, tuple) and all(type(item) is str for item in value)
