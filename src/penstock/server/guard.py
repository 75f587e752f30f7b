"""Who may in. Closed by default: every request needs a token, or must come over the user's own socket.

Wraps the application once for each listener: the one on the unix socket (mode 0600) trusts whoever could
open it, the one on loopback asks for a token, and for a Host that no DNS trick can forge.

Cookies know no ports: what a browser keeps for 127.0.0.1 it sends to every service there, workloads under
test among them. So people sign in at ``localhost``, a site of its own, and services are linked at 127.0.0.1.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import Any
from urllib.parse import quote

from fastapi import Request

from penstock.engine import sessions, tokens
from penstock.engine.door import Login
from penstock.errors import Refused, Unavailable
from penstock.ports import Store
from penstock.server.rendering import problem
from penstock.server.slots import Slots

COOKIE = "penstock"
OPEN = ("/healthz", "/login", "/static/")
PAGES_HOST = "localhost"
HOSTS = ("127.0.0.1", PAGES_HOST, "[::1]")
MAX_BODY = 1024 * 1024
#: Reports are larger than anything else that is sent here. To sign in, nobody has to be known yet.
OTHERWISE = {"/v1/evidence": 24 * 1024 * 1024, "/login": 4096}
#: A page that is open holds one or two, of the connections that the listener has for everybody.
STREAMS_OF_ONE = 64
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}

Scope = dict[str, Any]
Refusal = tuple[int, str, str]


def login_of(request: Request) -> Login:
    """Whom the guard let in. A request that passed no guard is nobody's."""
    login = request.scope.get("penstock.login")
    if not isinstance(login, Login):
        raise Refused("nobody is logged in", next_move="send Authorization: Bearer <token>")
    return login


class Guard:
    """ASGI middleware. *trusted* listeners need no token."""

    def __init__(self, app: Any, store: Store, *, trusted: bool) -> None:
        self._app = app
        self._store = store
        self._trusted = trusted
        self._streams = Slots(STREAMS_OF_ONE)

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}

        async def guarded(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = _guarded(message.get("headers", []))
            await send(message)

        with contextlib.ExitStack() as held:
            refusal = await self._refusal(scope, headers) or self._one_more_stream(scope, held)
            if refusal is None:
                await self._app(scope, receive, guarded)
            else:
                await _answer(send, refusal, headers)

    def _one_more_stream(self, scope: Scope, held: contextlib.ExitStack) -> Refusal | None:
        """Nobody's event streams, which last, take the connections of all the others."""
        login = scope.get("penstock.login")
        if login is None or not scope["path"].endswith("/events"):
            return None
        if held.enter_context(self._streams.one(login.identity)):
            return None
        return 429, f"{login.identity} has {STREAMS_OF_ONE} event streams open already", ""

    async def _refusal(self, scope: Scope, headers: dict[str, str]) -> Refusal | None:
        """(status, words, where to go) unless the request may pass."""
        length = headers.get("content-length", "0")
        most = OTHERWISE.get(scope["path"], MAX_BODY)
        if not _at_most(most, length) or "transfer-encoding" in headers:
            return 413, f"a request body has a Content-Length of at most {most} bytes", ""
        if self._trusted:
            scope["penstock.login"] = Login("operator", "socket")
            return None
        host = headers.get("host", "")
        if _host(host) not in HOSTS:
            return 421, "this server answers to 127.0.0.1 and localhost only", ""
        if scope["method"] not in ("GET", "HEAD") and not _same_origin(headers):
            return 403, "a page of another origin may not do this", ""
        elsewhere = "" if _host(host) == PAGES_HOST else f"http://{PAGES_HOST}{_port(host)}"
        if scope["path"] == "/login" and elsewhere:
            return 303, f"people sign in at {PAGES_HOST}", f"{elsewhere}/login"
        if scope["path"].startswith(OPEN):
            return None
        identity = await self._identity(headers)
        if identity is None:
            words = "a token is needed; `penstock up` printed one at its first start"
            if headers.get("authorization"):
                words = "nobody here has this token: mistyped, taken back, or of another server"
            # Whoever is signed in there already sees the page at once.
            there = elsewhere + _path(scope) if elsewhere else "/login"
            return (303, words, there) if _looks(headers) else (401, words, "")
        scope["penstock.login"] = Login(identity, "token")
        return None

    async def _identity(self, headers: dict[str, str]) -> str | None:
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return await identity_of(self._store, token)
        at_pages = _host(headers.get("host", "")) == PAGES_HOST
        return await sessions.identity_of(self._store, _cookie(headers.get("cookie", "")) if at_pages else "")


async def identity_of(store: Store, token: str) -> str | None:
    """Whose token it is. Looked up by its hash, so the comparison tells nothing about the token."""
    return await tokens.identity_of(store, hashlib.sha256(token.encode()).hexdigest()) if token else None


def _host(header: str) -> str:
    return header.removesuffix(_port(header))


def _port(header: str) -> str:
    """``:7070``, or "" if the header names none."""
    _, colon, port = header.rpartition(":")
    return f":{port}" if colon and port.isdecimal() else ""


def _cookie(header: str) -> str:
    """Our cookie's value. Others of the same host may hold anything at all."""
    pairs = (part.strip().partition("=") for part in header.split(";"))
    return next((value for name, _, value in pairs if name == COOKIE), "")


def _same_origin(headers: dict[str, str]) -> bool:
    origin = headers.get("origin")
    # Compared, not parsed: an Origin is a scheme and a host, and what is not may be anything.
    return origin is None or origin.partition("://")[2] == headers.get("host")


def _at_most(limit: int, digits: str) -> bool:
    """Whether it is a whole number up to *limit*. One of thousands of digits is not even looked at."""
    return digits.isdecimal() and len(digits) <= len(str(limit)) and int(digits) <= limit


def _guarded(given: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """A response's headers with ours. Only what says that it never changes may be kept by a browser."""
    immutable = any(name == b"cache-control" and b"immutable" in value for name, value in given)
    ours = {name: value for name, value in HEADERS.items() if not (immutable and name == "cache-control")}
    return [*given, *_encoded(ours)]


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def _path(scope: Scope) -> str:
    """Path and query as they were asked for."""
    query = scope.get("query_string", b"").decode("latin-1")
    return quote(scope["path"]) + (f"?{query}" if query else "")


def _looks(headers: dict[str, str]) -> bool:
    """Whether the answer is for somebody who looks at pages."""
    return "text/html" in headers.get("accept", "")


async def _answer(send: Any, refusal: Refusal, asked: dict[str, str]) -> None:
    status, words, location = refusal
    kind = "text/html; charset=utf-8" if _looks(asked) else "application/problem+json"
    headers = {**HEADERS, "content-type": kind}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    if location:
        headers["location"] = location
    move = "send Authorization: Bearer <token>; an administrator makes one: penstock identity token NAME"
    pages = f"open http://{PAGES_HOST}{_port(asked.get('host', ''))}/"
    move = {401: move, 403: pages, 421: pages, 429: "close pages, or end what follows logs"}.get(status, "")
    error = Unavailable(words, next_move=move) if status == 429 else Refused(words, next_move=move)
    body = bytes(problem(error, status).body) if _looks(asked) else json.dumps(error.to_wire()).encode()
    await send({"type": "http.response.start", "status": status, "headers": _encoded(headers)})
    await send({"type": "http.response.body", "body": body})
