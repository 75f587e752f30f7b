"""A worker that delivers to a cluster. Used by `benchmarks/kubernetes.py`.

The engine, its ledger and its gates are real, and so are its actions and drivers; the evidence that its
policies ask for is that of one trivial step, as in `parts.tensteps`. Each delivery is the first of a service.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from parts.cluster import Drivers
from parts.delivering import Images
from parts.running import running
from parts.tensteps import World, bare, header
from penstock.bootstrap.home import Home
from penstock.core.pipeline import NO_CANARY, Pipeline, Stage

PIPELINE = Pipeline(
    "rollout",
    (
        Stage("begin", "begin"),
        Stage("tests", "suite", after=("begin",)),
        Stage("deploy", "deploy", guards="deploy", after=("tests",)),
        Stage("promote", "promote", guards="promote", after=("deploy",)),
    ),
    NO_CANARY,
)


async def delivered(folder: Path, ours: Drivers, count: int) -> float:
    """Seconds until one worker has delivered so many services, all queued at once."""
    world = await World.open(Home(folder))
    powers = {
        "platform": ours.platform,
        "router": ours.router,
        "artifacts": Images(),
        "journal": world.journal,
    }
    names = [f"d{number}" for number in range(count)]
    async with running(world.worker(bare, more=powers)):
        async with world.store.transaction() as tx:
            for name in names:
                await world.journal.create(tx, name, replace(header(name), pipeline=PIPELINE))
        spans = [await ended(world, name) for name in names]
    await world.store.close()
    return max(end for _, end in spans) - min(begin for begin, _ in spans)


async def ended(world: World, name: str) -> tuple[float, float]:
    """When it began and ended."""
    while not (found := await world.find(name)).ended:
        await asyncio.sleep(0.2)
    if found.state != "success":
        raise RuntimeError(f"{name}: {found.reason}")
    return found.records[0].began, found.records[-1].ended
