"""Whether what a person says is well formed: names, identities, scopes, keys. Pure.

Called by `core.authority`, which then asks who may say it, and by whoever lets people type an identity. What
is not well formed is `Invalid`, with the form that would be. Must not know who holds what.
"""

from __future__ import annotations

import re

from penstock.core.people import (
    ORGANISATION,
    Binding,
    KeyGrant,
    LogKey,
    Person,
    Quarantine,
    RoleGrant,
    RoleRevocation,
)
from penstock.errors import Invalid

NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
IDENTITY = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._+-]{0,126}")


def check_mandate(said: KeyGrant | LogKey | Binding | Person | RoleGrant | RoleRevocation) -> None:
    match said:
        case KeyGrant(identity=identity, public_key=key):
            raw_key(key)
            check_identity(identity)
        case LogKey(public_key=key):
            raw_key(key)
        case Person(identity=identity):
            check_identity(identity)
        case Binding(service=service, team=team):
            check_name(service)
            check_name(team)
        case RoleGrant(identity=identity, role=role, scope=scope):
            check_identity(identity)
            check_name(role)
            check_scope(scope, roles=True)
        case RoleRevocation(scope=scope):
            check_scope(scope, roles=True)


def check_quarantine(said: Quarantine) -> None:
    check_name(said.service)
    if not said.test.strip() or not said.reason.strip() or max(len(said.test), len(said.reason)) > 1000:
        raise Invalid("a quarantine names a test and a reason, each at most 1000 characters")


def check_scope(scope: str, *, roles: bool = False) -> None:
    kind, _, name = scope.partition("/")
    kinds = ("team",) if roles else ("team", "service")
    if scope != ORGANISATION and not (kind in kinds and NAME.fullmatch(name)):
        allowed = ", ".join([ORGANISATION, *(f"{kind}/NAME" for kind in kinds)])
        raise Invalid(f"{scope[:80]!r} is not a scope", next_move=f"one of: {allowed}")


def check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise Invalid(f"{name[:80]!r} is not a name", next_move="lower case, digits and dashes")


def check_identity(identity: str) -> None:
    if not IDENTITY.fullmatch(identity):
        raise Invalid(
            f"{identity[:80]!r} is not an identity", next_move="letters, digits and @._+- (alice, bob@x.org)"
        )


def raw_key(text: str) -> bytes:
    """A raw ed25519 public key, written in hex."""
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != 32 or raw.hex() != text:
        raise Invalid("not an ed25519 public key of 32 bytes in lower-case hex")
    return raw
