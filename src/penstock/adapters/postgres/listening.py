"""Wakes those who wait for a commit: by notifications, and by a look at the last commit in case one was lost.

Called by `store`. One connection listens for all who wait in this process. While the database cannot be
reached nobody is woken; the next transaction says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from typing import Any

import psycopg

from penstock.adapters.postgres.connecting import Connection, Server
from penstock.errors import PenstockError

CHANNEL = "penstock"
#: A notification that got lost (a pooler between us, a connection that died) is made up for at this pace.
POLL_SECONDS = 1.0
#: Changes with every commit that wrote something.
STAMP = "SELECT xmin FROM clock"


class Listener:
    def __init__(self, server: Server, poll_seconds: float = POLL_SECONDS) -> None:
        self._server = server
        self._poll_seconds = poll_seconds
        self._task: asyncio.Task[None] | None = None
        self._heard = asyncio.Condition()
        self._stamp: object = None
        self._count = 0
        #: Up to which count each waiting task has been told: a commit between two calls wakes the second.
        self._told: weakref.WeakKeyDictionary[asyncio.Task[Any], int] = weakref.WeakKeyDictionary()

    async def wait(self, seconds: float) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._listen())
        task = asyncio.current_task()
        assert task is not None
        if task in self._told:
            known = self._told[task]
        else:
            # What it looked at before is not known, nor whether a commit came after that.
            known, seconds = self._count, min(seconds, self._poll_seconds)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._heard:
                await self._heard.wait_for(lambda: self._count != known)
        self._told[task] = self._count

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _listen(self) -> None:
        while True:
            with contextlib.suppress(PenstockError, psycopg.Error):
                connection = await self._server.connect()
                try:
                    await connection.execute(f"LISTEN {CHANNEL}".encode())
                    await self._hear(connection)
                finally:
                    await connection.close()
            await asyncio.sleep(self._poll_seconds)

    async def _hear(self, connection: Connection) -> None:
        while True:
            row = await (await connection.execute(STAMP.encode())).fetchone()
            if row != self._stamp:
                self._stamp = row
                async with self._heard:
                    self._count += 1
                    self._heard.notify_all()
            async for _ in connection.notifies(timeout=self._poll_seconds, stop_after=1):
                pass
