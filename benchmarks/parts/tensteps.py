"""A data folder whose pipelines have ten trivial steps, and its workers. Used by `benchmarks/engine.py`.

    python -m parts.tensteps HOME NAME [--lease SECONDS] [--command WORD…]

is a worker process for such a folder (store: ``PENSTOCK_STORE``), with a key of its own, until it is killed.
Everything is real but three things: the pipeline is given in the delivery's header instead of planned, its
release is made of nothing, and the verb ``suite`` is replaced (`plugged_in`) by one that runs a trivial
command through the adapters' `run_command` and gives one signed test result.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.adapters._commands import run_command
from penstock.bootstrap.control import open_languages, open_store
from penstock.bootstrap.home import Home
from penstock.bootstrap.identity import ORIGIN, WORKER, Keys, found, grant_worker, load_keys, publication
from penstock.bootstrap.loop import run
from penstock.config import ServiceConfig
from penstock.core.digest import digest
from penstock.core.evidence import Statement, Subject
from penstock.core.people import By
from penstock.core.pipeline import NO_CANARY, Pipeline, Stage, State
from penstock.core.predicates import TestResult
from penstock.core.release import Artifact, Change, EnvironmentData
from penstock.core.saying import spoken, statement_of
from penstock.core.workload import Step
from penstock.engine import performer
from penstock.engine.journal import Delivery, Header, Journal
from penstock.engine.performer import Engine
from penstock.engine.worker import Worker
from penstock.ledger.log import Ledger, attest
from penstock.ports import Outcome, Store, Task

STEPS = 10
ENVIRONMENT = "bench"
TRUE = ("/bin/true",)
NOTHING: Mapping[str, object] = {}
#: Name, action, when, else: the first gate has no evidence yet.
POLICIES = (
    ("bench-author", "deploy", "change.author != ''", "'nobody made it'"),
    ("bench-tests", "promote", "evidence.tests.failed == 0", "string(evidence.tests.failed) + ' failed'"),
)

#: The host command of a step.
Enclosing = Callable[[Step], tuple[str, ...]]


def bare(step: Step) -> tuple[str, ...]:
    return step.argv


# --- what is plugged into the engine ---------------------------------------------------------------------


def pipeline() -> Pipeline:
    """Ten steps in a row, each with a gate of its own."""
    stages = [Stage("begin", "begin")]
    for number in range(1, STEPS + 1):
        guards = "deploy" if number == 1 else "promote"
        stages.append(Stage(f"step-{number}", "suite", guards=guards, after=(stages[-1].name,)))
    return Pipeline("ten-steps", tuple(stages), NO_CANARY)


async def trivial(task: Task, /, *, argv: tuple[str, ...], enclosing: Enclosing) -> Outcome:
    """Run the command; say that it passed, about the release and its artifact."""
    assert task.release
    assert task.artifact
    step = Step(argv=argv, cwd="/")
    result = await run_command(step, enclosing(step), task.log)
    subjects = (
        Subject(task.release.id, task.release.digest),
        Subject(task.artifact.name, task.artifact.digest),
    )
    said = TestResult("PASSED", task.intent.stage, (), 1, 0, 0, ())
    state = State.FAILURE if result.exit_code else State.SUCCESS
    return Outcome(state, result.tail, (Statement(subjects, said),))


def plugged_in() -> None:
    """The one place where the engine is not itself: ``suite`` is trivial in this process."""
    performer.VERBS = {**performer.VERBS, "suite": trivial}


class Telling(Engine):
    """An engine that tells when a delivery has ended, and its scratch folder is gone."""

    def __init__(self, home: Home, worker: str, powers: dict[str, object]) -> None:
        plugged_in()
        nothing: Any = None  # no delivery here has a source
        super().__init__(powers, nothing, home.work, home.logs / "deliveries", worker)
        self._loop = asyncio.get_running_loop()
        self.ended = asyncio.Event()

    def forget(self, delivery: str, *, failed: bool = False) -> None:
        super().forget(delivery, failed=failed)
        self._loop.call_soon_threadsafe(self.ended.set)


# --- the folder ------------------------------------------------------------------------------------------


@dataclass
class World:
    home: Home
    keys: Keys
    store: Store
    ledger: Ledger
    journal: Journal
    engines: list[Telling] = field(default_factory=list)

    @classmethod
    async def open(cls, home: Home, *, worker: str = WORKER, lease: float = 10.0) -> World:
        """A data folder, founded if it is new, with the benchmark's policies in force."""
        home.create()
        keys, store = load_keys(home, worker), open_store(home)
        world = cls(home, keys, store, Ledger(store, keys.logs, ORIGIN), Journal(store, lease))
        await world.ledger.migrate()
        await world.journal.migrate()
        await found(store, world.ledger, keys, home)
        await grant_worker(store, world.ledger, keys, worker)
        await world._publish()
        return world

    async def _publish(self) -> None:
        async with self.store.transaction() as tx:
            authority = await self.ledger.authority(tx)
            new = [text for text in _texts() if json.loads(text)["policy"] not in authority.policies]
            now = max(await tx.now(), authority.latest["operator"] + 0.001)
            said = [publication(text, By("operator")) for text in new]
            statements = [statement_of(spoken(one, now + n / 1000)) for n, one in enumerate(said)]
            await self.ledger.append(tx, [attest(self.keys.operator, one) for one in statements])

    def worker(
        self,
        enclosing: Enclosing = bare,
        argv: tuple[str, ...] = TRUE,
        more: Mapping[str, object] = NOTHING,
    ) -> Worker:
        """*more* are powers that other verbs ask for."""
        powers: dict[str, object] = {
            "store": self.store,
            "ledger": self.ledger,
            "languages": open_languages(),
            "meters": {},
            "artifacts": None,
            "enclosing": enclosing,
            "argv": argv,
            **more,
        }
        self.engines.append(Telling(self.home, self.keys.worker.keyid[:8], powers))
        return Worker(self.store, self.journal, self.ledger, self.engines[-1], self.keys.worker)

    async def queue(self, deliveries: Iterable[str]) -> None:
        """Each for a service of its own; in one transaction."""
        async with self.store.transaction() as tx:
            for name in deliveries:
                await self.journal.create(tx, name, header(name))

    async def deliver(self, name: str) -> float:
        """Seconds from the trigger to the end, by the last worker that was made here."""
        ended = self.engines[-1].ended
        ended.clear()
        began = time.perf_counter()
        await self.queue([name])
        await ended.wait()
        seconds = time.perf_counter() - began
        found = await self.find(name)
        assert (found.state, len(found.records)) == ("success", 1 + 2 * STEPS), found.reason
        return seconds

    async def find(self, name: str) -> Delivery:
        async with self.store.transaction(write=False) as tx:
            return await self.journal.find(tx, name)


def header(delivery: str) -> Header:
    service = f"s-{delivery}"
    change = Change("code", service, ENVIRONMENT, "/repo", "1" * 40, "ada", "A change")
    artifact = Artifact(service, digest(delivery.encode()))
    data = EnvironmentData(service, ENVIRONMENT)
    return Header(change, ServiceConfig(service), None, artifact, data, 2, pipeline())


def _texts() -> list[str]:
    return [
        json.dumps(
            {
                "policy": name,
                "owner": "test-lead",
                "guards": [action],
                "environments": [ENVIRONMENT],
                "rules": [{"id": "rule", "when": when, "say": "'well'", "else": otherwise}],
            }
        )
        for name, action, when, otherwise in POLICIES
    ]


# --- a worker process ------------------------------------------------------------------------------------


async def _work(home: Home, name: str, lease: float, argv: tuple[str, ...]) -> None:
    world = await World.open(home, worker=f"worker-{name}", lease=lease)
    worker = world.worker(argv=argv)
    print(world.keys.worker.keyid, flush=True)
    await worker.run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path)
    parser.add_argument("name")
    parser.add_argument("--lease", type=float, default=10.0)
    parser.add_argument("--command", nargs="+", default=TRUE)
    given = parser.parse_args()
    run(_work(Home(given.home), given.name, given.lease, tuple(given.command)))


if __name__ == "__main__":
    main()
