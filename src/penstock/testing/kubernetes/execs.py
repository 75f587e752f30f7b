"""Runs a command in a container for whoever asks by WebSocket: ``kubectl exec``, as a node does it.

Called by `server` for ``pods/exec``. It speaks ``v5.channel.k8s.io`` and nothing else: the first byte of a
message says where it comes from or goes to, and 255 that what goes in has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence

from websockets.datastructures import Headers
from websockets.exceptions import InvalidState
from websockets.frames import Frame
from websockets.http11 import Request as Opening
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from penstock.testing.kubernetes.kinds import Object
from penstock.testing.kubernetes.problems import Problem
from penstock.testing.kubernetes.wire import Answering, HangUp

PROTOCOL = "v5.channel.k8s.io"
STDIN, STDOUT, STDERR, ERROR, CLOSE = 0, 1, 2, 3, 255
PIECE = 64 * 1024
GOODBYE_SECONDS = 5.0


async def serve(path: str, headers: dict[str, str], argv: Sequence[str], answering: Answering) -> None:
    """Speak with whoever asked until *argv* has ended; then the connection is closed."""
    protocol = ServerProtocol(subprotocols=[Subprotocol(PROTOCOL)], max_size=None)
    protocol.receive_data(Opening(path, Headers(headers)).serialize())  # it was read off the wire before
    (opening,) = protocol.events_received()
    assert isinstance(opening, Opening)
    response = protocol.accept(opening)
    if response.status_code != 101 or protocol.subprotocol != PROTOCOL:
        raise Problem(400, f"unable to upgrade: {PROTOCOL} by WebSocket is all that is spoken here")
    protocol.send_response(response)
    protocol.send_binary(bytes([STDOUT]))  # as the real one says that all is ready
    await _flush(protocol, answering)
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={},
        start_new_session=True,
    )
    feeding = asyncio.ensure_future(_feed(protocol, process, answering))
    try:
        async with asyncio.TaskGroup() as group:
            for channel, stream in ((STDOUT, process.stdout), (STDERR, process.stderr)):
                assert stream is not None
                group.create_task(_tell(protocol, channel, stream, answering))
        code = await process.wait()
        protocol.send_binary(bytes([ERROR]) + json.dumps(_status(code)).encode())
        protocol.send_close(1000)
        await _flush(protocol, answering)
        # Who hangs up first throws away what was not read yet.
        await asyncio.wait([feeding], timeout=GOODBYE_SECONDS)
    except* (ConnectionError, InvalidState):
        pass
    finally:
        feeding.cancel()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    raise HangUp


async def _flush(protocol: ServerProtocol, answering: Answering) -> None:
    for data in protocol.data_to_send():
        await answering.raw(data)


async def _tell(
    protocol: ServerProtocol, channel: int, stream: asyncio.StreamReader, answering: Answering
) -> None:
    while data := await stream.read(PIECE):
        protocol.send_binary(bytes([channel]) + data)
        await _flush(protocol, answering)


async def _feed(protocol: ServerProtocol, process: asyncio.subprocess.Process, answering: Answering) -> None:
    """What comes goes in; who leaves ends the command."""
    assert process.stdin is not None
    while data := await answering.reader.read(PIECE):
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Frame) and event.data[:1] == bytes([STDIN]):
                with contextlib.suppress(ConnectionError):  # it wants no more
                    process.stdin.write(bytes(event.data[1:]))
                    await process.stdin.drain()
            elif isinstance(event, Frame) and event.data == bytes([CLOSE, STDIN]):
                process.stdin.close()
        if protocol.close_rcvd is not None:
            break
    with contextlib.suppress(ProcessLookupError):
        process.kill()


def _status(code: int) -> Object:
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    causes = [{"reason": "ExitCode", "message": str(code)}]
    said = f"command terminated with non-zero exit code: exit status {code}"
    failed = {"status": "Failure", "reason": "NonZeroExitCode", "message": said}
    return {"metadata": {}, **failed, "details": {"causes": causes}}
