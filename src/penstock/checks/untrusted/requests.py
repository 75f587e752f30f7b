"""Which requests to make by a document: one for each operation that may be asked, and drawn cases.

Called by `__main__`. Pure. Operations that may have effects are left out unless somebody declared them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

from penstock.checks.untrusted.document import Document, Operation, Part, escaped
from penstock.checks.untrusted.exchange import PlanCall, Planned, Request
from penstock.checks.untrusted.schemas import Schemas
from penstock.checks.untrusted.values import Values
from penstock.core.codec import Json
from penstock.errors import Invalid

SAFE = ("get", "head")
JSON = "application/json"
#: A longer path or value is cut off by somebody on its way.
LONGEST = 2000


def plan(document: Document, call: PlanCall) -> Planned:
    """`Invalid` if nothing may be asked, or something was declared that is not there."""
    every = document.operations()
    unknown = set(call.declared) - {operation.name for operation in every}
    if unknown:
        raise Invalid(
            f"no operation {min(unknown)!r} in {document.name}", where="acceptance.openapi_operations"
        )
    asked = [op for op in every if op.method in SAFE or op.name in call.declared]
    if not asked:
        raise Invalid(
            "the document has no GET or HEAD operation, and no other may be asked",
            where=document.name,
            next_move="name some in acceptance.openapi_operations",
        )
    planner = _Planner(document, call.seed)
    requests = [planner.request(operation, drawn=False) for operation in asked]
    varied = [operation for operation in asked if operation.parameters or operation.body]
    drawn = (varied[number % len(varied)] for number in range(call.cases if varied else 0))
    requests += [planner.request(operation, drawn=True) for operation in drawn]
    return Planned(
        version=document.version,
        operations=tuple(operation.name for operation in asked),
        skipped=tuple(operation.name for operation in every if operation not in asked),
        requests=tuple(requests),
    )


@dataclass(frozen=True)
class _Given:
    """A parameter with a value, as it is sent."""

    place: str
    name: str
    value: Json
    exploded: bool


class _Planner:
    def __init__(self, document: Document, seed: int) -> None:
        self._document = document
        self._values = Values(document, seed)
        self._schemas = Schemas(document)

    def request(self, operation: Operation, *, drawn: bool) -> Request:
        given, fits = [], True
        for part in operation.parameters:
            needed = part.value.get("required") is True or part.value.get("in") == "path"
            if not needed and not (drawn and self._values.yes()):
                continue
            one = self._given(part, drawn=drawn)
            fits = fits and self._fits(part, one)
            given.append(one)
        body = self._body(operation.body, drawn=drawn) if operation.body is not None else None
        if body is not None and operation.body is not None:
            pointer = f"{operation.body.pointer}/content/{escaped(JSON)}/schema"
            fits = fits and not self._schemas.problem(pointer, body.value)
        return Request(
            operation=operation.name,
            method=operation.method.upper(),
            path=_path(operation.path, given),
            expected="documented" if fits or not drawn else "no-error",
            headers=_headers(given) | ({"content-type": JSON} if body is not None else {}),
            body=json.dumps(body.value) if body is not None else None,
        )

    def _given(self, part: Part, *, drawn: bool) -> _Given:
        parameter = part.value
        exploded = parameter.get("explode", parameter.get("style", "form") == "form")
        value = self._value(parameter, drawn=drawn)
        return _Given(str(parameter.get("in")), str(parameter.get("name")), value, exploded is True)

    def _value(self, holder: dict[str, Json], *, drawn: bool) -> Json:
        """What the parameter or body gives as its example, or one by its schema."""
        named = holder.get("examples")
        listed = named.values() if isinstance(named, dict) else ()
        told = [e["value"] for e in listed if isinstance(e, dict) and "value" in e]
        told = [holder["example"], *told] if "example" in holder else told
        if told and not (drawn and self._values.yes()):
            return told[0]
        schema = holder.get("schema")
        return self._values.drawn(schema) if drawn else self._values.plain(schema)

    def _fits(self, part: Part, given: _Given) -> bool:
        """Whether the service has to take it."""
        text = _text(given.value)
        if given.place == "path" and (not text.strip(".") or "/" in text or "\\" in text):
            return False  # servers and proxies take it for another path
        return "schema" not in part.value or not self._schemas.problem(f"{part.pointer}/schema", given.value)

    def _body(self, body: Part, *, drawn: bool) -> _Given | None:
        content = body.value.get("content")
        media = content.get(JSON) if isinstance(content, dict) else None
        return _Given("body", "", self._value(media, drawn=drawn), False) if isinstance(media, dict) else None


def _path(template: str, given: Iterable[_Given]) -> str:
    path, query = template, []
    for one in given:
        if one.place == "path":
            path = path.replace(f"{{{one.name}}}", quote(_text(one.value), safe=""))
        elif one.place == "query":
            query += [f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in _pairs(one)]
    return (path + ("?" + "&".join(query) if query else ""))[:LONGEST]


def _pairs(given: _Given) -> list[tuple[str, str]]:
    if given.exploded and isinstance(given.value, list):
        return [(given.name, _text(item)) for item in given.value]
    if given.exploded and isinstance(given.value, dict):
        return [(name, _text(value)) for name, value in given.value.items()]
    return [(given.name, _text(given.value))]


def _headers(given: Iterable[_Given]) -> dict[str, str]:
    """What a header cannot hold is escaped: the request has to arrive."""
    found = {one.name: _sendable(one) for one in given if one.place == "header" and _named(one.name)}
    cookies = [f"{one.name}={_sendable(one)}" for one in given if one.place == "cookie" and _named(one.name)]
    return found | ({"cookie": "; ".join(cookies)} if cookies else {})


def _sendable(given: _Given) -> str:
    return quote(_text(given.value), safe=" ,:/+=-_.@")[:LONGEST]


def _named(name: str) -> bool:
    """Not those that say whose request it is, or how long."""
    reserved = ("host", "content-length", "transfer-encoding", "connection", "authorization")
    return re.fullmatch(r"[A-Za-z0-9-]{1,100}", name) is not None and not (
        name.lower() in reserved or name.lower().startswith("penstock-")
    )


def _text(value: Json) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return json.dumps(value)
