"""The API for policies: those in force, checking a text, and what a change would have done.

Called by `api`. Publishing is saying: see `people`.
"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from penstock.bootstrap.control import ControlPlane
from penstock.core.authority import Authority, InForce
from penstock.core.codec import encode
from penstock.core.policy import PolicyDocument
from penstock.errors import Invalid, Unavailable
from penstock.ledger.again import compiled, document_of
from penstock.policyfile import parse_policy
from penstock.projections.replay import replay
from penstock.server.guard import login_of
from penstock.server.parameters import Text
from penstock.server.slots import Slots
from penstock.server.views import View


class Source(BaseModel):
    source: Text


class Replay(BaseModel):
    """A policy's text, and over how many of the newest deliveries."""

    source: Text
    limit: int = Field(default=200, ge=1, le=5000)


class Repository(BaseModel):
    location: Text
    revision: Text = ""


def routes(api: APIRouter, control: ControlPlane) -> None:
    replaying = Slots(1)

    @api.get("/policies")
    async def policies() -> View:
        return {"policies": await every(control)}

    @api.get("/policies/{name}")
    async def policy(name: str) -> View:
        async with control.store.transaction(write=False) as tx:
            authority = await control.ledger.authority(tx)
        if name not in authority.policies:
            raise Invalid(f"no policy {name!r}; in force: {', '.join(sorted(authority.policies))}")
        return one(authority.policies[name], authority)

    @api.post("/policies/lint")
    async def lint(given: Source) -> View:
        document = await _parsed(given)
        await asyncio.to_thread(compiled, document, control.languages)
        return {"policy": document.policy, "rules": [rule.id for rule in document.rules]}

    @api.post("/policies/sync")
    async def sync(given: Repository, request: Request) -> View:
        """Publish what a repository's ``policies/`` change, by the commits' own signatures."""
        found = await control.policy_repository.sync(
            given.location, given.revision, login_of(request).identity
        )
        return {"policies": [{"index": None, **encode(one)} for one in found]}

    @api.post("/policies/replay")
    async def replayed(given: Replay) -> View:
        """What a policy's text would have decided in past deliveries, beside what was decided."""
        document = await _parsed(given)
        rules = await asyncio.to_thread(compiled, document, control.languages)
        with replaying.one() as granted:
            if not granted:
                raise Unavailable("a policy is being replayed already", next_move="wait until that is done")
            async with control.store.transaction(write=False) as tx:
                found = await replay(control.ledger, tx, document, rules, given.limit)
        view: View = encode(found)
        return view


async def every(control: ControlPlane) -> list[View]:
    """The policies in force, by name."""
    async with control.store.transaction(write=False) as tx:
        authority = await control.ledger.authority(tx)
    held = sorted(authority.policies.values(), key=lambda item: item.name)
    return [one(item, authority) for item in held]


def one(held: InForce, authority: Authority) -> View:
    """A policy in force: who owns it, what it guards, and its exact text."""
    document = document_of(held)
    return {
        "name": held.name,
        "owner": held.owner,
        "holders": list(authority.holders(held.owner, held.scope)),
        "guards": list(document.guards),
        "environments": list(document.environments),
        "scope": document.scope,
        "language": document.language,
        "digest": held.digest,
        "index": held.index,
        "source": held.source,
        "rules": [{"id": rule.id, "when": rule.when} for rule in document.rules],
    }


async def _parsed(given: Source | Replay) -> PolicyDocument:
    # Beside the loop: a long text takes seconds, and leases are renewed meanwhile.
    return await asyncio.to_thread(parse_policy, given.source.encode(), "policy.yaml")
