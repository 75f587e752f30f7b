"""The API for people: saying things that are signed, who may say what, and API tokens.

Called by `api`. It decides nothing: the ledger's authority does, at the `engine.door`.
"""

from __future__ import annotations

import hashlib
import secrets

from fastapi import APIRouter, Request
from pydantic import BaseModel

from penstock.bootstrap.control import ControlPlane
from penstock.bootstrap.identity import next_log_key
from penstock.core.authority import ADMINISTRATOR, Authority
from penstock.core.codec import Json, decode
from penstock.core.evidence import open_envelope
from penstock.core.people import BY_PEOPLE, ORGANISATION, LogKey, Said
from penstock.core.predicates import PREDICATES
from penstock.core.wellformed import IDENTITY
from penstock.engine import tokens
from penstock.engine.door import Login, identity_of
from penstock.errors import Invalid, Refused
from penstock.server.guard import login_of
from penstock.server.parameters import Text
from penstock.server.views import View


class Saying(BaseModel):
    """A predicate of *type*, without its ``by``: the server fills in whom it knows the caller to be."""

    type: Text
    predicate: dict[str, Json]


class ForWhom(BaseModel):
    identity: Text


def routes(api: APIRouter, control: ControlPlane) -> None:
    _statements(api, control)
    _identities(api, control)
    _tokens(api, control)


def _statements(api: APIRouter, control: ControlPlane) -> None:
    @api.post("/statements")
    async def accept(request: Request) -> View:
        """Record a statement that somebody signed: the body is its DSSE envelope."""
        envelope = open_envelope(await request.body())
        said = envelope.statement().predicate
        if isinstance(said, LogKey) and not control.ledger.signs_with(said.public_key):
            move = "penstock ledger rotate-key makes one"
            raise Invalid("this server does not have that key", next_move=move)
        entry = await control.door.accept(envelope, login_of(request))
        return {"index": entry.index, "digest": entry.envelope.digest}

    @api.post("/say")
    async def say(given: Saying, request: Request) -> View:
        """Record what the caller says, attested by the server's key, where the organisation allows that."""
        kind = PREDICATES.get(given.type)
        if kind is None or kind not in BY_PEOPLE:
            known = ", ".join(sorted(said.TYPE for said in BY_PEOPLE))
            raise Invalid(f"{given.type!r} is not for people to say", where="type", next_move=known)
        login = login_of(request)
        by = {"identity": login.identity, "at": 0.0, "how": "attested", "login": login.kind}
        said = decode(kind, {**given.predicate, "by": by}, "predicate")
        assert isinstance(said, Said)
        entry = await control.door.attest(said, login)
        return {"index": entry.index, "digest": entry.envelope.digest}

    @api.post("/ledger/next-key")
    async def next_key(request: Request) -> View:
        """Make the log's next key. It signs nothing until an administrator's statement says so."""
        await demand_administrator(control, login_of(request))
        async with control.store.transaction(write=False) as tx:
            used = [raw for _, raw in (await control.ledger.authority(tx)).log_keys]
        signer = next_log_key(control.home, used)
        control.ledger.sign_also_with(signer)
        return {"public_key": signer.public_key.hex()}


def _identities(api: APIRouter, control: ControlPlane) -> None:
    @api.get("/whoami")
    async def whoami(request: Request, keyid: str = "") -> View:
        """Who the caller is; with *keyid*, who signs with that key."""
        login = login_of(request)
        async with control.store.transaction(write=False) as tx:
            authority = await control.ledger.authority(tx)
            now = await tx.now()
        identity = identity_of(authority, keyid) if keyid else login.identity
        return {
            **_identity(authority, identity),
            "login": login.kind,
            "attested": control.keys.server.keyid in authority.keys,
            "server_key": control.keys.server.public_key.hex(),
            "now": now,
        }

    @api.get("/identities")
    async def identities() -> View:
        async with control.store.transaction(write=False) as tx:
            authority = await control.ledger.authority(tx)
        known = {*authority.roles, *authority.addresses, *(key.identity for key in authority.keys.values())}
        return {
            "identities": [_identity(authority, identity) for identity in sorted(known)],
            "teams": dict(sorted(authority.teams.items())),
            "log_keys": [{"from": index + 1, "public_key": raw.hex()} for index, raw in authority.log_keys],
        }


def _identity(authority: Authority, identity: str) -> View:
    keys = sorted((keyid, key) for keyid, key in authority.keys.items() if key.identity == identity)
    return {
        "identity": identity,
        "keys": [
            {"keyid": keyid, "purpose": key.purpose, "types": list(key.types) if key.types else None}
            for keyid, key in keys
        ],
        "roles": [
            {"role": role, "scope": scope} for role, scope in sorted(authority.roles.get(identity, ()))
        ],
        "addresses": list(authority.addresses.get(identity, ())),
    }


def _tokens(api: APIRouter, control: ControlPlane) -> None:
    @api.post("/tokens")
    async def mint(given: ForWhom, request: Request) -> View:
        """A new API token for somebody. It is shown once, and kept only as a hash."""
        await demand_administrator(control, login_of(request))
        if not IDENTITY.fullmatch(given.identity):
            raise Invalid(f"{given.identity[:80]!r} is not an identity")
        token = f"pst_{secrets.token_urlsafe(32)}"
        async with control.store.transaction() as tx:
            hashed = hashlib.sha256(token.encode()).hexdigest()
            await tokens.add(tx, hashed, given.identity)
        return {"identity": given.identity, "token": token}

    @api.delete("/tokens/{identity}")
    async def drop(identity: str, request: Request) -> View:
        """Forget every token of somebody's."""
        await demand_administrator(control, login_of(request))
        async with control.store.transaction() as tx:
            return {"identity": identity, "dropped": await tokens.drop(tx, identity)}


async def demand_administrator(control: ControlPlane, login: Login) -> None:
    async with control.store.transaction(write=False) as tx:
        authority = await control.ledger.authority(tx)
    if not authority.covers(login.identity, ADMINISTRATOR, ORGANISATION):
        holders = ", ".join(authority.holders(ADMINISTRATOR))
        raise Refused(
            f"{login.identity} does not hold the role {ADMINISTRATOR}", next_move=f"ask one: {holders}"
        )
