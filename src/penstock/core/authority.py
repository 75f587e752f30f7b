"""Who may say what: a fold over what people said, and the policies in force.

Called on every append (an entry that its signer may not write is refused before it is written), by the
gate, and by ``ledger verify`` (which folds again and must agree). Pure; an `Authority` never changes. Whether
a statement makes sense at all, whoever says it, is for `core.wellformed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from penstock.core.digest import digest, hex_of
from penstock.core.evidence import Entry, Statement
from penstock.core.objectives import OWNER, SloInForce
from penstock.core.people import (
    MANDATES,
    ORGANISATION,
    Binding,
    Genesis,
    KeyGrant,
    KeyRevocation,
    LogKey,
    Override,
    Person,
    PolicyRetirement,
    PolicyVersion,
    Quarantine,
    Review,
    RoleGrant,
    RoleRevocation,
    Said,
    SloRetirement,
    SloVersion,
)
from penstock.core.predicates import Components, Coverage, Findings, TestResult
from penstock.core.saying import subject_of
from penstock.core.wellformed import check_mandate, check_name, check_quarantine, check_scope, raw_key
from penstock.errors import Conflict, Invalid, Refused

ADMINISTRATOR = "administrator"
#: Whoever holds it may bring reports from outside.
SOURCE = "evidence-source"
#: Whoever holds it may ship, abort, promote, retry and roll back; and so may these others (see ADR 0021).
DEPLOYER = "deployer"
TEST_LEAD = "test-lead"
LEADS = ("development-lead", TEST_LEAD, "security-lead", "operations-lead")
OPERATING = (DEPLOYER, *LEADS, ADMINISTRATOR)


@dataclass(frozen=True)
class Key:
    """*public_key* is raw. *types* limits what a source's key may sign; None: no limit of its own."""

    identity: str
    public_key: bytes
    purpose: str
    types: tuple[str, ...] | None = None


@dataclass(frozen=True)
class InForce:
    """A policy version that holds: its text, the text's digest, and the entry that published it."""

    name: str
    owner: str
    scope: str
    source: str
    digest: str
    index: int


@dataclass(frozen=True)
class Authority:
    """What the entries so far grant. `admit` gives the next one.

    *roles* holds (role, scope) pairs; *owners* keeps whose a policy's name is, after its retirement too;
    *slos* are found by service and name;
    *log_keys* the log's keys, each with the index of the entry that made it so; *latest* is when each person
    last said something; *changed* the index of the last entry that changed who may do what, or which rules
    hold (-1: none).
    """

    keys: Mapping[str, Key] = field(default_factory=dict)
    roles: Mapping[str, frozenset[tuple[str, str]]] = field(default_factory=dict)
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    policies: Mapping[str, InForce] = field(default_factory=dict)
    owners: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    slos: Mapping[tuple[str, str], SloInForce] = field(default_factory=dict)
    teams: Mapping[str, str] = field(default_factory=dict)
    log_keys: tuple[tuple[int, bytes], ...] = ()
    latest: Mapping[str, float] = field(default_factory=dict)
    changed: int = -1

    # --- questions -------------------------------------------------------------------------------

    def key(self, keyid: str, statement: Statement) -> Key:
        """The key that may have signed this statement. `Refused` if nobody granted it."""
        if not self.keys and isinstance(statement.predicate, Genesis):
            genesis = statement.predicate
            operator = raw_key(genesis.operator_key)
            if keyid == hex_of(digest(operator)):
                return Key(genesis.operator, operator, "person")
        known = self.keys.get(keyid)
        if known is None:
            raise Refused(
                f"nobody granted the key {keyid[:16]}…, or it was revoked",
                next_move="ask an administrator: penstock identity add NAME --public-key FILE.pub",
            )
        return known

    def covers(self, identity: str, role: str, scope: str) -> bool:
        """Whether somebody holds a role for a scope (``organisation``, ``team/NAME``, ``service/NAME``)."""
        held = self.roles.get(identity, frozenset())
        return any((role, place) in held for place in self._places(scope))

    def holders(self, role: str, scope: str = ORGANISATION) -> tuple[str, ...]:
        """Everybody who holds a role for a scope, in alphabetical order."""
        return tuple(sorted(who for who in self.roles if self.covers(who, role, scope)))

    def operates(self, identity: str, service: str) -> bool:
        """Whether somebody may ship, abort, promote, retry and roll back a service."""
        return any(self.covers(identity, role, f"service/{service}") for role in OPERATING)

    def roles_for(self, identity: str, service: str) -> tuple[str, ...]:
        """The roles that somebody holds for a service, in alphabetical order."""
        places = self._places(f"service/{service}")
        return tuple(sorted({r for r, place in self.roles.get(identity, ()) if place in places}))

    def log_key(self, size: int) -> bytes:
        """The key that signs the checkpoint of *size* entries; empty if nobody made one."""
        return next((raw for index, raw in reversed(self.log_keys) if index < size), b"")

    def _places(self, scope: str) -> tuple[str, ...]:
        """The scopes in which a role counts for *scope*: its own, its team's, and the organisation."""
        kind, _, name = scope.partition("/")
        team = self.teams.get(name) if kind == "service" else None
        return (ORGANISATION, *((f"team/{team}",) if team else ()), *((scope,) if kind == "team" else ()))

    # --- the fold ----------------------------------------------------------------------------------

    def admit(self, entry: Entry) -> Authority:
        """Check that the signer may say this, and let it take effect.

        The signature itself is the caller's to check, and so is the order of the entries. `Refused` if
        the signer may not, `Invalid` if the statement makes no sense.
        """
        predicate = entry.statement.predicate
        try:
            signer = self.key(entry.envelope.keyid, entry.statement)
            if isinstance(predicate, Genesis) != (entry.index == 0):
                raise Invalid("a ledger begins with its genesis, and has only one")
            if not isinstance(predicate, Said):
                self._machine(signer, entry)
                return self
            if entry.statement.subjects != (subject_of(predicate),):
                raise Invalid("the statement's subject is not what it says something about")
            if not isinstance(predicate, Genesis):
                self._person(signer, predicate)
                self._permit(predicate)
        except (Refused, Invalid, Conflict) as error:
            raise type(error)(
                error.what, where=error.where or f"entry {entry.index}", next_move=error.next_move
            ) from error
        spoken = replace(self, latest=_spoken(self.latest, predicate))
        if not isinstance(predicate, MANDATES):
            return spoken
        after = replace(_applied(spoken, predicate, entry), changed=entry.index)
        if not _governed(after):
            raise Invalid("nobody would be left who can grant anything", where=f"entry {entry.index}")
        return after

    def _machine(self, signer: Key, entry: Entry) -> None:
        predicate = entry.statement.predicate
        if signer.purpose != "worker":
            what = predicate.TYPE
            raise Refused(f"{signer.identity} is a {signer.purpose}; {what} is signed by a worker")
        if isinstance(predicate, (TestResult, Coverage, Findings, Components)) and predicate.source:
            self._demand(predicate.source, SOURCE, ORGANISATION)

    def _person(self, signer: Key, predicate: Said) -> None:
        """The statement says truly whose it is, and how that is known."""
        assert not isinstance(predicate, Genesis)
        by = predicate.by
        if signer.purpose == "person":
            if (by.identity, by.how, by.login) != (signer.identity, "own-key", None):
                raise Refused(f"signed with the key of {signer.identity}, but says it is by {by.identity}")
        elif signer.purpose == "server":
            if by.how != "attested" or not by.login:
                raise Refused("a server's key attests a login; the statement does not say so")
        else:
            what = predicate.TYPE
            raise Refused(f"{signer.identity} is a {signer.purpose}; {what} is signed by a person")
        if by.at <= self.latest.get(by.identity, -1.0):
            raise Conflict(f"{by.identity} has said something later already", next_move="sign it again")
        if by.identity not in self.roles and all(k.identity != by.identity for k in self.keys.values()):
            raise Refused(f"nobody here is called {by.identity}")

    def _permit(self, predicate: Said) -> None:
        match predicate:
            case KeyGrant() | LogKey() | Binding() | Person():
                check_mandate(predicate)
                self._demand(predicate.by.identity, ADMINISTRATOR, ORGANISATION)
                if isinstance(predicate, KeyGrant):
                    self._permit_key(predicate)
            case KeyRevocation():
                self._permit_revocation(predicate)
            case RoleGrant() | RoleRevocation():
                check_mandate(predicate)
                self._demand(predicate.by.identity, ADMINISTRATOR, predicate.scope)
                held = self.roles.get(predicate.identity, frozenset())
                if isinstance(predicate, RoleRevocation) and (predicate.role, predicate.scope) not in held:
                    raise Invalid(
                        f"{predicate.identity} does not hold {predicate.role} in {predicate.scope}",
                        next_move="penstock identity list",
                    )
            case PolicyVersion() | PolicyRetirement() | Override():
                self._permit_owner(predicate)
            case Quarantine():
                check_quarantine(predicate)
                self._demand(predicate.by.identity, TEST_LEAD, f"service/{predicate.service}")
            case SloVersion() | SloRetirement():
                check_name(predicate.service)
                check_name(predicate.name)
                self._demand(predicate.by.identity, OWNER, f"service/{predicate.service}")
                if isinstance(predicate, SloRetirement):
                    self._known_slo(predicate.service, predicate.name)
            case Review():
                pass  # anybody who is known may have an opinion; whose counts is for policies to say
            case _:
                raise Invalid(f"{predicate.TYPE} may not be said here")

    def _permit_key(self, grant: KeyGrant) -> None:
        held = self.keys.get(hex_of(digest(raw_key(grant.public_key))))
        if held is not None and held.identity != grant.identity:
            raise Invalid(
                f"this key signs as {held.identity} already", next_move="revoke it first, or use another key"
            )

    def _permit_revocation(self, revocation: KeyRevocation) -> None:
        known = self.keys.get(revocation.keyid)
        if known is None:
            raise Invalid(f"there is no key {revocation.keyid[:16]}…", next_move="penstock identity list")
        if known.identity != revocation.by.identity:  # everybody may give up a key of their own
            self._demand(revocation.by.identity, ADMINISTRATOR, ORGANISATION)

    def _permit_owner(self, said: PolicyVersion | PolicyRetirement | Override) -> None:
        """Only holders of the owning role: of the present version, and of the new one."""
        name = said.policy if isinstance(said, Override) else said.name
        present = self.owners.get(name)
        if present is not None:
            self._demand(said.by.identity, *present)
        if isinstance(said, PolicyVersion):
            check_scope(said.scope)
            self._demand(said.by.identity, said.owner, said.scope)
        elif name not in self.policies:
            known = ", ".join(sorted(self.policies)) or "none"
            raise Invalid(f"no policy {name!r} is in force; in force: {known}")

    def _known_slo(self, service: str, name: str) -> None:
        if (service, name) not in self.slos:
            known = ", ".join(held for place, held in sorted(self.slos) if place == service) or "none"
            raise Invalid(f"{service} has no SLO {name!r} in force; in force: {known}")

    def _demand(self, identity: str, role: str, scope: str) -> None:
        if self.covers(identity, role, scope):
            return
        holders = ", ".join(self.holders(role, scope))
        place = "" if scope == ORGANISATION else f" for {scope}"
        raise Refused(
            f"{identity} does not hold the role {role}{place}",
            next_move=f"ask a holder of it: {holders or 'nobody holds it'}",
        )


def _applied(before: Authority, said: object, entry: Entry) -> Authority:
    """What holds once this was said; whether it may be said was looked at."""
    match said:
        case Genesis() as genesis:
            operator = Key(genesis.operator, raw_key(genesis.operator_key), "person")
            roles = frozenset((role, ORGANISATION) for role in genesis.roles)
            return replace(
                before,
                keys={entry.envelope.keyid: operator},
                roles={genesis.operator: roles},
                log_keys=((entry.index - 1, raw_key(genesis.log_key)),),
            )
        case KeyGrant() as grant:
            raw = raw_key(grant.public_key)
            key = Key(grant.identity, raw, grant.purpose, grant.types)
            return replace(before, keys={**before.keys, hex_of(digest(raw)): key})
        case KeyRevocation(keyid=keyid):
            return replace(before, keys={k: v for k, v in before.keys.items() if k != keyid})
        case LogKey(public_key=public_key):
            return replace(before, log_keys=(*before.log_keys, (entry.index, raw_key(public_key))))
        case Person(identity=identity, addresses=addresses):
            return replace(before, addresses={**before.addresses, identity: addresses})
        case Binding(service=service, team=team):
            return replace(before, teams={**before.teams, service: team})
        case RoleGrant(identity=identity, role=role, scope=scope):
            held = before.roles.get(identity, frozenset()) | {(role, scope)}
            return replace(before, roles={**before.roles, identity: held})
        case RoleRevocation(identity=identity, role=role, scope=scope):
            held = before.roles.get(identity, frozenset()) - {(role, scope)}
            return replace(before, roles={**before.roles, identity: held})
        case PolicyVersion() as version:
            text = digest(version.source.encode())
            held_now = InForce(version.name, version.owner, version.scope, version.source, text, entry.index)
            return replace(
                before,
                policies={**before.policies, version.name: held_now},
                owners={**before.owners, version.name: (version.owner, version.scope)},
            )
        case SloVersion(service=service, name=name, source=source):
            slo = SloInForce(service, name, source, digest(source.encode()), entry.index)
            return replace(before, slos={**before.slos, (service, name): slo})
        case SloRetirement(service=service, name=name):
            return replace(before, slos={k: v for k, v in before.slos.items() if k != (service, name)})
        case PolicyRetirement(name=name):
            return replace(before, policies={k: v for k, v in before.policies.items() if k != name})
        case _:
            return before


def _spoken(latest: Mapping[str, float], said: Said) -> Mapping[str, float]:
    return latest if isinstance(said, Genesis) else {**latest, said.by.identity: said.by.at}


def _governed(authority: Authority) -> bool:
    """Whether an administrator is left who can sign."""
    able = {key.identity for key in authority.keys.values() if key.purpose == "person"}
    return any(who in able for who in authority.holders(ADMINISTRATOR))
