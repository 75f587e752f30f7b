"""The HTTP API, version 1. Thin: parse, call, answer; what it answers is made in `views`.

Called by the CLI, scripts and the pages' script. Errors are problem documents with our five words.
"""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import BaseModel, Field

from penstock.bootstrap.control import ControlPlane
from penstock.core.changeset import MOST_MEMBERS
from penstock.core.codec import decode
from penstock.core.release import PRODUCTION
from penstock.engine.ship import Permit
from penstock.errors import Conflict, Unavailable
from penstock.ledger import bundle, fsck
from penstock.server import (
    canaries,
    experiments,
    flaky,
    intake,
    logs,
    people,
    policies,
    services,
    slos,
    views,
)
from penstock.server.guard import login_of
from penstock.server.parameters import Index, Limit, Text
from penstock.server.slots import Slots
from penstock.server.views import View


class Ship(BaseModel):
    """*beside*: deliveries whose dark releases this one is to be tested with."""

    location: Text
    revision: Text = ""
    environment: Text = PRODUCTION
    beside: Annotated[list[Text], Field(max_length=MOST_MEMBERS)] = []


class Proposed(BaseModel):
    location: Text
    revision: Text = ""


class Set(BaseModel):
    changes: Annotated[list[Proposed], Field(min_length=1, max_length=MOST_MEMBERS)]
    environment: Text = PRODUCTION


class Again(BaseModel):
    stage: Text = ""
    whole: bool = False


class Kept(BaseModel):
    kept: Text | None = None


def routes(control: ControlPlane) -> APIRouter:
    """Every call of version 1."""
    api = APIRouter(prefix="/v1")
    for group in (_deliveries, _server, _ledger):
        group(api, control)
    for module in (services, people, policies, slos, intake, logs, flaky, canaries, experiments):
        module.routes(api, control)
    return api


def _deliveries(api: APIRouter, control: ControlPlane) -> None:
    operators = control.operators

    async def shipper(request: Request) -> Permit:
        """Whether the caller may ship, asked before anything is fetched; and then for what was found."""
        identity = login_of(request).identity
        await operators.demand_any(identity, "ship")
        return functools.partial(operators.demand, identity, "ship")

    @api.post("/ship")
    async def ship(given: Ship, request: Request) -> View:
        """Start deliveries of what a commit holds."""
        asked = (given.location, given.revision, given.environment, await shipper(request))
        return {"deliveries": await control.shipping.ship(*asked, given.beside)}

    @api.post("/changesets")
    async def ship_together(given: Set, request: Request) -> View:
        """Start deliveries of what several commits hold, as one change set."""
        permit = await shipper(request)
        changes = [(change.location, change.revision) for change in given.changes]
        return {"deliveries": await control.shipping.ship_together(changes, given.environment, permit)}

    @api.get("/deliveries")
    async def deliveries(service: str = "", before: str = "", limit: Limit = 50) -> View:
        """The newest first: of one service, and older than the delivery *before*, where these are given."""
        return {"deliveries": await views.deliveries(control, service, limit, before)}

    @api.get("/deliveries/{delivery}")
    async def delivery(delivery: str) -> View:
        return await views.delivery(control, delivery)

    @api.get("/deliveries/{delivery}/bundle")
    async def exported(delivery: str) -> Response:
        async with control.store.transaction(write=False) as tx:
            data = await bundle.export(control.ledger, tx, delivery)
        return Response(data, media_type="application/json")

    _requests(api, control)


def _requests(api: APIRouter, control: ControlPlane) -> None:
    operators = control.operators

    @api.post("/deliveries/{delivery}/abort")
    async def abort(delivery: str, request: Request) -> View:
        found = await operators.delivery(login_of(request).identity, "abort", delivery)
        await control.journal.request(found, "abort")
        return {"delivery": found}

    @api.post("/deliveries/{delivery}/retry")
    async def retry(delivery: str, given: Again, request: Request) -> View:
        """A new delivery of the same change: from *stage* on ("": the one that failed), or all of it."""
        found = await operators.with_its_set(login_of(request).identity, "retry", delivery)
        stage = None if given.whole else given.stage
        return {"delivery": await control.shipping.queue.again(found, stage)}

    @api.post("/deliveries/{delivery}/promote")
    async def promote(delivery: str, request: Request) -> View:
        found = await operators.delivery(login_of(request).identity, "promote", delivery)
        await control.journal.request(found, "promote")
        return {"delivery": found}


def _server(api: APIRouter, control: ControlPlane) -> None:
    @api.get("/health")
    async def health() -> View:
        return {"ok": True, "isolation": control.isolation.value}

    @api.get("/status")
    async def status() -> View:
        return await views.status(control)

    @api.get("/events")
    async def events(request: Request) -> StreamingResponse:
        """A server-sent event whenever something was committed."""
        return StreamingResponse(_changes(control, request), media_type="text/event-stream")


def _ledger(api: APIRouter, control: ControlPlane) -> None:
    verifying = Slots(1)

    @api.get("/evidence")
    async def evidence(delivery: str = "", digest: str = "", type: str = "", limit: Limit = 50) -> View:
        async with control.store.transaction(write=False) as tx:
            # The narrowest that is given.
            given = {"delivery": delivery, "about": digest, "type": type}
            tag = next((f"{kind}:{name}" for kind, name in given.items() if name), "")
            if tag:
                found = await control.ledger.tagged(tx, tag, last=limit)
            else:
                found = await control.ledger.entries(tx, max(0, await control.ledger.size(tx) - limit), limit)
        return {"entries": [views.brief(entry) for entry in found]}

    @api.get("/evidence/{index}")
    async def entry(index: Index) -> View:
        async with control.store.transaction(write=False) as tx:
            return views.whole(await control.ledger.entry(tx, index))

    @api.get("/ledger/checkpoint")
    async def checkpoint() -> PlainTextResponse:
        async with control.store.transaction(write=False) as tx:
            return PlainTextResponse(await control.ledger.checkpoint(tx))

    @api.post("/ledger/verify")
    async def verify(given: Kept | None = None) -> View:
        """Check every byte again; with *kept*, a checkpoint that somebody outside kept, against that too."""
        trust = decode(fsck.Trust, _json(control.home.trust), "trust.json")
        known = tuple(witness.key for witness in control.home.settings.witnesses)
        trust = replace(trust, witnesses=(*trust.witnesses, *known))
        kept = given.kept if given else None
        with verifying.one() as granted:
            if not granted:
                raise Unavailable("the ledger is being verified already", next_move="wait until that is done")
            report = await fsck.verify(control.store, trust, control.languages, kept=kept)
        return {
            "verified": report.verified,
            "entries": report.entries,
            "sign_offs": report.sign_offs,
            "checkpoints": report.checkpoints,
            "root": report.root,
            "problems": list(report.problems),
        }


def _json(path: Path) -> object:
    if not path.exists():
        raise Conflict("trust.json is missing", where=str(path))
    return json.loads(path.read_text())


async def _changes(control: ControlPlane, request: Request) -> AsyncIterator[str]:
    yield "retry: 1000\n\n"
    while not await request.is_disconnected():
        await control.store.wake(15.0)
        yield "event: change\ndata: {}\n\n"
