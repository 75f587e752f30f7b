"""Bounds how many connections a listener has, and how long a request may take to arrive.

Given to uvicorn by bootstrap. Whoever can open a connection needs no token for that: without a bound, a few
silent ones for each file that the process may open stop its worker too. Must not end what is being answered:
event streams last as long as their readers want.

`Bounded` sees a connection once TLS has begun; `Listener` sees it before, and who opened it.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle


class Bounded(H11Protocol):
    MOST: ClassVar[int] = 256
    #: A request has arrived whole after at most twice this time.
    SECONDS: ClassVar[float] = 20.0

    _seen: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.MOST:
            transport.abort()
        else:
            self._look_later()

    def _look_later(self) -> None:
        self.loop.call_later(self.SECONDS, self._look)

    def _look(self) -> None:
        """Close what has waited for the rest of a request since the last look."""
        if self.transport.is_closing():
            return
        cycle = self.cycle
        waits = cycle is None or cycle.response_complete or cycle.more_body
        if waits and (cycle is None or cycle is self._seen):
            self.transport.close()
            return
        self._seen = cycle
        self._look_later()


class Listener(socket.socket):
    """A listening socket that hangs up on what is too much, of all or of one address.

    What it has accepted counts until it is closed, whether it has said anything or not.
    """

    MOST: ClassVar[int] = 512
    OF_ONE: ClassVar[int] = 128

    _open: tuple[tuple[socket.socket, str], ...] = ()

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection. `BlockingIOError`, as if there were none, for one that is too much."""
        accepted, address = super().accept()
        self._open = tuple(one for one in self._open if one[0].fileno() >= 0)
        ours = sum(1 for _, host in self._open if host == address[0])
        if len(self._open) >= self.MOST or ours >= self.OF_ONE:
            accepted.close()
            raise BlockingIOError
        self._open += ((accepted, address[0]),)
        return accepted, address
