"""The worker: every delivery ends once, whoever dies on the way, and records and evidence agree."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.engine.stage import CONFIG, FakeEngine, Stage, agrees, running, stage

from fakes.postgres import PostgresServer
from penstock.adapters.postgres import PostgresStore
from penstock.core.digest import digest
from penstock.core.fence import Fence
from penstock.core.people import By, RoleGrant, RoleRevocation
from penstock.core.pipeline import Canary, Gated, Intent, Pipeline, State
from penstock.core.pipeline import Stage as Planned
from penstock.core.release import Artifact, Release
from penstock.core.stages import standard
from penstock.engine import gate
from penstock.engine.commit import Means
from penstock.engine.drive import Drive
from penstock.engine.journal import MAX_ATTEMPTS, Delivery
from penstock.errors import Conflict, Invalid, Unavailable
from penstock.ports import Outcome, Store, Task


async def test_a_delivery_runs_to_its_end(tmp_path: Path, store: Store) -> None:
    async with stage(tmp_path, store) as s:
        engine = FakeEngine()
        await s.queue("one")
        async with running(await s.worker("w", engine)):
            await s.ended("one")
        found = await s.find("one")
        assert (found.state, found.outcome) == (State.SUCCESS, "promoted")
        assert engine.keys("one") == [record.intent.key for record in found.records]
        assert (engine.forgotten, engine.failed) == (["one"], [])
        await agrees(s, "one")


async def test_a_dead_workers_delivery_is_taken_over_where_it_stood(tmp_path: Path, store: Store) -> None:
    async with stage(tmp_path, store, lease_seconds=0.5) as s:
        dying, heir = FakeEngine(), FakeEngine()
        dying.holds["suite"] = asyncio.Event()
        await s.queue("one")
        first = await s.worker("first", dying)
        async with running(first):
            await s.until(lambda: "tests/suite/0" in dying.keys("one"))
        # It is gone without a word: its lease has to run out.
        async with running(await s.worker("second", heir)):
            await s.ended("one")
        assert heir.keys("one")[0] == "tests/suite/0"
        assert "build/build/0" not in heir.keys("one")
        assert heir.performed[0][2] > dying.performed[-1][2], "the heir's fence is not higher"
        await agrees(s, "one")


async def test_a_worker_that_was_believed_dead_records_nothing(tmp_path: Path, store: Store) -> None:
    async with stage(tmp_path, store, lease_seconds=0.2) as s:
        await s.queue("one")
        stale = await s.journal.claim("stale")
        assert stale is not None
        await asyncio.sleep(0.3)
        heir = await s.journal.claim("heir")
        assert heir is not None
        assert heir.fence > stale.fence
        with pytest.raises(Conflict, match="lease was lost"):
            await s.journal.renew(stale, "stale")
        async with s.store.transaction(write=False) as tx:
            size = await s.ledger.size(tx)
        means = Means(s.store, s.journal, s.ledger, FakeEngine(), await s.signer("stale"))  # type: ignore[arg-type]
        with pytest.raises(Conflict):
            await Drive(means, stale).run()
        async with s.store.transaction(write=False) as tx:
            assert await s.ledger.size(tx) == size + 1, "only the key grant was appended"
        assert (await s.find("one")).records == ()


async def test_one_delivery_at_a_time_for_a_service(tmp_path: Path, store: Store) -> None:
    async with stage(tmp_path, store) as s:
        engine = FakeEngine()
        engine.holds["build"] = asyncio.Event()
        for name in ("one", "two"):
            await s.queue(name)
        await s.queue("other", service="catalog")
        async with running(await s.worker("w", engine)):
            await s.until(lambda: "build/build/0" in engine.keys("one") + engine.keys("other"))
            await s.until(lambda: engine.keys("other") != [])
            assert engine.keys("two") == []
            engine.holds["build"].set()
            await s.ended("one", "two", "other")


async def test_a_rollback_goes_before_what_waits(tmp_path: Path, store: Store) -> None:
    async with stage(tmp_path, store) as s:
        await s.queue("code-1")
        await s.queue("code-2")
        await s.queue("back", kind="rollback")
        claimed = await s.journal.claim("w")
        assert claimed is not None
        assert claimed.id == "back"
        assert await s.journal.claim("w") is None


async def test_unavailable_is_tried_again_and_then_given_up(tmp_path: Path, store: Store) -> None:
    async with stage(tmp_path, store) as s:
        engine = FakeEngine()
        engine.fails["build"] = [Unavailable("not now")]
        await s.queue("one")
        async with running(await s.worker("w", engine)):
            await s.ended("one")
        assert engine.keys("one").count("build/build/0") == 2
        assert (await s.find("one")).outcome == "promoted"


async def test_what_never_answers_ends_in_an_error(tmp_path: Path, store: Store) -> None:
    async with stage(tmp_path, store) as s:
        engine = FakeEngine()
        engine.fails["begin"] = [Unavailable("down")] * MAX_ATTEMPTS
        await s.queue("one")
        async with running(await s.worker("w", engine)):
            for _ in range(MAX_ATTEMPTS):
                await s.until(lambda: len(engine.fails["begin"]) < MAX_ATTEMPTS)
                async with s.store.transaction() as tx:
                    await tx.execute("UPDATE attempts SET again = 0")
                    await tx.execute("UPDATE deliveries SET wake = 0 WHERE lease = 0")
                await asyncio.sleep(0.3)
            await s.ended("one", seconds=90)
        found = await s.find("one")
        assert (found.state, found.outcome) == (State.ERROR, "failed")
        assert engine.failed == engine.forgotten == [found.id]
        assert f"gave up after {MAX_ATTEMPTS} attempts: down" in found.reason


async def test_an_error_of_ours_ends_the_delivery_undone(tmp_path: Path, store: Store) -> None:
    async with stage(tmp_path, store) as s:
        engine = FakeEngine()
        engine.fails["acceptance"] = [Invalid("wrong", where="here")]
        await s.queue("one")
        async with running(await s.worker("w", engine)):
            await s.ended("one")
        found = await s.find("one")
        assert (found.state, found.outcome) == (State.ERROR, "rolled-back")
        assert "here: wrong" in found.reason
        assert engine.keys("one")[-1] == "rollback/rollback/0"


CANARY = Canary((500,), 0.05, 0.05, 0.05)
LINT = Planned("lint", "suite", after=("build",))
UNIT = Planned("unit", "unit", after=("build",), seconds=0.3)


async def test_stages_that_do_not_depend_on_one_another_run_side_by_side(
    tmp_path: Path, store: Store
) -> None:
    async with stage(tmp_path, store) as s:
        engine = FakeEngine()
        engine.holds = {"suite": asyncio.Event(), "scan": asyncio.Event()}
        await s.queue("one")
        async with running(await s.worker("w", engine)):
            await s.until(lambda: {"tests/suite/0", "scan/scan/0"} <= set(engine.keys("one")))
            engine.holds["scan"].set()
            await asyncio.sleep(0.2)
            assert "deploy/gate/0" not in engine.keys("one")
            engine.holds["suite"].set()
            await s.ended("one")
        keys = [record.intent.key for record in (await s.find("one")).records]
        assert keys.index("scan/scan/0") < keys.index("tests/suite/0"), "in the order in which they ended"
        assert engine.keys("one").count("tests/suite/0") == 1
        await agrees(s, "one")


async def test_what_fails_ends_what_runs_beside_it(tmp_path: Path, store: Store) -> None:
    async with stage(tmp_path, store) as s:
        engine = FakeEngine()
        engine.holds = {"suite": asyncio.Event()}
        engine.fails = {"scan": [Invalid("wrong")]}
        await s.queue("one")
        async with running(await s.worker("w", engine)):
            await s.ended("one")
        found = await s.find("one")
        assert (found.state, found.outcome) == (State.ERROR, "failed")
        assert engine.cancelled == ["tests/suite/0"]
        assert "tests/suite/0" not in [record.intent.key for record in found.records]


async def test_a_stage_that_takes_too_long_is_ended_at_its_deadline(tmp_path: Path, store: Store) -> None:
    async with stage(tmp_path, store) as s:
        engine = FakeEngine()
        engine.holds = {"unit": asyncio.Event()}
        await s.queue("one", pipeline=standard(CANARY, (LINT, UNIT)))
        await s.queue("two", "catalog", pipeline=standard(CANARY, (LINT, replace(UNIT, optional=True))))
        async with running(await s.worker("w", engine)):
            await s.ended("one", "two")
        found = await s.find("one")
        assert (found.state, found.reason) == (State.TIMEOUT, "not done within 0.3 s")
        passed_over = await s.find("two")
        assert passed_over.state is State.SUCCESS, passed_over.reason
        states = {record.intent.stage: record.state for record in passed_over.records}
        assert states["unit"] is State.TIMEOUT
        assert engine.cancelled == ["unit/unit/0"] * 2


async def test_two_workers_share_and_nothing_is_done_twice(tmp_path: Path, store: Store) -> None:
    async with stage(tmp_path, store) as s:
        engine = FakeEngine()
        names = [f"d{number}" for number in range(6)]
        for number, name in enumerate(names):
            await s.queue(name, service=f"service-{number}")
        async with running(await s.worker("a", engine), await s.worker("b", engine)):
            await s.ended(*names)
        for name in names:
            keys = engine.keys(name)
            assert len(keys) == len(set(keys))
            await agrees(s, name)


async def test_cancelled_again_and_again_it_still_ends_once(tmp_path: Path, store: Store) -> None:
    """The control plane dies at every step in turn; somebody goes on each time."""
    async with stage(tmp_path, store, lease_seconds=0.15) as s:
        await s.queue("one")
        seen: list[str] = []
        for number in range(40):
            engine = FakeEngine()
            crash = asyncio.Event()
            engine.before = lambda _, crash=crash: crash.set()  # type: ignore[misc]
            async with running(await s.worker(f"w{number}", engine)) as (task,):
                waiting = asyncio.create_task(crash.wait())
                await asyncio.wait({waiting, task}, timeout=1.0)
                waiting.cancel()
                await asyncio.sleep(0.02)
            seen += engine.keys("one")
            if (await s.find("one")).ended:
                break
        found = await s.find("one")
        assert found.outcome == "promoted"
        recorded = [record.intent.key for record in found.records]
        assert len(recorded) == len(set(recorded))
        assert set(seen) == set(recorded)
        await agrees(s, "one")


async def test_only_the_dead_workers_leases_are_ended(tmp_path: Path, store: Store) -> None:
    async with stage(tmp_path, store) as s:
        for name in ("one", "two"):
            await s.queue(name, service=name)
        assert await s.journal.claim("dead") is not None
        assert await s.journal.claim("alive") is not None
        assert await s.journal.claim("heir") is None
        await s.journal.orphan("dead")
        heired = await s.journal.claim("heir")
        assert heired is not None
        assert heired.id == "one"
        assert await s.journal.claim("heir") is None


async def test_a_database_that_dies_on_the_way_loses_nothing(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    store = PostgresStore(postgres.url(postgres.schema()))
    async with stage(tmp_path, store, lease_seconds=1.0) as s:
        engine = FakeEngine()
        engine.holds["acceptance"] = asyncio.Event()
        await s.queue("one")
        async with running(await s.worker("w", engine)):
            await s.until(lambda: "acceptance/acceptance/0" in engine.keys("one"))
            postgres.stop(signal.SIGQUIT)
            engine.holds["acceptance"].set()
            await asyncio.sleep(0.2)  # it finishes what it can no longer record
            postgres.start()
            await s.ended("one")
        assert (await s.find("one")).outcome == "promoted"
        await agrees(s, "one")
    await store.close()


async def test_a_step_the_gate_after_it_and_the_end_are_kept_together(tmp_path: Path, store: Store) -> None:
    """A tree head is signed in each transaction that appends: none lies between them."""
    async with stage(tmp_path, store) as s:
        await s.queue("one")
        async with running(await s.worker("w", FakeEngine())):
            await s.ended("one")
        records = {record.intent.key: record for record in (await s.find("one")).records}
        async with s.store.transaction(write=False) as tx:
            heads = {size for (size,) in await tx.execute("SELECT size FROM checkpoints")}
            size = await s.ledger.size(tx)
        # The one before the promotion may be asked when the canary has waited.
        gates = [records[f"{stage}/gate/0"].entries[0] for stage in ("deploy", "canary")]
        assert not heads.intersection(gates), "signed before a gate's answer"
        assert records["promote/promote/0"].entries == (size - 2,)
        assert size - 1 not in heads, "signed before the end"
        assert records["acceptance/acceptance/0"].entries[0] in heads, "two steps are two commits"
        await agrees(s, "one")


class StumblingEngine(FakeEngine):
    async def ask(self, *_: object) -> None:
        raise ValueError("a fault of ours")


async def test_a_gate_that_stumbles_costs_no_outcome(tmp_path: Path, store: Store) -> None:
    async with stage(tmp_path, store) as s:
        engine = StumblingEngine()
        await s.queue("one")
        async with running(await s.worker("w", engine)):
            await s.ended("one")
        assert (await s.find("one")).outcome == "promoted"
        assert engine.keys("one") == [record.intent.key for record in (await s.find("one")).records]
        await agrees(s, "one")


class AskingEngine(FakeEngine):
    """Its gates give answers that rest on the ledger; *meanwhile* happens after the first was asked."""

    def __init__(self, s: Stage, meanwhile: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self.s, self.meanwhile = s, meanwhile
        self.asked: list[str] = []

    def task(self, delivery: Delivery, pipeline: Pipeline, intent: Intent) -> Task:
        artifact = Artifact("shop", digest(b"new"))
        release = Release("shop", "production", artifact.digest, digest(b"data"))
        fence = Fence(delivery.scope, delivery.fence, intent.key)
        change, folder = delivery.header.change, self.s.folder
        return Task(delivery.id, intent, change, CONFIG, fence, folder, folder, None, None, artifact, release)

    async def ask(self, *_: object) -> None:
        """They take their time: a transaction does not wait for them."""

    async def perform(self, delivery: Delivery, pipeline: Pipeline, intent: Intent) -> Outcome:
        outcome = await super().perform(delivery, pipeline, intent)
        if intent.guards != "deploy" or intent.verb != "gate":
            return outcome
        async with self.s.store.transaction(write=False) as tx:
            size, now = await self.s.ledger.size(tx), await tx.now()
        question = replace(gate.question_of(self.task(delivery, pipeline, intent)), size=size, now=now)
        self.asked.append(intent.key)
        if len(self.asked) == 1:
            await self.meanwhile()
        gated = Gated("gated", (), size, now + 1000.0)
        return replace(outcome, detail=gated, rests_on=question)


async def test_an_answer_that_would_not_be_given_any_more_is_not_recorded(
    tmp_path: Path, store: Store
) -> None:
    """A role that is lost between asking and recording is lost: the policies are asked again."""
    async with stage(tmp_path, store) as s:
        await s.say(RoleGrant(By("operator"), "ada", "security-lead"))

        async def revoke() -> None:
            await s.say(RoleRevocation(By("operator"), "ada", "security-lead", "organisation", "left"))

        engine = AskingEngine(s, revoke)
        await s.queue("one")
        async with running(await s.worker("w", engine)):
            await s.ended("one")
        assert engine.asked == ["deploy/gate/0", "deploy/gate/0"]
        keys = [record.intent.key for record in (await s.find("one")).records]
        assert keys.count("deploy/gate/0") == 1
        await agrees(s, "one")


async def test_an_answer_that_lapses_before_the_action_begins_is_asked_for_again(
    tmp_path: Path, store: Store
) -> None:
    async with stage(tmp_path, store) as s:

        async def nothing() -> None:
            return

        engine = AskingEngine(s, nothing)
        engine.holds["deploy"] = asyncio.Event()
        await s.queue("one")
        first = await s.worker("first", engine)
        async with running(first):
            await s.until(lambda: "deploy/deploy/0" in engine.keys("one"))
        # The worker died before it could record anything of the action; then a rule changed.
        await s.say(RoleGrant(By("operator"), "ada", "security-lead"))
        await s.journal.orphan(first.owner)
        engine.holds["deploy"].set()
        async with running(await s.worker("second", engine)):
            await s.ended("one")
        assert engine.asked == ["deploy/gate/0", "deploy/gate/1"]
        await agrees(s, "one")
