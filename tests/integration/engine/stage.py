"""A ledger and a journal in a store, and a fake engine whose performances a test writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from penstock.adapters.ed25519 import Ed25519
from penstock.config import CanaryConfig, ServiceConfig
from penstock.core.digest import digest
from penstock.core.evidence import Statement, Subject
from penstock.core.people import By, Genesis, KeyGrant, Said
from penstock.core.pipeline import Begun, Detail, Intent, Looked, Made, Measured, Pipeline, State
from penstock.core.predicates import Coverage, Promoted
from penstock.core.release import Artifact, Change, EnvironmentData, Release
from penstock.core.saying import spoken, statement_of
from penstock.core.traffic import Counters
from penstock.engine.journal import Delivery, Header, Journal
from penstock.engine.worker import Worker
from penstock.errors import PenstockError
from penstock.ledger.fsck import verify
from penstock.ledger.log import Batch, Ledger, attest
from penstock.ports import Outcome, Signer, Store, Transaction

CONFIG = ServiceConfig(service="shop", canary=CanaryConfig((50.0,), 0.05, 0.05, 0.05))
DATA = EnvironmentData("shop", "production")
OLD = Release("shop", "production", digest(b"old"), DATA.digest)
READING = Counters("shop-1", 0.0, "epoch", 0, 0)


@dataclass
class FakeEngine:
    """Performs everything well, unless *fails* has an error for the verb; keeps what it was asked."""

    performed: list[tuple[str, str, int]] = field(default_factory=list)
    fails: dict[str, list[PenstockError]] = field(default_factory=dict)
    holds: dict[str, asyncio.Event] = field(default_factory=dict)
    forgotten: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    before: Callable[[Intent], None] = lambda _: None

    async def perform(self, delivery: Delivery, pipeline: Pipeline, intent: Intent) -> Outcome:
        self.performed.append((delivery.id, intent.key, delivery.fence))
        self.before(intent)
        if intent.verb in self.holds:
            try:
                await self.holds[intent.verb].wait()
            except asyncio.CancelledError:
                self.cancelled.append(intent.key)
                raise
        if self.fails.get(intent.verb):
            raise self.fails[intent.verb].pop(0)
        said = Coverage(intent.key, 1, 2, "platform")
        subject = Subject("shop", digest(delivery.id.encode()))
        return Outcome(State.SUCCESS, "done", (Statement((subject,), said),), _detail(intent))

    async def ask(
        self, delivery: Delivery, pipeline: Pipeline, intent: Intent, tx: Transaction, batch: Batch
    ) -> Outcome | None:
        """What its gates say, they say at once, unless they are held."""
        if intent.verb in self.holds:
            return None
        return await self.perform(delivery, pipeline, intent)

    def forget(self, delivery: str, *, failed: bool = False) -> None:
        self.forgotten.append(delivery)
        self.failed += [delivery] * failed

    def keys(self, delivery: str) -> list[str]:
        return [key for name, key, _ in self.performed if name == delivery]


def _detail(intent: Intent) -> Detail | None:
    details: dict[str, Detail] = {
        "begin": Begun("begun", DATA, OLD),
        "build": Made("made", Artifact("shop", digest(b"new"))),
        "measure": Measured("measured", READING, READING),
        "look": Looked("looked", "PASS", False),
    }
    return details.get(intent.verb)


class Stage:
    """What a test plays on."""

    def __init__(self, folder: Path, store: Store, lease_seconds: float) -> None:
        self.store = store
        self.log, self.operator = Ed25519.create(folder / "log"), Ed25519.create(folder / "operator")
        self.folder = folder
        self.ledger = Ledger(self.store, [self.log], "penstock")
        self.journal = Journal(self.store, lease_seconds)

    async def open(self) -> None:
        await self.ledger.migrate()
        await self.journal.migrate()
        genesis = Genesis(
            "penstock",
            self.log.public_key.hex(),
            "operator",
            self.operator.public_key.hex(),
            ("administrator",),
        )
        async with self.store.transaction() as tx:
            await self.ledger.append(tx, [attest(self.operator, statement_of(genesis))])

    async def signer(self, name: str) -> Signer:
        """A new worker key, granted."""
        made = Ed25519.create(self.folder / name)
        grant = KeyGrant(By("operator"), name, made.public_key.hex(), "worker")
        async with self.store.transaction() as tx:
            await self.ledger.append(tx, [attest(self.operator, statement_of(spoken(grant, await tx.now())))])
        return made

    async def say(self, said: Said) -> None:
        """What the operator says, signed."""
        async with self.store.transaction() as tx:
            statement = statement_of(spoken(said, await tx.now()))
            await self.ledger.append(tx, [attest(self.operator, statement)])

    async def promoted(self, release: Release) -> None:
        """The entry of a promotion that nothing else is known of."""
        promoted = Promoted(f"{release.service}-0", release, DATA, None)
        statement = Statement((Subject(release.id, release.digest),), promoted)
        worker = await self.signer(f"of-{release.id}")
        async with self.store.transaction() as tx:
            await self.ledger.append(tx, [attest(worker, statement)])

    async def worker(self, name: str, engine: FakeEngine) -> Worker:
        return Worker(self.store, self.journal, self.ledger, engine, await self.signer(name))  # type: ignore[arg-type]

    async def queue(
        self, delivery: str, service: str = "shop", kind: str = "code", pipeline: Pipeline | None = None
    ) -> None:
        change = Change(kind, service, "production", "/repo", "1" * 40, "Dana", "A change")  # type: ignore[arg-type]
        async with self.store.transaction() as tx:
            await self.journal.create(tx, delivery, Header(change, CONFIG, pipeline=pipeline))

    async def find(self, delivery: str) -> Delivery:
        async with self.store.transaction(write=False) as tx:
            return await self.journal.find(tx, delivery)

    async def until(self, met: Callable[[], bool], seconds: float = 20.0) -> None:
        async with asyncio.timeout(seconds):
            while not met():
                await asyncio.sleep(0.01)

    async def ended(self, *deliveries: str, seconds: float = 30.0) -> None:
        async with asyncio.timeout(seconds):
            for delivery in deliveries:
                while not (await self.find(delivery)).ended:
                    await asyncio.sleep(0.02)


@asynccontextmanager
async def stage(folder: Path, store: Store, lease_seconds: float = 10.0) -> AsyncIterator[Stage]:
    made = Stage(folder, store, lease_seconds)
    await made.open()
    yield made


@asynccontextmanager
async def running(*workers: Worker) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.create_task(worker.run()) for worker in workers]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def agrees(s: Stage, delivery: str) -> None:
    """Every record's evidence is in the ledger once, and the ledger verifies."""
    found = await s.find(delivery)
    indices = [index for record in found.records for index in record.entries]
    assert len(indices) == len(set(indices))
    async with s.store.transaction(write=False) as tx:
        for record in found.records:
            for index in record.entries:
                entry = await s.ledger.entry(tx, index)
                assert getattr(entry.statement.predicate, "suite", None) == record.intent.key
    report = await verify(s.store, None, {})
    assert report.verified, report.problems
