"""The API for the output of a delivery's stages: by range, and live as server-sent events.

Called by `api`. Every answer is bounded, and a reader goes at its own pace: it reads files, and no step knows
that it is there.
"""

from __future__ import annotations

import asyncio
import codecs
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse

from penstock.bootstrap.control import ControlPlane
from penstock.core.pipeline import State
from penstock.engine.logs import Piece, read
from penstock.errors import Invalid
from penstock.server import views
from penstock.server.parameters import MAX_INT

#: What is answered if no limit is given, and what may be asked for.
LOG_BYTES = 256 * 1024
MOST_BYTES = 1024 * 1024
EVENT_BYTES = 64 * 1024
#: How often a file is looked at for more, and how many such looks pass until the journal is asked.
LOOK_SECONDS = 0.2
LOOKS = 5
#: A connection over which nothing goes is closed by whoever is in between.
SILENT_SECONDS = 15.0
UNDONE = (State.PENDING, State.EXECUTING)

Offset = Annotated[int | None, Query(ge=0, le=MAX_INT)]
Limit = Annotated[int, Query(ge=1, le=MOST_BYTES)]


@dataclass(frozen=True)
class Place:
    """One stage's output."""

    delivery: str
    stage: str
    log: Path


def routes(api: APIRouter, control: ControlPlane) -> None:
    @api.get("/deliveries/{delivery}/logs")
    async def logs(delivery: str, stage: str = "", offset: Offset = None) -> PlainTextResponse:
        """The end of every stage's output, or one stage's from a byte offset on."""
        found, states = await views.stages(control, delivery)
        names = [_known(stage, states)] if stage else list(states)
        parts = [await _text(control.engine.log_of(found, name), offset) for name in names]
        return PlainTextResponse("".join(parts))

    @api.get("/deliveries/{delivery}/logs/{stage}")
    async def log(delivery: str, stage: str, offset: Offset = None, limit: Limit = LOG_BYTES) -> Response:
        """At most *limit* bytes of a stage's output from *offset*; without one, the last of them.

        The headers say for which bytes the answer stands, and how many there are. What is not kept is said
        in a line, so it is ``penstock-log-next`` that leads on, not the length of the answer.
        """
        place = await _place(control, delivery, stage)
        piece = await asyncio.to_thread(read, place.log, offset, limit)
        numbers = {"begin": piece.begin, "next": piece.next, "total": piece.total}
        headers = {f"penstock-log-{name}": str(number) for name, number in numbers.items()}
        return Response(piece.data, media_type="text/plain; charset=utf-8", headers=headers)

    @api.get("/deliveries/{delivery}/logs/{stage}/events")
    async def events(
        request: Request,
        delivery: str,
        stage: str,
        offset: Annotated[int, Query(ge=0, le=MAX_INT)] = 0,
        behind: Annotated[int, Query(ge=0, le=MOST_BYTES)] = 0,
        last_event_id: Annotated[str, Header()] = "",
    ) -> StreamingResponse:
        """A stage's output as it comes. The id of an event is the offset of the next; ``end`` is the last.

        Whoever follows never needs more than *behind* bytes of it at once, if that is given: then what came
        too fast is passed over.
        """
        place = await _place(control, delivery, stage)
        start = _offset(last_event_id) if last_event_id else offset
        found = _events(control, place, (start, behind), request)
        return StreamingResponse(found, media_type="text/event-stream")


async def overview(control: ControlPlane, delivery: views.View) -> list[views.View]:
    """The stages of a delivery (as `views.delivery` gives it) that have written something, or may do so."""
    found = []
    for stage in delivery["stages"]:
        piece = await asyncio.to_thread(read, control.engine.log_of(delivery["id"], stage["name"]), 0, 1)
        if piece.total or stage["state"] == State.EXECUTING:
            found.append({"stage": stage["name"], "state": stage["state"], "bytes": piece.total})
    return found


async def _place(control: ControlPlane, delivery: str, stage: str) -> Place:
    found, states = await views.stages(control, delivery)
    return Place(found, stage, control.engine.log_of(found, _known(stage, states)))


def _known(stage: str, states: dict[str, State]) -> str:
    if stage not in states and stage != "rollback":
        known = ", ".join(states)
        raise Invalid(f"{stage!r} is not a stage of this delivery", next_move=f"one of: {known}")
    return stage


def _offset(last_event_id: str) -> int:
    if not (last_event_id.isascii() and last_event_id.isdecimal() and len(last_event_id) < 20):
        raise Invalid(
            "not an offset", where="Last-Event-ID", next_move="leave it out, or repeat an event's id"
        )
    return int(last_event_id)


async def _text(log: Path, offset: int | None) -> str:
    piece = await asyncio.to_thread(read, log, offset or None, LOG_BYTES)
    return f"--- {log.stem}\n" + piece.data.decode(errors="replace") if piece.total else ""


async def _events(
    control: ControlPlane, place: Place, where: tuple[int, int], request: Request
) -> AsyncIterator[str]:
    offset, behind = where
    silent = 0
    yield "retry: 1000\n\n"
    while not await request.is_disconnected():
        # Asked before reading: what was written until then is read, so nothing is missing before the end.
        _, states = await views.stages(control, place.delivery)
        over = states.get(place.stage, State.SKIP) not in UNDONE
        for _ in range(1 if over else LOOKS):
            begun = offset
            async for piece in _new(place.log, offset, behind, last=over):
                offset = piece.next
                yield _event(piece)
            silent = silent + 1 if offset == begun else 0
            if not over:
                await asyncio.sleep(LOOK_SECONDS)
        if over:
            data = json.dumps({"state": states.get(place.stage, State.SKIP).value})
            yield f"event: end\nid: {offset}\ndata: {data}\n\n"
            return
        if silent * LOOK_SECONDS >= SILENT_SECONDS:
            silent = 0
            yield ": nothing new\n\n"


async def _new(log: Path, offset: int, behind: int, *, last: bool) -> AsyncIterator[Piece]:
    """What there is from *offset* on, in pieces; with *behind*, at most so many bytes of it, the newest."""
    if behind:
        total = (await asyncio.to_thread(read, log, offset, 1)).total
        offset = max(offset, total - behind)
    end = offset + behind if behind else MAX_INT
    while offset < end and (piece := await _piece(log, offset, last=last)).next > offset:
        offset = piece.next
        yield piece


async def _piece(log: Path, offset: int, *, last: bool) -> Piece:
    """What comes at *offset*, up to the end of a line or of a character, unless it is the last of all."""
    piece = await asyncio.to_thread(read, log, offset, EVENT_BYTES)
    if last and piece.next == piece.total:
        return piece
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    decoder.decode(piece.data)
    line = len(piece.data) - 1 - piece.data.rfind(b"\n")
    undone = line if line < len(piece.data) else len(decoder.getstate()[0])
    if undone > piece.next - piece.begin or not undone:
        return piece
    return Piece(piece.begin, piece.next - undone, piece.total, piece.data[:-undone])


def _event(piece: Piece) -> str:
    # As JSON: in an event of its own a carriage return would end the line.
    data = {"offset": piece.begin, "next": piece.next, "text": piece.data.decode(errors="replace")}
    return f"id: {piece.next}\ndata: {json.dumps(data)}\n\n"
