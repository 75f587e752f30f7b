"""The ledger for outsiders: checkpoint, tiles, entries and proofs, as c2sp.org/tlog-tiles asks; witnesses.

Called by `server.app`. ``/ledger`` is the log's URL prefix. Whoever reads here trusts nothing that it says:
everything is proven against a checkpoint's signatures. Tiles and entries never change, so they may be
kept, by their reader alone: all of it needs a token.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

from penstock.bootstrap.control import ControlPlane
from penstock.bootstrap.home import WitnessSettings
from penstock.bootstrap.plugins import find
from penstock.core.notes import VerifierKey
from penstock.core.tiles import Tile
from penstock.errors import Conflict, Invalid
from penstock.ledger import tiles
from penstock.ledger.witnesses import signed_size
from penstock.ports import Transaction
from penstock.server.guard import login_of
from penstock.server.parameters import MAX_INT, Index, Text
from penstock.server.people import demand_administrator
from penstock.server.views import View

IMMUTABLE = "private, max-age=31536000, immutable"
OCTETS = "application/octet-stream"
ENVELOPE = "application/vnd.dsse.envelope.v1+json"

Number = Annotated[int, Query(ge=0, le=MAX_INT)]


class Witness(BaseModel):
    url: Text
    key: Text


class Named(BaseModel):
    name: Text


def routes(control: ControlPlane) -> APIRouter:
    router = APIRouter()
    for group in (_log, _proofs, _witnesses):
        group(router, control)
    return router


def _log(router: APIRouter, control: ControlPlane) -> None:
    @router.get("/ledger/checkpoint", response_class=PlainTextResponse)
    async def newest(cosigned: Annotated[int, Query(ge=0, le=1000)] = 0) -> PlainTextResponse:
        """The newest signed tree head; with *cosigned*, the newest that so many witnesses cosigned."""
        async with control.store.transaction(write=False) as tx:
            return PlainTextResponse((await control.ledger.head(tx, cosigned=cosigned))[1])

    @router.get("/ledger/tile/{path:path}", response_class=Response)
    async def tile(path: str, request: Request) -> Response:
        """A tile of hashes, or a bundle of entries: see c2sp.org/tlog-tiles for the paths."""
        wanted = Tile.parse(f"tile/{path}")
        async with control.store.transaction(write=False) as tx:
            data = await tiles.read(control.ledger, tx, wanted)
        if data is None:
            raise HTTPException(404, "the ledger has not got that far: no such tile yet")
        headers = {"cache-control": IMMUTABLE}
        if wanted.level is None:
            headers["vary"] = "accept-encoding"
            if "gzip" in request.headers.get("accept-encoding", ""):
                headers["content-encoding"] = "gzip"
                data = await asyncio.to_thread(gzip.compress, data, 6, mtime=0)
        return Response(data, media_type=OCTETS, headers=headers)

    @router.get("/ledger/entry/{index}", response_class=Response)
    async def entry(index: Index) -> Response:
        """The exact bytes of an entry: the envelope that the leaf hash covers."""
        async with control.store.transaction(write=False) as tx:
            if index >= await control.ledger.size(tx):
                raise HTTPException(404, "the ledger has not got that far: no such entry yet")
            found = await control.ledger.entry(tx, index)
        return Response(found.envelope.raw, media_type=ENVELOPE, headers={"cache-control": IMMUTABLE})


def _proofs(router: APIRouter, control: ControlPlane) -> None:
    @router.get("/ledger/proof/inclusion")
    async def inclusion(index: Number, size: Number) -> View:
        """The audit path of an entry in the tree of *size* entries, and that tree's root."""
        async with control.store.transaction(write=False) as tx:
            await _within(control, tx, size)
            proof = await control.ledger.inclusion(tx, index, size)
            root = await control.ledger.root(tx, size)
        return {"index": index, "size": size, "root": _text(root), "proof": [_text(step) for step in proof]}

    @router.get("/ledger/proof/consistency")
    async def consistency(old: Number, new: Number) -> View:
        """The proof that the tree of *new* entries begins with that of *old*, and both roots."""
        async with control.store.transaction(write=False) as tx:
            await _within(control, tx, new)
            proof = await control.ledger.consistency(tx, old, new)
            roots = [_text(await control.ledger.root(tx, size)) for size in (old, new)]
        return {"old": old, "new": new, "roots": roots, "proof": [_text(step) for step in proof]}


def _witnesses(router: APIRouter, control: ControlPlane) -> None:
    @router.get("/v1/ledger/witnesses")
    async def witnesses() -> View:
        """Who is asked to cosign, how far each has, and what is wrong with it now."""
        found = []
        async with control.store.transaction(write=False) as tx:
            for given in control.home.settings.witnesses:
                signed = await signed_size(tx, given.name)
                problem = control.witnesses.problems.get(given.name, "")
                found.append(
                    {
                        "name": given.name,
                        "url": given.url,
                        "key": given.key,
                        "signed": signed,
                        "problem": problem,
                    }
                )
        return {"witnesses": found}

    @router.post("/v1/ledger/witnesses")
    async def add(given: Witness, request: Request) -> View:
        """Ask one more witness to cosign, from now on."""
        await demand_administrator(control, login_of(request))
        key = VerifierKey.cosigner(given.key)
        find("witness", "http")(given.url)
        settings = control.home.settings
        for held in settings.witnesses:
            if key.public_key == VerifierKey.cosigner(held.key).public_key or key.name == held.name:
                move = f"penstock ledger witness remove {held.name}"
                raise Conflict(f"the witness {held.name} has this name or key already", next_move=move)
        added = WitnessSettings(key.name, given.url, str(key))
        control.home.keep(replace(settings, witnesses=(*settings.witnesses, added)))
        return {"name": key.name}

    @router.post("/v1/ledger/witnesses/remove")
    async def remove(given: Named, request: Request) -> View:
        """Ask a witness no more; its cosignatures stay."""
        await demand_administrator(control, login_of(request))
        settings = control.home.settings
        left = tuple(held for held in settings.witnesses if held.name != given.name)
        if left == settings.witnesses:
            known = ", ".join(held.name for held in left) or "none"
            raise Invalid(f"no witness is called {given.name!r}; known: {known}")
        control.home.keep(replace(settings, witnesses=left))
        return {"name": given.name}


async def _within(control: ControlPlane, tx: Transaction, size: int) -> None:
    have = await control.ledger.size(tx)
    if size > have:
        raise Invalid(f"the ledger has {have} entries, not {size}", next_move="GET /ledger/checkpoint")


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
