"""A small HTTP/1.1 client that gives exact control of time, connections and bytes.

Called by the checks beside it, and by the steady load of the command line. Connections are kept. A kept one
that was closed in good order just as a request went out is tried again on a new one, as browsers do; one that
was reset is not. Must not follow redirects, send credentials of its own, or hide any other failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

REQUEST_SECONDS = 10.0
#: An answer may be so long; nothing of it is kept unless that was asked for.
MOST_BYTES = 64 * 1024 * 1024
PIECE = 64 * 1024
#: What a path may hold as it is; whatever else would end the line, or the header, is escaped.
PATH_SAFE = "/?&=%:@!$'()*+,;~.-_[]"
#: Nothing is done twice where these are sent twice.
SAFE = ("GET", "HEAD")
#: How a request can fail to be answered.
UNANSWERED = (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError, ValueError)


class Stale(ConnectionError):
    """A kept connection was closed between two requests: not one byte of an answer came."""


@dataclass(frozen=True)
class Ask:
    """One request. The *path* "" is that of the target's own URL."""

    method: str = "GET"
    path: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Answer:
    """Names of *headers* are in lower case. *size* counts the whole body, *body* is its beginning."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    size: int = 0

    @property
    def whole(self) -> bool:
        return len(self.body) == self.size


@dataclass(frozen=True)
class Bounds:
    """What one answer may cost: *seconds* until its last byte, and *most* bytes. *keep* are given back."""

    seconds: float = REQUEST_SECONDS
    most: int = MOST_BYTES
    keep: int = 0


def nothing() -> None:
    """Nobody wants to know."""


class Target:
    """One server and the idle connections to it. Every request carries *headers*."""

    def __init__(
        self, url: str, bounds: Bounds | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        self._bounds = bounds or Bounds()
        self._ssl = ssl.create_default_context() if secure else None
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or (443 if secure else 80)
        self._own = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._headers = {"Host": parts.netloc.rpartition("@")[2], **(headers or {})}
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, ask: Ask, retried: Callable[[], None] = nothing) -> Answer:
        """The answer, in time and of bounded size, or one of `UNANSWERED`."""
        async with asyncio.timeout(self._bounds.seconds):
            return await self._answer(ask, retried)

    def close(self) -> None:
        """Let go of the kept connections."""
        while self._idle:
            self._idle.pop()[1].close()

    async def _answer(self, ask: Ask, retried: Callable[[], None]) -> Answer:
        while self._idle:
            reader, writer = self._idle.pop()
            if reader.at_eof() or writer.is_closing():  # closed while it was idle: nothing was asked of it
                writer.close()
                continue
            if ask.method not in SAFE:  # its other end may have seen it: only a new one cannot be stale
                self._idle.append((reader, writer))
                break
            with contextlib.suppress(Stale):
                return await self._exchange(ask, reader, writer)
            retried()
            break
        opened = await asyncio.open_connection(self._host, self._port, ssl=self._ssl)
        return await self._exchange(ask, *opened, fresh=True)

    async def _exchange(
        self, ask: Ask, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, fresh: bool = False
    ) -> Answer:
        kept = False
        try:
            writer.write(self._request(ask))
            status, headers = parsed(await _head(reader, fresh))
            while 100 <= status < 200:  # hints before the answer
                status, headers = parsed(await _head(reader, fresh=True))
            sink = _Sink(self._bounds)
            bodiless = ask.method == "HEAD" or status in (204, 304)
            delimited = bodiless or await _body(reader, headers, sink)
            kept = delimited and ask.method in SAFE and headers.get("connection", "").lower() != "close"
            return Answer(status, headers, bytes(sink.kept), sink.size)
        finally:
            if kept:
                self._idle.append((reader, writer))
            else:
                writer.close()

    def _request(self, ask: Ask) -> bytes:
        headers = {**self._headers, **ask.headers}
        if ask.body or ask.method not in SAFE:
            headers["Content-Length"] = str(len(ask.body))
        for name, value in headers.items():
            if not f"{name}{value}".isprintable():
                raise ValueError(f"the header {name!r} cannot be sent")
        lines = [f"{ask.method} {quote(ask.path or self._own, safe=PATH_SAFE)} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode() + ask.body


class _Sink:
    """Counts a body, keeps its beginning, and ends one that does not end."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self.kept = bytearray()
        self.size = 0

    def take(self, piece: bytes) -> None:
        self.size += len(piece)
        if self.size > self._bounds.most:
            raise ValueError(f"an answer of more than {self._bounds.most} bytes")
        self.kept += piece[: max(0, self._bounds.keep - len(self.kept))]


async def _head(reader: asyncio.StreamReader, fresh: bool) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if fresh or error.partial:
            raise
        raise Stale from error


def parsed(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers, names in lower case. Raises `ValueError` if it is not HTTP/1.1."""
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if version != "HTTP/1.1":
        raise ValueError(f"not an HTTP/1.1 answer: {first[:40]!r}")
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return int(rest[:3]), {name.strip().lower(): value.strip() for name, value in pairs}


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str], sink: _Sink) -> bool:
    """Read the body away. Whether it had an end of its own, so that the connection can be kept."""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            await _exactly(reader, size, sink)
            await reader.readexactly(2)
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass  # trailers
    elif "content-length" in headers:
        await _exactly(reader, int(headers["content-length"]), sink)
    else:
        while piece := await reader.read(PIECE):
            sink.take(piece)
        return False
    return True


async def _exactly(reader: asyncio.StreamReader, size: int, sink: _Sink) -> None:
    """Piece by piece: a length that is only claimed must not become memory."""
    if size < 0:
        raise ValueError(f"a length of {size}")
    left = size
    while left:
        piece = await reader.read(min(left, PIECE))
        if not piece:
            raise asyncio.IncompleteReadError(b"", left)
        sink.take(piece)
        left -= len(piece)
