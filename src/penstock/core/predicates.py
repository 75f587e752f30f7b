"""What evidence can say: one frozen class for each in-toto predicate type; what people say is in `people`,
and what the tests in production found in `acceptance`.

Called by whoever makes evidence (actions, checks, ledger) and by `core.policy`, which reads it.
The field's own predicate types are used wherever one exists; the others are URNs with a version.
A class never changes once released: a new version is a new class with a new type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

from penstock.core.acceptance import Accepted as Accepted
from penstock.core.canary import Latencies, Row, Rule, Series
from penstock.core.codec import json_name
from penstock.core.experiment import Experiment
from penstock.core.objectives import Budget
from penstock.core.people import Said
from penstock.core.release import Artifact, Change, EnvironmentData, Release
from penstock.core.traffic import Counters, Weight

#: Who stands behind a report: the code under test itself, a tool of the platform that the change cannot
#: alter, or an authenticated source outside of Penstock.
Origin = Literal["self-reported", "platform", "external"]


@dataclass(frozen=True)
class Resource:
    """An in-toto resource descriptor."""

    uri: str
    digest: Mapping[str, str] = field(default_factory=dict)


# --- a delivery -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Proposed:
    """A delivery began. *baseline* is the release (pair) that was live then, if any."""

    TYPE: ClassVar[str] = "urn:penstock:change:v1"
    delivery: str
    change: Change
    baseline: Release | None = None


@dataclass(frozen=True)
class Deployed:
    """The pair is placed and proven ready at the data plane, without user traffic. Here and in the next two,
    *at* is when the action began (seconds since 1970). *base* is the image, by digest, whose interpreter runs
    the artifact, where the artifact's own is not all that runs."""

    TYPE: ClassVar[str] = "urn:penstock:deployment:v1"
    delivery: str
    release: Release
    data: EnvironmentData
    isolation: str
    instances: int
    at: float | None = None
    base: str | None = None


@dataclass(frozen=True)
class Shifted:
    """User traffic of the service as read back after a change of weights."""

    TYPE: ClassVar[str] = "urn:penstock:traffic:v1"
    delivery: str
    weights: tuple[Weight, ...]
    reason: str
    at: float | None = None


@dataclass(frozen=True)
class Promoted:
    """The pair took all traffic and is now the one to come back to."""

    TYPE: ClassVar[str] = "urn:penstock:promotion:v1"
    delivery: str
    release: Release
    data: EnvironmentData
    replaced: Release | None = None
    at: float | None = None


@dataclass(frozen=True)
class RolledBack:
    """The pair *release* was taken out; *restored* serves again (None: nothing was live before).

    *exposed* of *requests* user requests, from the first shift to the last, were answered by it.
    """

    TYPE: ClassVar[str] = "urn:penstock:rollback:v1"
    delivery: str
    release: Release
    restored: Release | None
    reason: str
    requests: int = 0
    exposed: int = 0


@dataclass(frozen=True)
class Drifted:
    """The data plane did not do what was last asked: *found* says in what, *weights* (in thousandths) are
    those that were found. It was put right then."""

    TYPE: ClassVar[str] = "urn:penstock:drift:v1"
    delivery: str
    service: str
    environment: str
    found: str
    weights: tuple[Weight, ...] = ()


@dataclass(frozen=True)
class Ended:
    """A delivery ended. *outcome* is for people: promoted, refused, rolled-back, superseded …"""

    TYPE: ClassVar[str] = "urn:penstock:delivery-end:v1"
    delivery: str
    state: str
    outcome: str
    reason: str


# --- what checks found -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Provenance:
    """SLSA provenance v1, the parts that Penstock can vouch for."""

    TYPE: ClassVar[str] = "https://slsa.dev/provenance/v1"
    build_definition: BuildDefinition = field(metadata=json_name("buildDefinition"))
    run_details: RunDetails = field(metadata=json_name("runDetails"))


@dataclass(frozen=True)
class BuildDefinition:
    build_type: str = field(metadata=json_name("buildType"))
    external_parameters: Mapping[str, str] = field(metadata=json_name("externalParameters"))
    internal_parameters: Mapping[str, str] = field(metadata=json_name("internalParameters"))
    resolved_dependencies: tuple[Resource, ...] = field(metadata=json_name("resolvedDependencies"))


@dataclass(frozen=True)
class RunDetails:
    builder: BuilderId
    metadata: BuildMetadata


@dataclass(frozen=True)
class BuilderId:
    id: str


@dataclass(frozen=True)
class BuildMetadata:
    invocation_id: str = field(metadata=json_name("invocationId"))


@dataclass(frozen=True)
class TestResult:
    """in-toto test-result v0.1, with counts and the origin beside it.

    Here and below: *at* is when it was recorded (seconds since 1970, by the database's clock); *source*
    is the identity that brought an external report, *report* the digest of the report's own bytes.
    """

    __test__: ClassVar[bool] = False  # the name is in-toto's; pytest must not collect it
    TYPE: ClassVar[str] = "https://in-toto.io/attestation/test-result/v0.1"
    result: Literal["PASSED", "WARNED", "FAILED"]
    suite: str
    configuration: tuple[Resource, ...]
    passed: int
    failed: int
    skipped: int
    failed_tests: tuple[str, ...] = field(metadata=json_name("failedTests"))
    origin: Origin = "self-reported"
    at: float | None = None
    source: str | None = None
    report: str | None = None


@dataclass(frozen=True)
class Coverage:
    """Lines *covered* of *total*, from a Cobertura or LCOV report."""

    TYPE: ClassVar[str] = "urn:penstock:coverage:v1"
    suite: str
    covered: int
    total: int
    origin: Origin
    at: float | None = None
    source: str | None = None
    report: str | None = None


@dataclass(frozen=True)
class Finding:
    """One result of a scanner. *severity* follows CVSS: critical from 9.0, high from 7.0."""

    id: str
    severity: Literal["critical", "high", "medium", "low"]
    message: str
    location: str = ""


@dataclass(frozen=True)
class Findings:
    """A scanner's report, from SARIF. *findings* holds the worst first and at most 200; counts are whole."""

    TYPE: ClassVar[str] = "urn:penstock:findings:v1"
    tool: str
    origin: Origin
    critical: int
    high: int
    medium: int
    low: int
    findings: tuple[Finding, ...] = ()
    at: float | None = None
    source: str | None = None
    report: str | None = None


@dataclass(frozen=True)
class Components:
    """What the artifact is made of, from a CycloneDX document (kept outside; *report* is its digest).

    *licences* are the distinct ones, sorted, at most 200; *unlicensed* components name none.
    """

    TYPE: ClassVar[str] = "urn:penstock:components:v1"
    tool: str
    origin: Origin
    count: int
    unlicensed: int
    licences: tuple[str, ...] = ()
    at: float | None = None
    source: str | None = None
    report: str | None = None


@dataclass(frozen=True)
class Imported:
    """A statement signed elsewhere, as the exact bytes of its DSSE envelope (base64).

    *source* is whose key signed it; *predicate_type* is what it says it is. Its subjects are ours too.
    """

    TYPE: ClassVar[str] = "urn:penstock:imported:v1"
    source: str
    predicate_type: str = field(metadata=json_name("predicateType"))
    envelope: str
    at: float | None = None


@dataclass(frozen=True)
class Attempt:
    """Somebody tried to say what they may not. Nothing else came of it; *statement* is its digest.

    *identity* is whose key signed it ("" if nobody's here), *brought_by* the login that sent it.
    """

    TYPE: ClassVar[str] = "urn:penstock:attempt:v1"
    identity: str
    brought_by: str = field(metadata=json_name("broughtBy"))
    what: str
    reason: str
    statement: str


@dataclass(frozen=True)
class Look:
    """One look of the canary judge at both releases since the canary began. Counts, not shares.

    *new_from*, *stable_from* are the readings when it began, *new_to*, *stable_to* those of now. *spans* is
    what happened in between, from look to look, and *latencies* the histograms of its steps: with the *rule*,
    they give the verdict to whoever asks again. Where a reading was of no use there is none of it, and the
    verdict is UNKNOWN. *series* are the same of the service's own metrics, one for each of the rule's;
    *cause* is that of an UNKNOWN.
    """

    TYPE: ClassVar[str] = "urn:penstock:canary:v1"
    verdict: Literal["PASS", "FAIL", "UNKNOWN"]
    explanation: str
    look: int
    looks: int
    needed: int
    quiet: bool
    new_from: Counters = field(metadata=json_name("newFrom"))
    new_to: Counters = field(metadata=json_name("newTo"))
    stable_from: Counters = field(metadata=json_name("stableFrom"))
    stable_to: Counters = field(metadata=json_name("stableTo"))
    at: float | None = None
    rule: Rule | None = None
    spans: tuple[Row, ...] | None = None
    latencies: Latencies | None = None
    series: tuple[Series, ...] | None = None
    cause: Literal["MISSING", "STALE", "ERROR"] | None = None


# --- sign-offs -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SignOff:
    """SLSA verification summary v1, with what it takes to compute it again under *penstock*."""

    TYPE: ClassVar[str] = "https://slsa.dev/verification_summary/v1"
    verifier: BuilderId
    time_verified: str = field(metadata=json_name("timeVerified"))
    resource_uri: str = field(metadata=json_name("resourceUri"))
    policy: Resource
    input_attestations: tuple[Resource, ...] = field(metadata=json_name("inputAttestations"))
    verification_result: Literal["PASSED", "FAILED"] = field(metadata=json_name("verificationResult"))
    verified_levels: tuple[str, ...] = field(metadata=json_name("verifiedLevels"))
    penstock: Decision = field(metadata=json_name("urn:penstock:decision:v1"))


@dataclass(frozen=True)
class Decision:
    """How a sign-off came about. *size* is the ledger's size that the gate looked at."""

    delivery: str
    policy: str
    owner: str
    action: str
    environment: str
    verdict: Literal["PASS", "FAIL", "UNKNOWN"]
    explanation: str
    rules: tuple[RuleDecision, ...]
    size: int
    now: float
    expires: float
    engine: str
    first: bool
    change: Change
    artifact: Artifact
    release: Release
    cause: Literal["MISSING", "STALE", "ERROR"] | None = None
    override: Overridden | None = None


@dataclass(frozen=True)
class Overridden:
    """The override (an entry of the ledger) that let this pass although the policy did not."""

    entry: int
    identity: str
    reason: str
    expires: float


@dataclass(frozen=True)
class RuleDecision:
    """One rule's verdict, the words for it, and the values that decided it (as JSON text)."""

    id: str
    verdict: Literal["PASS", "FAIL", "UNKNOWN"]
    says: str
    values: Mapping[str, str] = field(default_factory=dict)
    cause: Literal["MISSING", "STALE", "ERROR"] | None = None


Predicate = (
    Said
    | Proposed
    | Deployed
    | Shifted
    | Promoted
    | RolledBack
    | Drifted
    | Ended
    | Provenance
    | TestResult
    | Coverage
    | Findings
    | Components
    | Imported
    | Accepted
    | Look
    | Budget
    | Experiment
    | SignOff
    | Attempt
)

PREDICATES: dict[str, type[Predicate]] = {kind.TYPE: kind for kind in get_args(Predicate)}
