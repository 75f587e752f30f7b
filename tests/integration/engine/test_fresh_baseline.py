"""A fresh baseline: put up beside the stable release, as many and with as many users as the new one, and gone
with the canary, wherever whoever works on it is cut off."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.integration.engine.stage import Stage, stage

from fakes.copies import DATA, FENCE, NEW, STABLE, Cut, Images, Scene, scene
from penstock.actions import baseline, promote, rollback, shift
from penstock.adapters.sqlite import SqliteStore
from penstock.core.evidence import Statement, Subject
from penstock.core.pipeline import Canary, State
from penstock.core.predicates import Drifted, Promoted
from penstock.core.release import EnvironmentData
from penstock.core.traffic import WHOLE, Weight
from penstock.errors import Conflict, Unavailable
from penstock.ledger.log import attest
from penstock.ports import Outcome

FRESH = STABLE.fresh
LIVE = EnvironmentData("shop", "production", {"COLOUR": "blue", "TOKEN": "tomato-soup"}, secret=("TOKEN",))
VERBS: dict[str, Callable[..., Awaitable[Outcome]]] = {
    "baseline": baseline.perform,
    "shift": shift.perform,
    "promote": promote.perform,
    "rollback": rollback.undo,
}


@dataclass
class Fresh:
    """The scene of `fakes.copies`, whose canary asks for a fresh baseline; the ledger knows what is live."""

    scene: Scene
    stage: Stage
    images: Images

    async def perform(self, verb: str, share: int = 0, cut: Cut | None = None) -> Outcome:
        """Do it, with powers that are *cut* off somewhere."""
        s = self.scene
        powers: dict[str, Any] = dict.fromkeys(("router", "metrics"), cut or s.router)
        powers |= {"platform": cut or s.platform, "artifacts": self.images}
        powers |= {"store": self.stage.store, "ledger": self.stage.ledger}
        asked = inspect.signature(VERBS[verb]).parameters.values()
        given = {p.name: powers[p.name] for p in asked if p.kind is inspect.Parameter.KEYWORD_ONLY}
        return await VERBS[verb](s.task(verb, share), **given)

    async def users(self) -> dict[str, int]:
        state = await self.scene.router.read("shop", "production")
        return {weight.release: weight.share for weight in state.weights}

    async def copies(self, release: str) -> int:
        found = await self.scene.platform.observe(release)
        return len(found.instances) if found else 0

    async def known(self) -> set[str]:
        state = await self.scene.router.read("shop", "production")
        return {backend.release for backend in state.backends}

    async def gone(self, *releases: str) -> bool:
        placed = [release for release in releases if await self.copies(release)]
        return not placed and not await self.known() & set(releases)


@asynccontextmanager
async def fresh(folder: Path, replicas: int = 4, **lives: str) -> AsyncIterator[Fresh]:
    store = SqliteStore(folder / "penstock.db")
    async with scene(replicas=replicas, copies=replicas) as s, stage(folder, store) as ledger:
        s.canary = Canary((250, 500), 4.0, 2.0, 4.0, "fresh")
        statement = Statement((Subject(STABLE.id, STABLE.digest),), Promoted("shop-0", STABLE, LIVE, at=1.0))
        worker = await ledger.signer("worker")
        async with store.transaction() as tx:
            await ledger.ledger.append(tx, [attest(worker, statement)])
        made = Fresh(s, ledger, Images(s.config, **lives))
        await s.deploy()
        yield made
    await store.close()


async def test_it_stands_dark_beside_the_new_release_with_what_is_live(short_tmp: Path) -> None:
    async with fresh(short_tmp) as f:
        outcome = await f.perform("baseline")
        assert (outcome.state, outcome.reason) == (
            State.SUCCESS,
            f"1 fresh copy of {STABLE.id}, dark",
        )
        assert await f.users() == {STABLE.id: WHOLE}
        assert await f.known() == {STABLE.id, FRESH, NEW.id}
        said = json.loads(f.scene.platform.ask(f"unix:/fake/{FRESH}/0", "/"))
        assert said["COLOUR"] == "blue", "the stable pair's own data, not the new one's"


async def test_it_has_as_many_copies_and_users_as_the_new_release_and_goes_with_the_promotion(
    short_tmp: Path,
) -> None:
    async with fresh(short_tmp) as f:
        await f.perform("baseline")
        for share, copies in ((250, 1), (500, 2)):
            outcome = await f.perform("shift", share)
            assert f"{share / 10:g}% to {NEW.id}, as much to {FRESH}" in outcome.reason
            rest = {STABLE.id: WHOLE - 2 * share} if share < 500 else {}
            assert await f.users() == {**rest, FRESH: share, NEW.id: share}
            assert [await f.copies(release) for release in (FRESH, NEW.id)] == [copies, copies]
        assert outcome.statements[1:] == (), "none of it is drift"
        await f.perform("promote")
        assert await f.gone(FRESH)
        assert await f.users() == {NEW.id: WHOLE}
        assert await f.copies(STABLE.id) == 4, "what is replaced stays warm"
        assert all(ready for _, _, ready in f.scene.router.moves)


async def test_load_that_added_copies_to_the_new_release_adds_them_to_it(short_tmp: Path) -> None:
    async with fresh(short_tmp) as f:
        await f.perform("baseline")
        await f.perform("shift", 250)
        await f.scene.platform.scale(NEW.id, 3, fence=FENCE)
        await f.scene.until_ready(NEW)
        await f.perform("shift", 500)
        assert await f.copies(FRESH) == await f.copies(NEW.id) == 3


@pytest.mark.parametrize("shared", [0, 500])
async def test_a_rollback_takes_it_away_too(short_tmp: Path, shared: int) -> None:
    async with fresh(short_tmp) as f:
        await f.perform("baseline")
        if shared:
            await f.perform("shift", shared)
        outcome = await f.perform("rollback")
        assert outcome.state is State.SUCCESS
        assert await f.users() == {STABLE.id: WHOLE}
        assert await f.gone(FRESH, NEW.id)


@pytest.mark.parametrize("verb", VERBS)
async def test_nothing_of_it_stays_wherever_who_works_on_it_is_cut_off(short_tmp: Path, verb: str) -> None:
    """Somebody goes on with it, or undoes it at once, which is what an abort does."""
    undone = (False, True) if verb in ("baseline", "shift") else (False,)
    cells = list(itertools.product(range(8), (False, True), undone))
    few = asyncio.Semaphore(8)  # each waits for its own, which a slow machine must come to in time

    async def one(number: int, cell: tuple[int, bool, bool]) -> str:
        async with few:
            return await cut_off(short_tmp / str(number), verb, *cell)

    left = await asyncio.gather(*(one(number, cell) for number, cell in enumerate(cells)))
    assert {cell: wrong for cell, wrong in zip(cells, left, strict=True) if wrong} == {}


async def cut_off(folder: Path, verb: str, calls: int, after: bool, undone: bool) -> str:
    """What is wrong once somebody has gone on; *undone* if it is aborted then."""
    folder.mkdir()
    async with fresh(folder, replicas=2) as f:
        if verb != "baseline":
            await f.perform("baseline")
        if verb in ("promote", "rollback"):
            await f.perform("shift", 250)
        with contextlib.suppress(Unavailable):
            await f.perform(verb, 500, Cut(f.scene, calls, after=after))
        keeps = verb == "promote" or not (undone or verb == "rollback")
        if keeps:
            await f.perform(verb, 500)
        await f.perform("promote" if keeps else "rollback")
        users = await f.users()
        if users != {NEW.id if keeps else STABLE.id: WHOLE}:
            return f"users on {users}"
        if not await f.gone(FRESH, *([] if keeps else [NEW.id])):
            return "something is still there"
        return "" if all(ready for _, _, ready in f.scene.router.moves) else "users on what was not ready"


@pytest.mark.parametrize("life", ["deaf", "fail"])
async def test_one_that_does_not_start_is_no_fault_of_the_change_and_moves_nobody(
    short_tmp: Path, life: str
) -> None:
    async with fresh(short_tmp, **{STABLE.artifact: life}) as f:
        outcome = await f.perform("baseline")
        assert outcome.state is State.ERROR
        assert f"fresh copies of {STABLE.id}, which is live, do not serve: " in outcome.reason
        assert "tomato-soup" not in outcome.reason, "the secrets of the stable pair are secrets"
        assert await f.users() == {STABLE.id: WHOLE}
        await f.perform("rollback")
        assert await f.gone(FRESH)


async def test_what_could_not_be_taken_away_before_loses_its_users_and_is_started_again(
    short_tmp: Path,
) -> None:
    async with fresh(short_tmp) as f:
        await f.perform("baseline")
        await f.perform("shift", 250)
        state = await f.scene.router.read("shop", "production")
        left = state.shifting(Weight(STABLE.id, 750), Weight(FRESH, 250))
        await f.scene.router.apply(left, fence=FENCE)
        f.scene.platform.change(FRESH, "old")
        outcome = await f.perform("baseline")
        (drifted,) = [s.predicate for s in outcome.statements]
        assert isinstance(drifted, Drifted)
        assert drifted.found == f"found traffic on {FRESH} 25%"
        assert await f.users() == {STABLE.id: WHOLE}
        assert (await f.perform("shift", 250)).state is State.SUCCESS


async def test_what_is_not_live_any_more_is_nothing_to_compare_with(short_tmp: Path) -> None:
    async with fresh(short_tmp) as f:
        other = replace(STABLE, data=DATA.digest[:-1] + "0")
        task = replace(f.scene.task("baseline"), baseline=other)
        with pytest.raises(Conflict, match="not what is live any more"):
            await baseline.perform(
                task,
                platform=f.scene.platform,
                router=f.scene.router,
                artifacts=f.images,
                store=f.stage.store,
                ledger=f.stage.ledger,
            )
        assert await f.gone(FRESH)
