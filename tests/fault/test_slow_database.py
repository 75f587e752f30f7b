"""A database that is slow, even slower than a lease is long: everybody is late, and nothing is done wrong."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from penstock.ledger.fsck import verify
from penstock.ports import Store, Transaction
from tests.integration.engine.stage import FakeEngine, running, stage


class Slow:
    """The same store; everything takes *seconds* longer, with the transaction open."""

    def __init__(self, store: Store, seconds: float) -> None:
        self._store = store
        self.seconds = seconds

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    @contextlib.asynccontextmanager
    async def transaction(self, *, write: bool = True) -> AsyncIterator[Transaction]:
        async with self._store.transaction(write=write) as tx:
            if not write:
                await asyncio.sleep(self.seconds)
            yield tx
            if write:
                await asyncio.sleep(self.seconds)


@pytest.mark.parametrize(("seconds", "lease"), [(0.1, 10.0), (0.3, 0.2)])
@pytest.mark.long
async def test_a_delivery_ends_once_on_a_slow_database(
    tmp_path: Path, store: Store, seconds: float, lease: float
) -> None:
    slow = Slow(store, 0.0)
    async with stage(tmp_path, slow, lease_seconds=lease) as s:  # type: ignore[arg-type]
        first, second = FakeEngine(), FakeEngine()
        workers = [await s.worker("one", first), await s.worker("two", second)]
        await s.queue("d-1")
        slow.seconds = seconds
        async with running(*workers):
            await s.ended("d-1", seconds=100.0)
        slow.seconds = 0.0
        found = await s.find("d-1")
        assert found.outcome == "promoted"
        keys = [record.intent.key for record in found.records]
        assert len(keys) == len(set(keys))
        performed = [key for engine in (first, second) for key in engine.keys("d-1")]
        assert set(performed) >= {key for key in keys if "rollback" not in key}
        if lease > seconds:
            assert len(performed) == len(set(performed)), "somebody was taken for dead who was only slow"
        assert (await verify(s.store, None, {})).verified
