"""What is said at boundaries, to whom, and that nothing is wrapped when nobody listens."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.router import FakeRouter
from penstock import ports
from penstock.adapters.sqlite import SqliteStore
from penstock.bootstrap.boundaries import UNFENCED, VARIABLE, around, around_store, effects
from penstock.core.fence import Fence
from penstock.core.traffic import TrafficPlan
from penstock.errors import Invalid

NOBODY = TrafficPlan("shop", "production", (), ())
FENCE = Fence("shop/production", 1, "shop-1/canary/shift/0")


@contextlib.asynccontextmanager
async def listening(path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[str]]:
    """Somebody who hears everything and answers; what was heard."""
    heard: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(json.loads(await reader.readline())["boundary"])
        writer.write(b"go on\n")
        await writer.drain()
        writer.close()

    monkeypatch.setenv(VARIABLE, str(path))
    async with await asyncio.start_unix_server(answer, path):
        yield heard


def test_nothing_is_wrapped_when_nobody_asked(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    router = FakeRouter()
    assert around("Router", router) is router


def test_what_changes_something_follows_from_the_ports() -> None:
    assert effects("Router") == {"apply"}
    assert effects("Platform") == {"place", "scale", "remove"}
    assert effects("Metrics") == frozenset()
    for port, method in UNFENCED.items():
        assert inspect.iscoroutinefunction(getattr(getattr(ports, port), method))


async def test_a_fenced_call_is_named_by_its_intent(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(short_tmp / "s", monkeypatch) as heard:
        router = around("Router", FakeRouter())
        await router.read("shop", "production")
        await router.apply(NOBODY, fence=FENCE)
    assert heard == ["canary/shift/0 router.apply before", "canary/shift/0 router.apply after"]


async def test_a_commit_is_named_by_who_opened_it(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(short_tmp / "s", monkeypatch) as heard:
        store = around_store(SqliteStore(short_tmp / "db"))

        async def write(sql: str) -> None:
            async with store.transaction() as tx:
                await tx.execute(sql)

        await write("CREATE TABLE kept (n INTEGER)")
        await write("SELECT 1")
        async with store.transaction(write=False) as tx:
            await tx.now()
            assert await tx.execute("SELECT n FROM kept") == []
        assert await changed(store, "DELETE FROM kept") == 0
        assert await changed(store, "INSERT INTO kept VALUES (1)") == 1
        await store.close()
    created, inserted = "- commit test_boundaries.write", "- commit test_boundaries.changed"
    assert heard == [f"{created} before", f"{created} after", f"{inserted} before", f"{inserted} after"]


async def changed(store: ports.Store, sql: str) -> int:
    async with store.transaction() as tx:
        return await tx.changed(sql)


async def test_what_is_rolled_back_reaches_no_commit(
    short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(short_tmp / "s", monkeypatch) as heard:
        store = around_store(SqliteStore(short_tmp / "db"))
        with contextlib.suppress(Invalid):
            async with store.transaction() as tx:
                await tx.execute("CREATE TABLE kept (n INTEGER)")
                raise Invalid("no")
        async with store.transaction(write=False) as tx:
            assert await tx.execute("SELECT name FROM sqlite_schema WHERE name = 'kept'") == []
        await store.close()
    assert heard == []


async def test_it_goes_on_without_a_listener(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(short_tmp / "nobody"))
    router = around("Router", FakeRouter())
    assert (await router.apply(NOBODY, fence=FENCE)).service == "shop"
