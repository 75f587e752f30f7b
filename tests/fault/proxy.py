"""A PostgreSQL that is far away: its answers are late, or do not come, for everybody or for one process.

Used by `place`. Nothing is lost or changed on the way: what was sent arrives in order, only later.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading

from tests.fakes.postgres import PostgresServer

SOCKET = ".s.PGSQL.5432"
CHUNK = 1 << 16
EVERYBODY = -1
#: One that is cut off may end the transaction that it is in: its locks would hold up the others too.
BEGIN = b"BEGIN ISOLATION LEVEL"


class FarPostgres(PostgresServer):
    """The same server. *delay* is added to each message to it; *delayed* and *held* count what was late."""

    def __init__(self) -> None:
        super().__init__()
        self.delay = 0.0
        self.delayed = self.held = 0
        self.latest = ""
        self._silent: set[int] = set()
        self._speaking = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        self._thread.start()
        self._ready.wait()

    def remove(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
        self._loop.close()
        super().remove()

    def schema(self) -> str:
        self.latest = super().schema()
        return self.latest

    def url(self, schema: str = "", database: str = "postgres") -> str:
        """Penstock's way is the long one; the tests' own is not."""
        near = super().url(schema, database)
        return near.replace(f"host={self.folder}", f"host={self.folder}/far") if schema else near

    def fall_silent(self, process: int = EVERYBODY) -> None:
        self._silent.add(process)
        self._loop.call_soon_threadsafe(self._speaking.clear)

    def speak(self) -> None:
        self._silent.clear()
        self._loop.call_soon_threadsafe(self._speaking.set)

    # --- in a thread of its own -----------------------------------------------------------------------

    async def _serve(self) -> None:
        self._end = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        (self.folder / "far").mkdir()
        server = await asyncio.start_unix_server(self._connect, self.folder / "far" / SOCKET)
        self._ready.set()
        await self._end.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connect(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        peer = back.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        with contextlib.closing(back), contextlib.suppress(OSError):
            server, there = await asyncio.open_unix_connection(self.folder / SOCKET)
            with contextlib.closing(there):
                ways = (self._to(client, there, struct.unpack("3i", peer)[0]), _pass(server, back))
                both = [asyncio.ensure_future(way) for way in ways]
                try:
                    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in both:
                        way.cancel()
                    await asyncio.gather(*both, return_exceptions=True)

    async def _to(self, client: asyncio.StreamReader, there: asyncio.StreamWriter, pid: int) -> None:
        while data := await client.read(CHUNK):
            if EVERYBODY in self._silent or (pid in self._silent and BEGIN in data):
                self.held += 1
                await self._speaking.wait()
            if self.delay:
                self.delayed += 1
                await asyncio.sleep(self.delay)
            there.write(data)
            await there.drain()


async def _pass(source: asyncio.StreamReader, destination: asyncio.StreamWriter) -> None:
    while data := await source.read(CHUNK):
        destination.write(data)
        await destination.drain()
