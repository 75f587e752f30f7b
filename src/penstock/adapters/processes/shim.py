"""Runs beside one workload, inside its sandbox: the bridge between its loopback and the proxy's sockets.

Started by `instance`; standard library only, because nothing else can be counted on inside. It starts the
command, waits until 127.0.0.1:$PORT accepts, and only then listens on the unix socket that the proxy
connects to; so a socket that accepts means a workload that accepts. Calls to neighbours enter at local
ports and leave by the proxy's unix sockets. It hands SIGTERM on, and ends as the command ends.

The socket comes bound, and the file for the exit code comes open: the workload shares our user, and must
have no folder in which it could put a link or a pipe of its own where the host trusts a name.

    shim.py SOCKET_FD EXIT_FD EGRESS_FOLDER PORT [CALLEE=PORT ...] -- COMMAND...
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
DRAIN_SECONDS = 2.0


class Pipe(asyncio.Protocol):
    """One end of a bridge: what it reads it writes to *peer*, with back pressure.

    The end that somebody connected to reads nothing until *connect* has made its peer.
    """

    transport: asyncio.Transport

    def __init__(
        self, peer: Pipe | None = None, connect: Callable[[Pipe], Coroutine[None, None, None]] | None = None
    ) -> None:
        self.peer = peer
        self.connect = connect
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        PIPES.add(self)
        transport.set_write_buffer_limits(LIMIT)
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family == socket.AF_INET:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.peer is not None:
            self.peer.peer = self
            self.peer.transport.resume_reading()
        elif self.connect is not None:
            task = asyncio.ensure_future(self.join(self.connect))
            TASKS.add(task)
            task.add_done_callback(TASKS.discard)

    async def join(self, connect: Callable[[Pipe], Coroutine[None, None, None]]) -> None:
        # Not in `connection_made`: some Pythons 3.11 begin to read after it, paused or not.
        self.transport.pause_reading()
        try:
            await connect(self)
        except OSError:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        assert self.peer is not None
        self.peer.transport.write(data)

    def eof_received(self) -> bool:
        assert self.peer is not None
        self.ended = True
        if self.peer.ended:  # nobody else would ever close them
            self.transport.close()
            self.peer.transport.close()
        else:
            with contextlib.suppress(OSError):
                self.peer.transport.write_eof()
        return True  # the other direction goes on

    def connection_lost(self, exc: Exception | None) -> None:
        PIPES.discard(self)
        self.ended = True
        if self.peer is not None:
            self.peer.transport.close()

    def pause_writing(self) -> None:
        if self.peer is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and not self.peer.ended:
            self.peer.transport.resume_reading()

    @property
    def idle(self) -> bool:
        """Whether nothing more will come from here, and all that came has been handed on."""
        return self.ended and (self.peer is None or not self.peer.transport.get_write_buffer_size())


TASKS: set[asyncio.Future[None]] = set()
PIPES: set[Pipe] = set()


async def to_port(caller: Pipe, port: int) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: Pipe(peer=caller), "127.0.0.1", port)


async def to_socket(caller: Pipe, path: str) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_unix_connection(lambda: Pipe(peer=caller), path)


async def accepting(port: int) -> None:
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        await asyncio.sleep(0.02)


async def serve(inbound: socket.socket, port: int) -> None:
    await accepting(port)
    loop = asyncio.get_running_loop()
    await loop.create_unix_server(
        lambda: Pipe(connect=lambda caller: to_port(caller, port)), sock=inbound, backlog=1024
    )


async def drained() -> None:
    """Last words of the command are still on their way to the proxy; its own ends tell when they are not."""
    for _ in range(int(DRAIN_SECONDS / 0.01)):
        if all(pipe.idle for pipe in PIPES if pipe.connect is None):
            return
        await asyncio.sleep(0.01)


def tell(child: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        child.terminate()


async def main(inbound: socket.socket, egress: dict[str, int], port: int, command: list[str]) -> int:
    loop = asyncio.get_running_loop()
    for path, local in egress.items():
        leave = functools.partial(to_socket, path=path)
        await loop.create_server(functools.partial(Pipe, connect=leave), "127.0.0.1", local, backlog=1024)
    child = await asyncio.create_subprocess_exec(*command)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, functools.partial(tell, child))
    bridge = asyncio.ensure_future(serve(inbound, port))
    code = await child.wait()
    bridge.cancel()
    await drained()
    return code


if __name__ == "__main__":
    split = sys.argv.index("--")
    fd, exit_fd, folder, inner = sys.argv[1:5]
    neighbours = dict(word.split("=", 1) for word in sys.argv[5:split])
    sockets = {f"{folder}/{name}.sock": int(local) for name, local in neighbours.items()}
    os.set_inheritable(int(exit_fd), False)
    try:
        status = asyncio.run(main(socket.socket(fileno=int(fd)), sockets, int(inner), sys.argv[split + 1 :]))
    except OSError as error:
        print(f"cannot start: {error}", flush=True)
        status = 127
    os.write(int(exit_fd), str(status).encode())
    sys.exit(status if status >= 0 else 128 - status)
