"""The proxy of the fake cluster: real requests of users, over loopback, to the endpoints of Services.

Called by tests, which start it for the data plane of `use_gateway` or of `use_istio`:

    gateways = use_gateway(cluster)
    async with Proxy(gateways.plane) as proxy:
        listen_at(cluster, proxy.port)

`DataPlane` decides each request at the moment when it comes; the proxy sends it there and counts it
(`standard`). It speaks HTTP/1.1 with keep-alive to users, and takes a connection of its own for each request
to an endpoint: one that goes ends what it has begun, and gets nothing new. Bodies of requests are taken whole
(a mirror gets them too), those of answers are passed on as they come. Must not serve anybody but this
machine, and does no upgrades, trailers or TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from types import TracebackType

import h11

from penstock.testing.kubernetes.dataplane import DataPlane, Led
from penstock.testing.kubernetes.standard import Outcome, Standard
from penstock.testing.kubernetes.wire import Answering, Request, Wire

MOST_BODY = 64 * 1024 * 1024
PIECE = 64 * 1024
#: Nobody is waited for longer, on either side.
LONGEST = 300.0
CONNECT_SECONDS = 1.0
#: What is of one connection, and not of the request.
HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)

Headers = list[tuple[bytes, bytes]]


class Failed(Exception):
    """No answer can be had: the proxy gives its own, *status*, with Envoy's *flags* for why."""

    def __init__(self, status: int, flags: str) -> None:
        super().__init__(f"{status} {flags}")
        self.status, self.flags = status, flags


class Talk:
    """One HTTP/1.1 connection, in either role."""

    def __init__(
        self, http: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.http = http
        self._reader = reader
        self._writer = writer

    async def event(self) -> object:
        """The next one of `h11`'s."""
        while (found := self.http.next_event()) is h11.NEED_DATA:
            if self.http.they_are_waiting_for_100_continue:
                await self.send(h11.InformationalResponse(status_code=100, headers=[]))
            self.http.receive_data(await self._reader.read(PIECE))
        return found

    async def send(self, *events: h11.Event) -> None:
        for event in events:
            self._writer.write(self.http.send(event) or b"")
        await self._writer.drain()

    @property
    def left(self) -> bool:
        """Whether the other side has hung up."""
        return self._reader.at_eof() or self._writer.is_closing()

    def abort(self) -> None:
        self._writer.transport.abort()

    async def close(self) -> None:
        """Once everything that was written has gone out."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


@dataclass(frozen=True)
class Asked:
    """A request, whole."""

    head: h11.Request
    body: bytes

    @property
    def path(self) -> str:
        return self.head.target.decode("latin-1")

    @property
    def given(self) -> dict[str, str]:
        """Its headers by name, in lower case: several cookies are one, several of another are a list."""
        found: dict[str, str] = {}
        for raw, value in self.head.headers:
            name, text = raw.decode("latin-1"), value.decode("latin-1")
            between = "; " if name == "cookie" else ","
            found[name] = f"{found[name]}{between}{text}" if name in found else text
        return found

    def passed_on(self, removed: Iterable[str], *, shadow: bool = False) -> h11.Request:
        """As an endpoint gets it; a *shadow* says so in its host, as Envoy's do."""
        gone = {*HOP_BY_HOP, b"expect", b"content-length", *(name.encode("latin-1") for name in removed)}
        headers: Headers = [(name, value) for name, value in self.head.headers if name not in gone]
        if shadow:
            headers = [(name, value + b"-shadow" * (name == b"host")) for name, value in headers]
        known = {name for name, _ in headers}
        added = {
            b"x-forwarded-for": b"127.0.0.1",
            b"x-forwarded-proto": b"http",
            b"x-request-id": str(uuid.uuid4()).encode(),
        }
        headers += [(name, value) for name, value in added.items() if name not in known]
        if self.body or self.head.method not in (b"GET", b"HEAD", b"OPTIONS", b"DELETE"):
            headers.append((b"content-length", str(len(self.body)).encode()))
        headers.append((b"connection", b"close"))
        return h11.Request(method=self.head.method, target=self.head.target, headers=headers)


class Proxy:
    """Serves within its ``async with``, at *port*; what it has counted is at *metrics_port*, under
    ``/stats/prometheus``. It is the pod of *workload* in *namespace*."""

    def __init__(
        self, plane: DataPlane, *, workload: str = "public-istio", namespace: str = "default"
    ) -> None:
        self.port = 0
        self.counted = Standard(workload, namespace)
        self._plane = plane
        self._metrics = Wire(self._tell)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Proxy:
        await self._metrics.start()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._metrics.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def metrics_port(self) -> int:
        return self._metrics.port

    @asynccontextmanager
    async def unread(self) -> AsyncIterator[None]:
        """Within it nobody can read what was counted; users are served."""
        await self._metrics.stop()
        try:
            yield
        finally:
            await self._metrics.start()

    async def _tell(self, request: Request, answering: Answering) -> None:
        if request.path == "/stats/prometheus":
            await answering.whole(200, self.counted.page())
        else:
            await answering.whole(404, "not found\n")

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._keep(self._serve(Talk(h11.Connection(h11.SERVER), reader, writer)))

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- a user --------------------------------------------------------------------------------------

    async def _serve(self, user: Talk) -> None:
        """One request after the other, until one side has enough."""
        try:
            with contextlib.suppress(ConnectionError, TimeoutError):
                while (asked := await _asked(user)) is not None:
                    await self._answer(asked, user)
                    if user.http.our_state is not h11.DONE or user.http.their_state is not h11.DONE:
                        break
                    user.http.start_next_cycle()
                await user.close()
        finally:
            user.abort()

    async def _answer(self, asked: Asked, user: Talk) -> None:
        began = time.monotonic()
        given = asked.given
        host = given.get("host", "").lower().partition(":")[0]
        led = self._plane.lead(host, given, asked.path)
        if led.mirror:
            self._keep(self._copy(asked, led))
        known = self._plane.services.get(led.service)
        outcome = Outcome(led.service if known else "", known.namespace if known else "", 0)
        try:
            if led.status:
                raise Failed(led.status, {404: "NR", 503: "UH" if known else "-"}.get(led.status, "-"))
            outcome = await self._forward(asked, led, user, outcome)
        except Failed as failed:
            outcome = replace(outcome, code=failed.status, flags=failed.flags, answered=False)
            await _say(user, failed.status)
        except ConnectionError:  # of the user's: where it happens to endpoints, it has failed
            outcome = replace(outcome, flags="DC")
            raise
        finally:
            self.counted.count(outcome, time.monotonic() - began)

    async def _forward(self, asked: Asked, led: Led, user: Talk, outcome: Outcome) -> Outcome:
        """Have an endpoint answer, and pass that on. `Failed` if nothing of an answer has come."""
        begun = 0
        try:
            async with asyncio.timeout(led.way.seconds or LONGEST):
                endpoint = await self._connect(led.service, led.way.retries)
                try:
                    await _send(endpoint, asked.passed_on(led.way.removed), asked.body)
                    head = await _head(endpoint)
                    if user.left:
                        raise ConnectionResetError
                    begun = head.status_code
                    await user.send(_for_user(head))
                    flags = await _rest(endpoint, user)
                finally:
                    endpoint.abort()
        except TimeoutError:
            if not begun:
                raise Failed(504, "UT") from None
            flags = "UT"
        if flags != "-":  # too late for another status: what is cut off must not look whole
            user.abort()
        return replace(outcome, code=begun, flags=flags)

    async def _connect(self, service: str, retries: int) -> Talk:
        for _ in range(1 + retries):
            address = self._plane.endpoint(service)
            if address is None:
                raise Failed(503, "UH")
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(CONNECT_SECONDS):
                    reader, writer = await asyncio.open_connection(*address)
                    return Talk(h11.Connection(h11.CLIENT), reader, writer)
        raise Failed(503, "UF")

    async def _copy(self, asked: Asked, led: Led) -> None:
        """To the mirror, whose answer nobody gets; and nobody counts it."""
        with contextlib.suppress(Failed, ConnectionError, TimeoutError):
            async with asyncio.timeout(led.way.seconds or LONGEST):
                endpoint = await self._connect(led.mirror, 0)
                try:
                    await _send(endpoint, asked.passed_on(led.way.removed, shadow=True), asked.body)
                    await _head(endpoint)
                finally:
                    endpoint.abort()


# --- a user's side -----------------------------------------------------------------------------------------


async def _asked(user: Talk) -> Asked | None:
    """The next request; None if there is none, or none that can be read (which is answered here)."""
    try:
        async with asyncio.timeout(LONGEST):
            head = await user.event()
            if not isinstance(head, h11.Request):
                return None
            body = bytearray()
            while isinstance(part := await user.event(), h11.Data):
                body += part.data
                if len(body) > MOST_BODY:
                    await _say(user, 413, last=True)
                    return None
            return Asked(head, bytes(body))
    except h11.RemoteProtocolError as error:
        if user.http.our_state is h11.IDLE or user.http.our_state is h11.SEND_RESPONSE:
            await _say(user, error.error_status_hint, last=True)
        return None


async def _say(user: Talk, status: int, *, last: bool = False) -> None:
    """An answer of the proxy's own."""
    body = f"{HTTPStatus(status).phrase.lower()}\n".encode()
    headers: Headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    headers += [(b"server", b"istio-envoy"), *([(b"connection", b"close")] if last else [])]
    head = h11.Response(status_code=status, headers=headers, reason=HTTPStatus(status).phrase.encode())
    await user.send(head, h11.Data(data=body), h11.EndOfMessage())


def _for_user(head: h11.Response) -> h11.Response:
    headers = [(name, value) for name, value in head.headers if name not in HOP_BY_HOP]
    return h11.Response(status_code=head.status_code, headers=headers, reason=head.reason)


# --- an endpoint's side ------------------------------------------------------------------------------------


async def _send(endpoint: Talk, head: h11.Request, body: bytes) -> None:
    """An endpoint may answer before it has read everything, and hang up: its answer counts then."""
    with contextlib.suppress(ConnectionError):
        await endpoint.send(head, *([h11.Data(data=body)] if body else []), h11.EndOfMessage())


async def _head(endpoint: Talk) -> h11.Response:
    try:
        while True:
            found = await endpoint.event()
            if isinstance(found, h11.Response):
                return found
            if not isinstance(found, h11.InformationalResponse):
                raise Failed(503, "UC")
    except ConnectionError as error:
        raise Failed(503, "UC") from error
    except h11.RemoteProtocolError as error:
        if endpoint.left:  # before it said a word, or in the middle of one
            raise Failed(503, "UC") from error
        raise Failed(502, "UPE") from error


async def _rest(endpoint: Talk, user: Talk) -> str:
    """Pass on the body; returns why it ended before its end, and ``-`` if it did not."""
    while True:
        try:
            found = await endpoint.event()
        except (ConnectionError, h11.RemoteProtocolError):
            return "UC"
        if isinstance(found, h11.EndOfMessage):
            await user.send(h11.EndOfMessage())
            return "-"
        if isinstance(found, h11.Data):
            await user.send(h11.Data(data=bytes(found.data)))
