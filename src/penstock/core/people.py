"""What people say: grants, policies, SLOs, reviews, overrides. One frozen class for each predicate type.

Called by `core.predicates` (which lists every type), by `core.authority` (which says who may say what)
and by whoever makes such a statement. A class never changes once released: a new version is a new class
with a new type.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from penstock.core.codec import json_name

#: Where a role, or a policy, holds: everywhere, or for the services bound to one team.
ORGANISATION = "organisation"
#: Whose keys: a person's own; a worker's; a server's, which attests logins; a tool's outside of Penstock.
Purpose = Literal["person", "worker", "server", "source"]


@dataclass(frozen=True)
class By:
    """Who says it, when, and how that is known: by a key of their own, or by a login that a server attests.

    *at* is the signer's time (seconds since 1970). Each statement of a person is later than the one before,
    so that nobody can say again what they said. *login* names the kind of login ("token", "socket",
    "signed commit 1a2b…"); None for a key of their own.
    """

    identity: str
    at: float = 0.0
    how: Literal["own-key", "attested"] = "own-key"
    login: str | None = None


# --- who may do what --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Genesis:
    """Entry 0: the log's key, and the operator who holds every role at first. Keys are raw, in hex."""

    TYPE: ClassVar[str] = "urn:penstock:genesis:v1"
    origin: str
    log_key: str = field(metadata=json_name("logKey"))
    operator: str
    operator_key: str = field(metadata=json_name("operatorKey"))
    roles: tuple[str, ...]


@dataclass(frozen=True)
class KeyGrant:
    """The key *public_key* (raw, hex) signs as *identity*.

    *types* are the predicate types that a source may sign; None for everybody else.
    """

    TYPE: ClassVar[str] = "urn:penstock:key-grant:v1"
    by: By
    identity: str
    public_key: str = field(metadata=json_name("publicKey"))
    purpose: Purpose
    types: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Person:
    """Commits name *identity* by these addresses. Whoever has none cannot be told from a change's author.

    The newest statement about a person replaces the one before.
    """

    TYPE: ClassVar[str] = "urn:penstock:person:v1"
    by: By
    identity: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class KeyRevocation:
    """The key with this id (SHA-256 of the raw public key, hex) signs nothing from this entry on."""

    TYPE: ClassVar[str] = "urn:penstock:key-revocation:v1"
    by: By
    keyid: str
    reason: str


@dataclass(frozen=True)
class LogKey:
    """From the checkpoint that covers this entry on, the log signs with *public_key* (raw, hex)."""

    TYPE: ClassVar[str] = "urn:penstock:log-key:v1"
    by: By
    public_key: str = field(metadata=json_name("publicKey"))
    reason: str


@dataclass(frozen=True)
class RoleGrant:
    """*identity* holds *role* from this entry on; *scope* is ``organisation`` or ``team/NAME``."""

    TYPE: ClassVar[str] = "urn:penstock:role-grant:v1"
    by: By
    identity: str
    role: str
    scope: str = ORGANISATION


@dataclass(frozen=True)
class RoleRevocation:
    """*identity* no longer holds *role* in *scope*, from this entry on."""

    TYPE: ClassVar[str] = "urn:penstock:role-revocation:v1"
    by: By
    identity: str
    role: str
    scope: str
    reason: str


@dataclass(frozen=True)
class Binding:
    """The catalog: *service* belongs to *team*."""

    TYPE: ClassVar[str] = "urn:penstock:binding:v1"
    by: By
    service: str
    team: str


# --- the rules ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PolicyVersion:
    """The source text of a policy, published by a holder of its owning role. Its subject is the text."""

    TYPE: ClassVar[str] = "urn:penstock:policy:v1"
    by: By
    name: str
    owner: str
    scope: str
    source: str


@dataclass(frozen=True)
class PolicyRetirement:
    """The policy holds no longer. Its name stays its owner's."""

    TYPE: ClassVar[str] = "urn:penstock:policy-retirement:v1"
    by: By
    name: str
    reason: str


# --- what users can rely on -----------------------------------------------------------------------------


@dataclass(frozen=True)
class SloVersion:
    """The source text of an SLO (OpenSLO v1) of *service*. Its subject is the text."""

    TYPE: ClassVar[str] = "urn:penstock:slo:v1"
    by: By
    service: str
    name: str
    source: str


@dataclass(frozen=True)
class SloRetirement:
    """The SLO holds no longer."""

    TYPE: ClassVar[str] = "urn:penstock:slo-retirement:v1"
    by: By
    service: str
    name: str
    reason: str


# --- about one change, or one test ----------------------------------------------------------------------


@dataclass(frozen=True)
class Review:
    """Somebody's opinion of a change, which *revision* (the full commit id) names. The last one counts."""

    TYPE: ClassVar[str] = "urn:penstock:review:v1"
    by: By
    revision: str
    verdict: Literal["approve", "reject"]
    comment: str


@dataclass(frozen=True)
class Override:
    """A holder of a policy's owning role lets *action* with this release pass it, until *expires*."""

    TYPE: ClassVar[str] = "urn:penstock:override:v1"
    by: By
    policy: str
    action: str
    release: str
    reason: str
    expires: float


@dataclass(frozen=True)
class Quarantine:
    """A holder of the role test-lead knows the test *test* of *service* to be flaky.

    Until *expires* its failure is shown, and does not count for a policy that asks only for what blocks. The
    last word on a test counts; one that ends at once lifts it.
    """

    TYPE: ClassVar[str] = "urn:penstock:quarantine:v1"
    by: By
    service: str
    test: str
    reason: str
    expires: float


Said = (
    Genesis
    | KeyGrant
    | Person
    | KeyRevocation
    | LogKey
    | RoleGrant
    | RoleRevocation
    | Binding
    | PolicyVersion
    | PolicyRetirement
    | SloVersion
    | SloRetirement
    | Review
    | Override
    | Quarantine
)
#: Statements that change who may do what, or which rules hold.
MANDATES = (
    Genesis,
    KeyGrant,
    Person,
    KeyRevocation,
    LogKey,
    RoleGrant,
    RoleRevocation,
    Binding,
    PolicyVersion,
    PolicyRetirement,
    SloVersion,
    SloRetirement,
)
#: Statements that people sign; everything else is signed by workers.
BY_PEOPLE = (*MANDATES, Review, Override, Quarantine)
