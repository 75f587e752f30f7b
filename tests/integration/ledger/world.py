"""A ledger with everything around it that signs, and moves that tests are told with.

Used by the tests beside it. Every move appends real, signed evidence, as the engine does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from penstock.adapters.cel import Cel
from penstock.adapters.ed25519 import Ed25519
from penstock.bootstrap.identity import ROLES, publication, shipped_policies
from penstock.config import ServiceConfig
from penstock.core.canary import Row, Rule
from penstock.core.digest import digest
from penstock.core.evidence import Entry, Envelope, Statement, Subject
from penstock.core.fence import Fence
from penstock.core.people import By, Genesis, KeyGrant, Said
from penstock.core.pipeline import Intent
from penstock.core.predicates import (
    Accepted,
    BuildDefinition,
    BuilderId,
    BuildMetadata,
    Deployed,
    Ended,
    Findings,
    Look,
    Predicate,
    Promoted,
    Proposed,
    Provenance,
    RolledBack,
    RunDetails,
    Shifted,
    TestResult,
)
from penstock.core.release import Artifact, Change, EnvironmentData, Release
from penstock.core.saying import spoken, statement_of
from penstock.core.traffic import Counters, Weight
from penstock.engine import gate
from penstock.ledger import fsck
from penstock.ledger.log import Ledger, attest
from penstock.ports import Language, Outcome, Signer, Store, Task

DATA = EnvironmentData("catalog", "production")


@dataclass(frozen=True)
class Delivery:
    """One delivery of one artifact, and what was live when it began."""

    id: str
    artifact: Artifact
    baseline: Release | None = None
    kind: str = "code"
    environment: str = "production"

    @property
    def change(self) -> Change:
        revision = self.artifact.digest[7:47]
        return Change(self.kind, "catalog", self.environment, "/repo", revision, "ada", self.id)  # type: ignore[arg-type]

    @property
    def release(self) -> Release:
        return Release("catalog", self.environment, self.artifact.digest, DATA.digest)


def artifact(name: str) -> Artifact:
    return Artifact("catalog", digest(name.encode()))


@dataclass
class World:
    folder: Path
    store: Store
    log: Signer
    operator: Signer
    worker: Signer
    ledger: Ledger
    languages: dict[str, Language] = field(default_factory=lambda: {"cel": Cel()})
    genesis: str = ""
    clock: float = 0.0

    @classmethod
    async def begin(cls, folder: Path, store: Store, policies: Sequence[str] | None = None) -> World:
        """A new ledger: the operator, one worker, and the shipped policies (or others)."""
        log, operator, worker = (Ed25519.create(folder / f"{name}.key") for name in ("log", "op", "worker"))
        world = cls(folder, store, log, operator, worker, Ledger(store, [log], "penstock"))
        await world.ledger.migrate()
        texts = shipped_policies() if policies is None else policies
        said = [world.genesis_of(operator), KeyGrant(By("op"), "worker", worker.public_key.hex(), "worker")]
        said += [publication(text, By("op")) for text in texts]
        first, *others = map(world.signed, said)
        world.genesis = first.digest
        await world.keep(first, *others)
        return world

    def genesis_of(self, operator: Signer) -> Genesis:
        return Genesis("penstock", self.log.public_key.hex(), "op", operator.public_key.hex(), tuple(ROLES))

    @property
    def trust(self) -> fsck.Trust:
        return fsck.Trust("penstock", self.log.public_key.hex(), self.genesis)

    def key(self, name: str) -> Signer:
        return Ed25519.create(self.folder / f"{name}.key")

    async def keep(self, *envelopes: Envelope) -> tuple[Entry, ...]:
        async with self.store.transaction() as tx:
            return await self.ledger.append(tx, envelopes)

    async def say(self, *said: Said, by: Signer | None = None) -> tuple[Entry, ...]:
        """What people say, signed with a key: the operator's unless another is named."""
        return await self.keep(*(self.signed(item, by) for item in said))

    def signed(self, said: Said, by: Signer | None = None) -> Envelope:
        """The statement that its signer signs now: later than everything before."""
        self.clock += 1.0
        return attest(by or self.operator, statement_of(spoken(said, self.clock)))

    async def report(self, delivery: Delivery, *predicates: Predicate) -> tuple[Entry, ...]:
        """Evidence about the delivery's artifact and release, signed by the worker."""
        return await self.keep(*self.attested(delivery, *predicates))

    def attested(self, delivery: Delivery, *predicates: Predicate) -> list[Envelope]:
        """The same, not kept yet."""
        found = delivery.artifact, delivery.release
        subjects = (Subject(found[0].name, found[0].digest), Subject(found[1].id, found[1].digest))
        return [attest(self.worker, Statement(subjects, self.stamped(p))) for p in predicates]

    def stamped(self, predicate: Predicate) -> Predicate:
        """With its time, as the worker records it, where its kind has one."""
        if getattr(predicate, "at", 0.0) is not None:
            return predicate
        self.clock += 1.0
        return replace(predicate, at=self.clock)  # type: ignore[call-arg]

    async def propose(self, delivery: Delivery) -> None:
        await self.report(delivery, Proposed(delivery.id, delivery.change, delivery.baseline))

    async def gate(self, delivery: Delivery, action: str) -> Outcome:
        """Ask the policies as the engine does, and keep the sign-offs."""
        outcome = await gate.perform(
            self.task(delivery, action), store=self.store, ledger=self.ledger, languages=self.languages
        )
        await self.keep(*(attest(self.worker, statement) for statement in outcome.statements))
        return outcome

    def task(self, delivery: Delivery, action: str) -> Task:
        return Task(
            delivery=delivery.id,
            intent=Intent(action, "gate", guards=action),
            change=delivery.change,
            config=ServiceConfig("catalog"),
            fence=Fence("catalog/production", 1, action),
            work=self.folder,
            log=self.folder / "log",
            artifact=delivery.artifact,
            release=delivery.release,
            baseline=delivery.baseline,
        )

    async def ship(self, delivery: Delivery) -> None:
        """All of a delivery that goes well."""
        await self.propose(delivery)
        await self.report(delivery, built(), suite_ran(), scanned())
        assert (await self.gate(delivery, "deploy")).state == "success"
        await self.report(delivery, Deployed(delivery.id, delivery.release, DATA, "none", 1), accepted())
        weights = (Weight(delivery.release.id, 1000),)
        if delivery.baseline:
            assert (await self.gate(delivery, "shift")).state == "success"
            await self.report(delivery, Shifted(delivery.id, weights, "canary"), look("PASS"))
        assert (await self.gate(delivery, "promote")).state == "success"
        await self.report(delivery, Promoted(delivery.id, delivery.release, DATA, delivery.baseline))
        await self.report(delivery, Ended(delivery.id, "success", "promoted", ""))

    async def roll_back(self, delivery: Delivery, target: Release) -> None:
        """By hand, to what was promoted before; *delivery* is of the pair that is live now."""
        await self.propose(delivery)
        back = Deployed(delivery.id, target, DATA, "none", 1)
        subjects = (Subject(target.id, target.digest),)
        await self.keep(attest(self.worker, Statement(subjects, back)))
        await self.report(delivery, RolledBack(delivery.id, delivery.release, target, "by hand"))
        await self.report(delivery, Ended(delivery.id, "success", "restored", ""))

    async def verify(self, trust: fsck.Trust | None = None) -> fsck.Report:
        return await fsck.verify(self.store, trust or self.trust, self.languages)


def suite_ran(passed: int = 3, failed: int = 0, suite: str = "unit") -> TestResult:
    names = tuple(f"{suite}-{number}" for number in range(failed))
    return TestResult("FAILED" if failed else "PASSED", suite, (), passed, failed, 0, names)


def scanned(critical: int = 0, tool: str = "secrets", origin: str = "platform") -> Findings:
    return Findings(tool, origin, critical, 0, 0, 0)  # type: ignore[arg-type]


def built() -> Provenance:
    definition = BuildDefinition("urn:x", {}, {"isolation": "none"}, ())
    return Provenance(definition, RunDetails(BuilderId("urn:penstock:builder:python"), BuildMetadata("1")))


def accepted(failed: int = 0, requests: int = 100, errors: int = 0, p95_ms: float = 5.0) -> Accepted:
    names = tuple(f"live-{number}" for number in range(failed))
    return Accepted(2, failed, names, requests, errors, p95_ms, 100.0)


def look(verdict: str, quiet: bool = False, requests: int = 500) -> Look:
    """No request failed. One that passes keeps what it was judged by."""
    old, new = Counters("r", 1.0, "e", 0, 0), Counters("r", 2.0, "e", requests, 0)
    found = Look(verdict, f"judged {verdict}", 1, 9, 300, quiet, old, new, old, new)  # type: ignore[arg-type]
    return judged_by(found, (5000, 500, requests, 0, 0, requests, 0, 0)) if verdict == "PASS" else found


def judged_by(look: Look, *spans: Row) -> Look:
    return replace(look, rule=Rule(10.0), spans=spans)
