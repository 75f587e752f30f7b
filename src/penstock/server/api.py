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

from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as InPath
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import BaseModel, Field

from penstock.bootstrap.control import ControlPlane
from penstock.core.changeset import MOST_MEMBERS
from penstock.core.codec import decode
from penstock.core.nearest import did_you_mean
from penstock.engine.ship import Permit
from penstock.errors import Conflict, Invalid
from penstock.ledger import bundle, fsck
from penstock.server import canaries, experiments, flaky, intake, logs, people, policies, slos, views
from penstock.server.guard import login_of
from penstock.server.views import Text, View

#: What a database takes for a number.
MAX_INT = 2**62

Limit = Annotated[int, Query(ge=1, le=1000)]
Index = Annotated[int, InPath(ge=0, le=MAX_INT)]


class Ship(BaseModel):
    """*beside*: deliveries whose dark releases this one is to be tested with."""

    location: Text
    revision: Text = ""
    environment: Text = views.PRODUCTION
    beside: Annotated[list[Text], Field(max_length=MOST_MEMBERS)] = []


class Proposed(BaseModel):
    location: Text
    revision: Text = ""


class Set(BaseModel):
    changes: Annotated[list[Proposed], Field(min_length=1, max_length=MOST_MEMBERS)]
    environment: Text = views.PRODUCTION


class Reason(BaseModel):
    reason: Text = ""


class RollBack(Reason):
    environment: Text = views.PRODUCTION
    together: bool = False


class Again(BaseModel):
    stage: Text = ""
    whole: bool = False


class Kept(BaseModel):
    kept: Text | None = None


def routes(control: ControlPlane) -> APIRouter:
    """Every call of version 1."""
    api = APIRouter(prefix="/v1")
    for group in (_deliveries, _services, _ledger):
        group(api, control)
    for module in (people, policies, slos, intake, logs, flaky, canaries, experiments):
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


def _services(api: APIRouter, control: ControlPlane) -> None:
    @api.get("/health")
    async def health() -> View:
        return {"ok": True, "isolation": control.isolation.value}

    @api.post("/services/{service}/rollback")
    async def rollback(service: str, given: RollBack, request: Request) -> View:
        """Take back what is live; if *together*, with all that came in its change set."""
        identity = login_of(request).identity
        permit = functools.partial(control.operators.demand, identity, "roll back")
        await permit([service])
        asked = (service, given.environment, identity, given.reason)
        if given.together:
            started = await control.shipping.roll_back_together(*asked, permit)
            return {"delivery": started[0], "deliveries": started}
        found = await control.shipping.roll_back(*asked)
        return {"delivery": found, "deliveries": [found]}

    @api.get("/services/{service}/why")
    async def why(service: str, environment: str = views.PRODUCTION) -> View:
        return await views.why(control, service, environment)

    @api.get("/services/{service}/logs")
    async def workload_logs(
        service: str, lines: int = 100, environment: str = views.PRODUCTION
    ) -> PlainTextResponse:
        there = await views.services(control)
        known = list(dict.fromkeys(name for name, _ in there))
        if service not in known:
            what = f"no service {service!r}; there are: {', '.join(known) or 'none yet'}"
            raise Invalid(what + did_you_mean(service, known), next_move="penstock status")
        if (service, environment) not in there:
            places = ", ".join(place for name, place in there if name == service)
            what = f"{service} was never in {environment}; it is in: {places}"
            raise Invalid(what, next_move="penstock logs SERVICE --environment NAME")
        state = await control.router.read(service, environment)
        found = [
            f"{backend.release}  {line}"
            for backend in state.backends
            for line in await control.platform.logs(backend.release, max(1, min(lines, 5000)))
        ]
        return PlainTextResponse("\n".join(found) + "\n" if found else "")

    @api.get("/status")
    async def status() -> View:
        return await views.status(control)

    @api.get("/events")
    async def events(request: Request) -> StreamingResponse:
        """A server-sent event whenever something was committed."""
        return StreamingResponse(_changes(control, request), media_type="text/event-stream")


def _ledger(api: APIRouter, control: ControlPlane) -> None:
    @api.get("/evidence")
    async def evidence(delivery: str = "", digest: str = "", type: str = "", limit: Limit = 50) -> View:
        async with control.store.transaction(write=False) as tx:
            tag = f"delivery:{delivery}" if delivery else f"about:{digest}" if digest else f"type:{type}"
            if delivery or digest or type:
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
