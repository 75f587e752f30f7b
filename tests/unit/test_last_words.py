"""What a release wrote last outlives it, with the delivery that took it out."""

from __future__ import annotations

from pathlib import Path

from fakes.copies import NEW, scene
from fakes.platform import GREETING
from penstock.core.pipeline import State


async def test_what_is_rolled_back_leaves_its_last_words(tmp_path: Path) -> None:
    async with scene() as s:
        s.log = tmp_path / "rollback.log"
        await s.deploy()
        await s.shift(500)
        outcome = await s.undo()
        assert await s.platform.logs(NEW.id, 9) == ()
        assert outcome.reason.endswith("; its last output: penstock logs shop-1 rollback")
        assert s.log.read_text().splitlines()[0] == f"the last lines that {NEW.id} wrote:"
        assert GREETING in s.log.read_text()
        kept = s.log.read_text()
        assert "penstock logs" not in (await s.undo()).reason, "it is gone, and the words are there already"
        assert s.log.read_text() == kept


async def test_a_log_that_cannot_be_written_holds_no_rollback_up(tmp_path: Path) -> None:
    async with scene() as s:
        s.log = tmp_path / "gone" / "rollback.log"
        await s.deploy()
        outcome = await s.undo()
        assert (outcome.state, "penstock logs" in outcome.reason) == (State.SUCCESS, False)
