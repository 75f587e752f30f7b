"""The API for evidence from outside: reports that sources bring, and statements that they signed.

Called by `api`. The formats are read by `checks.intake` and `core.imported`; who may bring what, the
`engine.door` and the ledger's authority say.
"""

from __future__ import annotations

import base64

from fastapi import APIRouter, Request

from penstock.bootstrap.control import ControlPlane
from penstock.checks.intake import KINDS, guess, read
from penstock.core.digest import hex_of
from penstock.core.evidence import Entry, Subject
from penstock.core.imported import foreign
from penstock.core.predicates import Imported
from penstock.engine.door import Login
from penstock.errors import Conflict, Invalid
from penstock.ledger.foreign import source_of
from penstock.server.guard import login_of
from penstock.server.parameters import Text
from penstock.server.views import View, brief

#: A statement with its signatures, signed elsewhere.
DSSE = "dsse"


def routes(api: APIRouter, control: ControlPlane) -> None:
    @api.post("/evidence")
    async def add(
        request: Request, about: Text = "", format: Text = "", suite: Text = "external", name: Text = ""
    ) -> View:
        """Record a report about a delivery's artifact (its id) or a digest (``sha256:…``): the body is it.

        *format* is guessed from the report if it is not given; *suite* names the tests or the tool's run.
        """
        data = await request.body()
        kind = format or (DSSE if _looks_signed(data) else guess(data, name))
        if kind == DSSE:
            entries = [await _signed(control, data)]
        else:
            entries = await _report(control, kind, data, about, suite, login_of(request))
        return {"entries": [brief(entry) for entry in entries]}


async def _report(
    control: ControlPlane, kind: str, data: bytes, about: str, suite: str, login: Login
) -> list[Entry]:
    if kind not in KINDS:
        raise Invalid(f"no format {kind!r}", where="format", next_move=f"one of: {', '.join((*KINDS, DSSE))}")
    reports = read(kind, data, source=login.identity, suite=suite)
    return list(await control.door.bring(await _subject(control, about), reports, login))


async def _signed(control: ControlPlane, data: bytes) -> Entry:
    inner = foreign(data)
    async with control.store.transaction(write=False) as tx:
        source = source_of(await control.ledger.authority(tx), inner)
    text = base64.b64encode(data).decode()
    said = Imported(source.identity, inner.predicate_type, text)
    return await control.door.bring_statement(said, inner.subjects)


async def _subject(control: ControlPlane, about: str) -> Subject:
    """What a report is about: a digest as given, or the artifact that a delivery made."""
    if about.startswith("sha256:"):
        hex_of(about)
        return Subject("artifact", about)
    if not about:
        move = "--for DELIVERY, or --for sha256:…"
        raise Invalid("it is not said what this is evidence about", where="about", next_move=move)
    async with control.store.transaction(write=False) as tx:
        found = await control.journal.find(tx, about)
    artifact = found.facts.artifact
    if artifact is None:
        raise Conflict(
            f"{found.id} has no artifact yet", next_move="bring it again once the delivery has built one"
        )
    return Subject(artifact.name, artifact.digest)


def _looks_signed(data: bytes) -> bool:
    return b'"payloadType"' in data[:4096] or b'"payloadType"' in data[-4096:]
