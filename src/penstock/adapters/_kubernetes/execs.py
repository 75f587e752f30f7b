"""Runs a command in a container that runs already, with what goes in and comes out: ``kubectl exec``.

Called by the adapter that brings files to a pod and gets them back. The API takes it over a WebSocket, whose
messages begin with the number of a channel (``v5.channel.k8s.io``: since Kubernetes 1.30, and the first in
which what goes in can be said to have ended). What fails is one of the five words. Must not know what the
command is for.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException

from penstock.adapters._kubernetes.access import Access
from penstock.adapters._kubernetes.failures import Call, failure, silence
from penstock.adapters._kubernetes.kinds import PODS
from penstock.errors import Invalid, PenstockError, Unavailable

PROTOCOL = "v5.channel.k8s.io"
STDIN, STDOUT, STDERR, ERROR, CLOSE = 0, 1, 2, 3, 255
SECONDS = 15.0
#: So much of what a command complains about is repeated.
MOST_WORDS = 1000


@dataclass(frozen=True)
class Command:
    """*argv* in one *container* of a *pod*. *feed* is what goes in, *take* is given what comes out; it may
    raise to end it all."""

    namespace: str
    pod: str
    container: str
    argv: tuple[str, ...]
    feed: Iterable[bytes] = ()
    take: Callable[[bytes], object] = field(default=lambda _: None)


@dataclass(frozen=True)
class Done:
    """*said* is the end of what it complained about."""

    exit_code: int
    said: str


async def execute(access: Access, command: Command) -> Done:
    """Run it to its end. `Unavailable` if that cannot be told; what it did is then unknown."""
    call = Call("create", PODS, command.namespace, command.pod, "exec")
    try:
        async with _opened(access, command, call) as socket:
            return await _talk(socket, command)
    except ConnectionClosed as error:
        raise silence(call, access.server, f"the connection broke off: {error}") from error
    except (OSError, TimeoutError, WebSocketException) as error:
        raise silence(call, access.server, str(error) or type(error).__name__) from error


@contextlib.asynccontextmanager
async def _opened(access: Access, command: Command, call: Call) -> AsyncIterator[ClientConnection]:
    ways: list[tuple[str, str]] = [("container", command.container), ("stdin", "true")]
    ways += [("stdout", "true"), ("stderr", "true"), *(("command", word) for word in command.argv)]
    server = access.server.replace("http", "ws", 1)
    url = f"{server}{PODS.path(command.namespace, command.pod)}/exec?{urlencode(ways)}"
    try:
        token = access.token()
    except OSError as error:
        raise Unavailable(f"our token cannot be read: {error}", where=access.server) from error
    headers = {"authorization": f"Bearer {token}"} if token else {}
    opening = connect(
        url,
        ssl=access.tls,
        subprotocols=[PROTOCOL],  # type: ignore[list-item]
        additional_headers=headers,
        compression=None,
        proxy=None,
        open_timeout=SECONDS,
        max_size=None,
    )
    try:
        socket = await opening
    except InvalidStatus as error:
        raise _refused(call, error) from error
    except InvalidHandshake as error:
        raise silence(call, access.server, str(error)) from error
    async with socket:
        if socket.subprotocol != PROTOCOL:
            move = "upgrade the cluster: Kubernetes 1.31 or newer"
            raise Invalid(f"the API does not speak {PROTOCOL}", where=call.where, next_move=move)
        yield socket


def _refused(call: Call, error: InvalidStatus) -> PenstockError:
    answer = error.response
    text = bytes(answer.body or b"").decode(errors="replace")
    try:
        body: Any = json.loads(text)
    except ValueError:
        body = text
    return failure(call, answer.status_code, body)


async def _talk(socket: ClientConnection, command: Command) -> Done:
    feeding = asyncio.ensure_future(_feed(socket, command.feed))
    said = b""
    try:
        async for message in socket:
            data = message.encode() if isinstance(message, str) else message
            channel, rest = data[:1], data[1:]
            if channel == bytes([STDOUT]):
                command.take(rest)
            elif channel == bytes([STDERR]):
                said = (said + rest)[-MOST_WORDS:]
            elif channel == bytes([ERROR]) and rest:  # an empty one says that all is ready
                return _done(json.loads(rest), said.decode(errors="replace").strip())
    finally:
        feeding.cancel()
        await asyncio.wait([feeding])
    where = f"pods {command.namespace}/{command.pod}"
    raise Unavailable("a command in it ended, and nobody says how", where=where, next_move="try again")


async def _feed(socket: ClientConnection, feed: Iterable[bytes]) -> None:
    with contextlib.suppress(ConnectionClosed):  # who reads the answers says so
        for data in feed:
            await socket.send(bytes([STDIN]) + data)
        await socket.send(bytes([CLOSE, STDIN]))


def _done(status: Any, said: str) -> Done:
    """As the last message of a command has it: a Status, with the exit code among its causes."""
    if status.get("status") == "Success":
        return Done(0, said)
    causes = (status.get("details") or {}).get("causes") or []
    codes = [cause.get("message", "") for cause in causes if cause.get("reason") == "ExitCode"]
    if codes and codes[0].isdecimal():
        return Done(int(codes[0]), said)
    return Done(-1, f"{status.get('message', '')} {said}".strip())
