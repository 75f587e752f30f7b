"""Who may say what: a fold over the ledger's grants, and the policies in force.

Called on every append (an entry that its signer may not write is refused before it is written) and by
``ledger verify`` (which folds again and must agree). Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from penstock.core.digest import digest, hex_of
from penstock.core.evidence import Entry, Statement
from penstock.core.people import Binding, Genesis, KeyGrant, PolicyVersion, RoleGrant
from penstock.errors import Invalid, Refused

ADMINISTRATOR = "administrator"
#: Statements that people sign; everything else is signed by workers.
BY_PEOPLE = (Genesis, KeyGrant, RoleGrant, Binding, PolicyVersion)


@dataclass(frozen=True)
class Key:
    """*public_key* is raw; *purpose* is person or worker."""

    identity: str
    public_key: bytes
    purpose: str


@dataclass(frozen=True)
class InForce:
    """A policy version that holds: its text, the text's digest, and the entry that published it."""

    name: str
    owner: str
    source: str
    digest: str
    index: int


@dataclass
class Authority:
    """What the entries so far grant. `admit` takes the next one in."""

    keys: dict[str, Key] = field(default_factory=dict)
    roles: dict[str, set[str]] = field(default_factory=dict)
    policies: dict[str, InForce] = field(default_factory=dict)
    teams: dict[str, str] = field(default_factory=dict)
    log_key: bytes = b""
    size: int = 0

    def key(self, keyid: str, statement: Statement) -> Key:
        """The key that may have signed this statement. `Refused` if nobody granted it."""
        if self.size == 0 and isinstance(statement.predicate, Genesis):
            genesis = statement.predicate
            operator = _raw(genesis.operator_key)
            if keyid == hex_of(digest(operator)):
                return Key(genesis.operator, operator, "person")
        known = self.keys.get(keyid)
        if known is None:
            raise Refused(f"nobody granted the key {keyid[:16]}…", where=f"entry {self.size}")
        return known

    def admit(self, entry: Entry) -> None:
        """Check that the signer may say this, then let it take effect."""
        if entry.index != self.size:
            raise Invalid(f"entry {entry.index} where {self.size} is next")
        self.follow(entry)

    def follow(self, entry: Entry) -> None:
        """As `admit`, for somebody who holds only some of the entries: every grant among them, in order."""
        if entry.index < self.size:
            raise Invalid(f"entry {entry.index} is out of order")
        signer = self.key(entry.envelope.keyid, entry.statement)
        self._permit(signer, entry)
        self._apply(entry)
        self.size = entry.index + 1

    def holds(self, identity: str, role: str) -> bool:
        return role in self.roles.get(identity, set())

    def _permit(self, signer: Key, entry: Entry) -> None:
        predicate, where = entry.statement.predicate, f"entry {entry.index}"
        if isinstance(predicate, Genesis) != (entry.index == 0):
            raise Invalid("a ledger begins with its genesis, and has only one", where=where)
        wanted = "person" if isinstance(predicate, BY_PEOPLE) else "worker"
        if signer.purpose != wanted:
            what = predicate.TYPE
            raise Refused(
                f"{signer.identity} is a {signer.purpose}; {what} is signed by a {wanted}", where=where
            )
        if isinstance(predicate, (KeyGrant, RoleGrant, Binding)):
            self._demand(signer, ADMINISTRATOR, where)
        if isinstance(predicate, PolicyVersion):
            existing = self.policies.get(predicate.name)
            # A new version may not hand the policy to another role: its present owner decides.
            self._demand(signer, existing.owner if existing else predicate.owner, where)
            self._demand(signer, predicate.owner, where)
            if not entry.statement.about(digest(predicate.source.encode())):
                raise Invalid("the statement is not about this policy text", where=where)

    def _demand(self, signer: Key, role: str, where: str) -> None:
        if not self.holds(signer.identity, role):
            holders = ", ".join(sorted(who for who, roles in self.roles.items() if role in roles))
            raise Refused(
                f"{signer.identity} does not hold the role {role}",
                where=where,
                next_move=f"ask a holder of it: {holders or 'nobody holds it'}",
            )

    def _apply(self, entry: Entry) -> None:
        match entry.statement.predicate:
            case Genesis() as genesis:
                operator = _raw(genesis.operator_key)
                self.keys[entry.envelope.keyid] = Key(genesis.operator, operator, "person")
                self.roles[genesis.operator] = set(genesis.roles)
                self.log_key = _raw(genesis.log_key)
            case KeyGrant() as grant:
                raw = _raw(grant.public_key)
                self.keys[hex_of(digest(raw))] = Key(grant.identity, raw, grant.purpose)
            case RoleGrant() as grant:
                self.roles.setdefault(grant.identity, set()).add(grant.role)
            case Binding() as binding:
                self.teams[binding.service] = binding.team
            case PolicyVersion() as version:
                text = digest(version.source.encode())
                self.policies[version.name] = InForce(
                    version.name, version.owner, version.source, text, entry.index
                )
            case _:
                pass


def _raw(text: str) -> bytes:
    """A raw ed25519 public key, written in hex."""
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != 32 or raw.hex() != text:
        raise Invalid("not an ed25519 public key of 32 bytes in lower-case hex", where="grant")
    return raw
