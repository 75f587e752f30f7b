"""Abort, at work, in the middle of undoing, and of a rollback: it ends once, undone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.integration.engine.stage import FakeEngine, agrees, running, stage

from penstock.core.pipeline import State
from penstock.errors import Conflict
from penstock.ports import Store


async def test_an_abort_interrupts_what_is_being_performed(tmp_path: Path, store: Store) -> None:
    async with stage(tmp_path, store, lease_seconds=1.0) as s:
        engine = FakeEngine()
        engine.holds["acceptance"] = asyncio.Event()
        await s.queue("one")
        async with running(await s.worker("w", engine)):
            await s.until(lambda: "acceptance/acceptance/0" in engine.keys("one"))
            await s.journal.request("one", "abort")
            await s.ended("one")
        found = await s.find("one")
        assert (found.state, found.outcome) == (State.CANCELLATION, "aborted")
        assert engine.keys("one")[-1] == "rollback/rollback/0"
        for word in ("promote", "abort"):
            with pytest.raises(Conflict, match="it has ended already: aborted, and has no users") as told:
                await s.journal.request("one", word)
            assert told.value.next_move.startswith("penstock rerun one delivers it again")


async def test_an_abort_of_what_is_being_undone_is_the_same_abort(tmp_path: Path, store: Store) -> None:
    """Asked for again, and its driver dies in the middle of undoing: it is undone to its end all the same."""
    async with stage(tmp_path, store, lease_seconds=0.4) as s:
        engine, heir = FakeEngine(), FakeEngine()
        engine.holds = {"acceptance": asyncio.Event(), "rollback": asyncio.Event()}
        await s.queue("one")
        async with running(await s.worker("w", engine)):
            await s.until(lambda: "acceptance/acceptance/0" in engine.keys("one"))
            await s.journal.request("one", "abort")
            await s.until(lambda: "rollback/rollback/0" in engine.keys("one"))
            await s.journal.request("one", "abort")
            with pytest.raises(Conflict):
                await s.journal.request("one", "promote")
        assert engine.cancelled == ["acceptance/acceptance/0", "rollback/rollback/0"]
        async with running(await s.worker("heir", heir)):
            await s.journal.request("one", "abort")
            await s.ended("one")
        found = await s.find("one")
        assert (found.state, found.outcome) == (State.CANCELLATION, "aborted")
        assert heir.keys("one") == ["rollback/rollback/0"]
        assert [record.intent.key for record in found.records].count("rollback/rollback/0") == 1
        await agrees(s, "one")


@pytest.mark.parametrize("held", ["deploy", "restore"])
async def test_a_rollback_is_aborted_like_anything_else(tmp_path: Path, store: Store, held: str) -> None:
    async with stage(tmp_path, store, lease_seconds=1.0) as s:
        engine = FakeEngine()
        engine.holds[held] = asyncio.Event()
        await s.queue("back", kind="rollback")
        async with running(await s.worker("w", engine)):
            await s.until(lambda: f"{held}/{held}/0" in engine.keys("back"))
            await s.journal.request("back", "abort")
            await s.ended("back")
        found = await s.find("back")
        assert (found.state, found.outcome) == (State.CANCELLATION, "aborted")
        assert engine.keys("back")[-1] == "rollback/rollback/0", "what it may have placed is taken out again"
        await agrees(s, "back")
