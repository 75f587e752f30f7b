"""Performs one intent: looks its verb up, hands it its powers, gives back the outcome.

Called by the worker. It must not record anything: outcome and evidence are committed together by the
worker. Every verb that Penstock knows is a row in `VERBS`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from penstock.actions import baseline, build, deploy, experiment, promote, rollback, shift
from penstock.checks import acceptance, canary, scan, slo, suite, weigh
from penstock.core.fence import Fence
from penstock.core.pipeline import Facts, Gated, Intent, Pipeline
from penstock.core.release import EnvironmentData, Release
from penstock.engine import begin, chains, gate, scratch
from penstock.engine.callers import callers
from penstock.engine.journal import Delivery
from penstock.engine.logs import keeping, make_room
from penstock.errors import Broken
from penstock.ledger.log import Batch
from penstock.ports import Outcome, Source, Task, Transaction

VERBS: Mapping[str, Callable[..., Awaitable[Outcome]]] = {
    "begin": begin.perform,
    "gate": gate.perform,
    "build": build.perform,
    "suite": suite.perform,
    "scan": scan.perform,
    "deploy": deploy.perform,
    "acceptance": acceptance.perform,
    "baseline": baseline.perform,
    "measure": canary.measure,
    "shift": shift.perform,
    "look": canary.look,
    "expose": experiment.expose,
    "assign": experiment.assign,
    "weigh": weigh.perform,
    "slo": slo.perform,
    "promote": promote.perform,
    "rollback": rollback.undo,
    "restore": rollback.restore,
}

#: Verbs that read the checked-out commit.
NEED_TREE = ("build", "suite", "scan", "acceptance")
#: Verbs that may meet the dark releases of other deliveries.
MEET_OTHERS = ("deploy", "acceptance")


class Engine:
    """The verbs with the ports that they may ask for by name (``router=``, ``metrics=`` …).

    Each worker has a scratch folder of its own below *work*: one that was believed dead may still write.
    """

    def __init__(
        self, powers: Mapping[str, object], source: Source, work: Path, logs: Path, worker: str
    ) -> None:
        self._powers = powers
        self._source = source
        self._work = work
        self._logs = logs
        self._worker = worker
        self._turn = asyncio.Lock()
        self._room = asyncio.Semaphore(max(2, os.cpu_count() or 1))

    async def perform(self, delivery: Delivery, pipeline: Pipeline, intent: Intent) -> Outcome:
        """Do it. `Unavailable` may be tried again; other errors are final."""
        task = self.task(delivery, pipeline, intent)
        make_room(task.log)
        if intent.verb in MEET_OTHERS:
            task = replace(task, chain=await chains.chain(delivery, **self._granted(chains.chain)))
        if intent.verb == "deploy":
            task = replace(task, callers=await callers(delivery, **self._granted(callers)))
        if intent.verb not in NEED_TREE:
            return await self._do(task)
        # The project's own commands: no more side by side than there are processors.
        async with self._room:
            await self._check_out(task)
            return await self._do(task)

    async def ask(
        self, delivery: Delivery, pipeline: Pipeline, intent: Intent, tx: Transaction, batch: Batch
    ) -> Outcome | None:
        """What a gate says, in a transaction (see `gate.at_once`); None if it has to be performed."""
        task = self.task(delivery, pipeline, intent)
        return await gate.at_once(task, tx, batch, **self._granted(gate.at_once))

    async def _do(self, task: Task) -> Outcome:
        verb = VERBS[task.intent.verb]
        async with keeping(task.log):
            return await verb(task, **self._granted(verb))

    def forget(self, delivery: str, *, failed: bool = False) -> None:
        """Remove the scratch folder of a delivery that has ended, or keep it for a while if it *failed*."""
        scratch.end(self._work, delivery, failed=failed)

    def log_of(self, delivery: str, stage: str) -> Path:
        return self._logs.joinpath(delivery, f"{stage}.log")

    def _granted(self, verb: Callable[..., Any]) -> dict[str, Any]:
        names = _asked(verb)
        unknown = names - self._powers.keys()
        if unknown:
            known = ", ".join(sorted(self._powers))
            raise Broken(f"{verb.__module__} asks for {sorted(unknown)}; there are: {known}")
        return {name: self._powers[name] for name in names}

    def task(self, delivery: Delivery, pipeline: Pipeline, intent: Intent) -> Task:
        """All that an intent's verb may know of its delivery."""
        facts, header = delivery.facts, delivery.header
        trouble = facts.failed(pipeline)
        release, data = _about(delivery, intent)
        return Task(
            delivery=delivery.id,
            intent=intent,
            change=header.change,
            config=header.config,
            fence=Fence(delivery.scope, delivery.fence, f"{delivery.id}/{intent.key}"),
            work=self._work.joinpath(delivery.id, self._worker),
            log=self.log_of(delivery.id, intent.stage),
            source=header.source,
            data=data,
            artifact=facts.artifact or header.artifact,
            release=release,
            baseline=facts.begun.baseline if facts.begun else None,
            measured=facts.measured,
            looked=facts.looked,
            experiment=header.experiment,
            variants=tuple(facts.variants.values()),
            weighed=facts.weighed,
            canary=pipeline.canary,
            reason=trouble.reason if trouble else facts.request,
            waits_until=_waits_until(facts, intent),
        )

    async def _check_out(self, task: Task) -> None:
        complete = task.work / "tree.complete"
        async with self._turn:  # stages of one delivery run side by side
            if task.source is None or complete.exists():
                return
            shutil.rmtree(task.tree, ignore_errors=True)
            task.tree.mkdir(parents=True)
            await self._source.checkout(task.source, task.tree)
            complete.touch()


def _about(delivery: Delivery, intent: Intent) -> tuple[Release | None, EnvironmentData | None]:
    """The pair that an intent is about, as far as it is known: of an experiment, its stage's variant."""
    facts = delivery.facts
    if facts.begun is None:
        return None, delivery.header.data
    own = [dealt.data for dealt in facts.begun.variants if dealt.name == intent.target]
    if own:
        return facts.variants.get(intent.target), own[0]
    return facts.release, facts.begun.data


@functools.cache
def _asked(verb: Callable[..., Any]) -> frozenset[str]:
    """The names of the ports that a verb asks for."""
    parameters = inspect.signature(verb).parameters.values()
    return frozenset(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)


def _waits_until(facts: Facts, intent: Intent) -> float:
    """The deadline that the first gate of this stage set; asking again does not move it."""
    asked = (r.detail for r in facts.records if r.intent.stage == intent.stage)
    return next((d.waits_until for d in asked if isinstance(d, Gated) and d.waits_until), 0.0)
