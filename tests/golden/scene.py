"""The deliveries of a golden journal: who plays them, and where each is stopped.

Used by `make`, which writes the file of a release, and by `test_golden`, which goes on from every file. Keys
are made of their names, so that a later release can sign for the same ledger without a key in the repository.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from penstock.adapters.ed25519 import Ed25519
from penstock.config import CanaryConfig, ServiceConfig, load_service
from penstock.core.digest import digest
from penstock.core.fence import Fence
from penstock.core.pipeline import Blocked, Gated, Intent, Looked, Pipeline, State
from penstock.core.release import Artifact, Change, Release
from penstock.engine.journal import Delivery, Header, Journal
from penstock.errors import Unavailable
from penstock.ledger.log import Batch, Ledger
from penstock.ports import Outcome, SourceRevision, Store, Task, Transaction
from tests.integration.engine.stage import DATA, FakeEngine, Stage

#: Where each delivery is stopped, by the intent that is never done there.
STOPS = {
    "built": "tests/suite/0",
    "in-the-canary": "canary/look/0",
    "being-aborted": "acceptance/acceptance/0",
}
#: What the others come to by themselves.
ENDS = {"promoted": "promoted", "rolled-back": "rolled-back", "restored": "restored"}
#: What must become of those that were stopped, when a later release goes on.
OPEN = {
    "pending": "promoted",
    "built": "promoted",
    "retrying": "promoted",
    "waiting": "promoted",
    "in-the-canary": "promoted",
    "being-aborted": "aborted",
}


class GoldenStage(Stage):
    """Its keys are made of their names."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.store, self.folder = store, folder
        self.log, self.operator = seeded("log"), seeded("operator")
        self.ledger = Ledger(store, [self.log], "penstock")
        self.journal = Journal(store)


def seeded(name: str) -> Ed25519:
    return Ed25519(Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"golden {name}".encode()).digest()))


class GoldenEngine(FakeEngine):
    """Stops some deliveries for ever while the file is made; afterwards everything goes well."""

    def __init__(self, stage: Stage, *, making: bool) -> None:
        super().__init__()
        self.stage, self.making = stage, making

    def task(self, delivery: Delivery, pipeline: Pipeline, intent: Intent) -> Task:
        artifact = Artifact("shop", digest(b"new"))
        release = Release("shop", "production", artifact.digest, DATA.digest)
        fence = Fence(delivery.scope, delivery.fence, intent.key)
        change, config, folder = delivery.header.change, delivery.header.config, self.stage.folder
        return Task(delivery.id, intent, change, config, fence, folder, folder, None, None, artifact, release)

    async def ask(
        self, delivery: Delivery, pipeline: Pipeline, intent: Intent, tx: Transaction, batch: Batch
    ) -> Outcome | None:
        if self.making:
            return None
        outcome = await super().perform(delivery, pipeline, intent)
        return self._passed(outcome, batch.size, await tx.now())

    async def perform(self, delivery: Delivery, pipeline: Pipeline, intent: Intent) -> Outcome:
        if self.making and STOPS.get(delivery.id) == intent.key:
            self.performed.append((delivery.id, intent.key, delivery.fence))
            await asyncio.Event().wait()
        if self.making and (delivery.id, intent.verb) == ("retrying", "scan"):
            self.performed.append((delivery.id, intent.key, delivery.fence))
            raise Unavailable("the scanner does not answer", where="scanner")
        outcome = await super().perform(delivery, pipeline, intent)
        if (delivery.id, intent.verb) == ("rolled-back", "look"):
            return replace(
                outcome, state=State.FAILURE, detail=Looked("looked", "FAIL", False), reason="worse"
            )
        return await self._gated(delivery, outcome) if intent.verb == "gate" else outcome

    async def _gated(self, delivery: Delivery, outcome: Outcome) -> Outcome:
        async with self.stage.store.transaction(write=False) as tx:
            size, now = await self.stage.ledger.size(tx), await tx.now()
        if self.making and delivery.id == "waiting":
            blocked = (Blocked("test-lead", "no word of a reviewer", "test-lead", ("tess",)),)
            gated = Gated("gated", ("test-lead",), size, 0.0, now + 60.0, blocked)
            return replace(outcome, state=State.PENDING, detail=gated, statements=())
        return self._passed(outcome, size, now)

    def _passed(self, outcome: Outcome, size: int, now: float) -> Outcome:
        overridden = ("security-lead by sue",)
        return replace(outcome, detail=Gated("gated", (), size, now + 1e9, 0.0, (), overridden))


def header(service: str, kind: str = "code") -> Header:
    """As full as a header can be: every field of it is to be read by later releases."""
    change = Change(
        kind=kind,  # type: ignore[arg-type]
        service=service,
        environment="production",
        repository="/srv/git/shop",
        revision="1" * 40,
        author="Dana <dana@example.com>",
        title="Sell more",
        authored_at="2026-11-23T12:00:00+00:00",
        reviewers=("Rea <rea@example.com>",),
        work_items=("SHOP-1",),
        signing_key="ab" * 32,
    )
    source = SourceRevision(
        change.repository,
        change.revision,
        "2" * 40,
        change.author,
        change.title,
        change.authored_at,
        1_795_000_000,
        change.reviewers,
        change.work_items,
        change.signing_key,
    )
    if kind == "rollback":
        return Header(change, config(service), None, Artifact(service, digest(b"old")), DATA)
    return Header(change, config(service), source)


def config(service: str) -> ServiceConfig:
    """The documented reference, which names every setting there is; but its canary is over soon."""
    with tempfile.TemporaryDirectory() as folder:
        reference = (files("penstock") / "penstock.reference.yaml").read_text(encoding="utf-8")
        (Path(folder) / "penstock.yaml").write_text(reference, encoding="utf-8")
        read = load_service(Path(folder), service)
    return replace(read, service=service, canary=CanaryConfig((50.0,), 0.05, 0.05, 0.05))
