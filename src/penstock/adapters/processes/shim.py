"""Runs beside one workload, inside its sandbox: the bridge between its loopback and the proxy's sockets.

Started by `instance`; standard library only, because nothing else can be counted on inside. It starts the
command, waits until 127.0.0.1:$PORT accepts, and only then listens on the unix socket ``in.sock`` that the
proxy connects to; so a socket that accepts means a workload that accepts. Calls to neighbours enter at
local ports and leave by the proxy's unix sockets. It hands SIGTERM on, and ends as the command ends.

    shim.py SOCKETS PORT [CALLEE=PORT ...] -- COMMAND...
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine

LIMIT = 1 << 18


class Pipe(asyncio.Protocol):
    """One direction's receiver: what it reads it writes to *peer*, with back pressure."""

    def __init__(self, connect: Callable[[Pipe], Coroutine[None, None, Pipe]] | None = None) -> None:
        self.connect = connect
        self.transport: asyncio.Transport | None = None
        self.peer: Pipe | None = None
        self.early: list[bytes] = []
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(LIMIT)
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family == socket.AF_INET:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.connect is not None:
            task = asyncio.ensure_future(self.join(self.connect))
            TASKS.add(task)
            task.add_done_callback(TASKS.discard)

    async def join(self, connect: Callable[[Pipe], Coroutine[None, None, Pipe]]) -> None:
        try:
            self.peer = await connect(self)
        except OSError:
            if self.transport is not None:
                self.transport.abort()
            return
        for data in self.early:
            self.send(data)
        self.early.clear()
        if self.ended:
            self.finish()

    def data_received(self, data: bytes) -> None:
        if self.peer is None:
            self.early.append(data)
        else:
            self.send(data)

    def send(self, data: bytes) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.write(data)

    def eof_received(self) -> bool:
        self.ended = True
        if self.peer is not None:
            self.finish()
        return True  # the other direction goes on

    def finish(self) -> None:
        peer = self.peer.transport if self.peer is not None else None
        if peer is not None and not peer.is_closing():
            with contextlib.suppress(OSError):
                peer.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.close()

    def pause_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.resume_reading()


TASKS: set[asyncio.Future[None]] = set()


def paired(caller: Pipe) -> Pipe:
    other = Pipe()
    other.peer = caller
    return other


async def to_port(caller: Pipe, port: int) -> Pipe:
    loop = asyncio.get_running_loop()
    _, other = await loop.create_connection(lambda: paired(caller), "127.0.0.1", port)
    return other


async def to_socket(caller: Pipe, path: str) -> Pipe:
    loop = asyncio.get_running_loop()
    _, other = await loop.create_unix_connection(lambda: paired(caller), path)
    return other


async def accepting(port: int) -> None:
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        await asyncio.sleep(0.02)


async def serve(sockets: str, port: int) -> None:
    await accepting(port)
    loop = asyncio.get_running_loop()
    temporary, final = f"{sockets}/in.new", f"{sockets}/in.sock"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    await loop.create_unix_server(lambda: Pipe(lambda caller: to_port(caller, port)), temporary, backlog=1024)
    os.chmod(temporary, 0o666)
    os.rename(temporary, final)


async def main(sockets: str, port: int, callees: dict[str, int], command: list[str]) -> int:
    loop = asyncio.get_running_loop()
    for callee, local in callees.items():
        leave = functools.partial(to_socket, path=f"{sockets}/out/{callee}.sock")
        await loop.create_server(functools.partial(Pipe, leave), "127.0.0.1", local, backlog=1024)
    child = await asyncio.create_subprocess_exec(*command)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, child.terminate)
    bridge = asyncio.ensure_future(serve(sockets, port))
    code = await child.wait()
    bridge.cancel()
    with open(f"{sockets}/exit.new", "w") as file:
        file.write(str(code))
    os.rename(f"{sockets}/exit.new", f"{sockets}/exit")
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    split = sys.argv.index("--")
    named = dict(word.split("=", 1) for word in sys.argv[3:split])
    try:
        status = asyncio.run(
            main(sys.argv[1], int(sys.argv[2]), {k: int(v) for k, v in named.items()}, sys.argv[split + 1 :])
        )
    except FileNotFoundError as error:
        print(f"cannot start: {error}", flush=True)
        status = 127
    sys.exit(status)
