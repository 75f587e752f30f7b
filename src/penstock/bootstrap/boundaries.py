"""Says where a process is, at every boundary between what it does and what is kept; for fault tests.

A boundary lies before and after each call that changes something outside (see `effects`), and before and
after each commit. Where ``PENSTOCK_BOUNDARIES`` names a unix socket, one line of JSON goes there at each of
them, and the process goes on once a line comes back, or at once if nobody is there. Without that variable
nothing is wrapped.

Called by bootstrap, which puts it around ports. It must not end, delay or change anything itself: whoever
listens decides. The names are made here, never listed: intent, port and method, or for a commit the function
that opened the transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from typing import Any, TypeVar, cast

from penstock import ports
from penstock.core.fence import Fence
from penstock.core.pipeline import Intent, Pipeline
from penstock.engine.journal import Delivery
from penstock.ports import Outcome, Row, Store, Transaction

VARIABLE = "PENSTOCK_BOUNDARIES"
LINE_BYTES = 64 * 1024

#: Calls that change something though they carry no fence: only this delivery's own folders, caches, and what
#: is known by its digest.
UNFENCED = {
    "Source": "checkout",
    "Sandbox": "run",
    "Builder": "build",
    "Tools": "prepare",
    "Images": "publish",
}

P = TypeVar("P")

_performing: ContextVar[str] = ContextVar("performing", default="-")


def effects(port: str) -> frozenset[str]:
    """The methods of a port in `ports` that change something: those with a fence, and `UNFENCED`."""
    methods = inspect.getmembers(getattr(ports, port), inspect.isfunction)
    fenced = {name for name, method in methods if "fence" in inspect.signature(method).parameters}
    return frozenset(fenced | ({UNFENCED[port]} if port in UNFENCED else set()))


def around(port: str, inner: P) -> P:
    """The same port, saying where it is."""
    return cast(P, _Effects(inner, port)) if _listening() else inner


def around_store(store: Store) -> Store:
    """The same store, saying where it is around each commit that has something to commit."""
    return cast(Store, _Commits(store)) if _listening() else store


def around_engine(engine: P) -> P:
    """The same engine, saying which intent it begins; what follows in that task bears the intent's name."""
    return cast(P, _Intents(engine)) if _listening() else engine


def _listening() -> str:
    return os.environ.get(VARIABLE, "")


async def reach(boundary: str) -> None:
    """Say it, and wait for an answer; without a listener, go on."""
    said = {"pid": os.getpid(), "process": "".join(sys.argv[1:2]), "boundary": boundary}
    with contextlib.suppress(OSError, ValueError):
        reader, writer = await asyncio.open_unix_connection(_listening(), limit=LINE_BYTES)
        try:
            writer.write(json.dumps(said).encode() + b"\n")
            await reader.readline()
        finally:
            writer.close()


class _Wrapper:
    """Everything that is not said otherwise is the inner one's."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Effects(_Wrapper):
    def __init__(self, inner: Any, port: str) -> None:
        super().__init__(inner)
        self._port = port.lower()
        self._effects = effects(port)

    def __getattr__(self, name: str) -> Any:
        method = super().__getattr__(name)
        return self._bounded(name, method) if name in self._effects else method

    def _bounded(self, name: str, method: Callable[..., Awaitable[object]]) -> Callable[..., Any]:
        async def bounded(*given: object, **named: object) -> object:
            fence = named.get("fence")
            intent = fence.key.partition("/")[2] if isinstance(fence, Fence) else _performing.get()
            await reach(f"{intent} {self._port}.{name} before")
            answer = await method(*given, **named)
            await reach(f"{intent} {self._port}.{name} after")
            return answer

        return bounded


class _Commits(_Wrapper):
    def transaction(self, *, write: bool = True) -> AbstractAsyncContextManager[Transaction]:
        if not write:
            return cast(Store, self._inner).transaction(write=False)
        caller = sys._getframe(1)
        module = caller.f_globals["__name__"].rpartition(".")[2]
        # Several intents may be performed side by side: whoever commits for one of them has it at hand.
        intent = caller.f_locals.get("intent")
        whose = intent.key if isinstance(intent, Intent) else _performing.get()
        return self._writing(f"{whose} commit {module}.{caller.f_code.co_name}")

    @contextlib.asynccontextmanager
    async def _writing(self, name: str) -> AsyncIterator[Transaction]:
        async with self._inner.transaction() as inner:
            transaction = _Writing(inner)
            yield transaction
            if transaction.wrote:
                await reach(f"{name} before")
        if transaction.wrote:
            await reach(f"{name} after")


class _Writing:
    """A transaction that knows whether there is anything to commit: idle workers only look."""

    def __init__(self, inner: Transaction) -> None:
        self._inner = inner
        self.wrote = False

    async def execute(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        self.wrote |= not sql.lstrip().upper().startswith("SELECT")
        return await self._inner.execute(sql, parameters)

    async def changed(self, sql: str, parameters: Sequence[object] = ()) -> int:
        count = await self._inner.changed(sql, parameters)
        self.wrote |= count > 0
        return count

    async def now(self) -> float:
        return await self._inner.now()


class _Intents(_Wrapper):
    async def perform(self, delivery: Delivery, pipeline: Pipeline, intent: Intent) -> Outcome:
        # A task for each intent: what it sets here is seen by nobody beside it.
        _performing.set(intent.key)
        await reach(f"{intent.key} begins")
        outcome: Outcome = await self._inner.perform(delivery, pipeline, intent)
        return outcome
