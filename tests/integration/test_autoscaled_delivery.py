"""One delivery of a service that follows load in a cluster: what its bounds are while users move, and that
load never has the last word over them.

The actions and the platform are real; the cluster, whose pods are stubs, and the router are fakes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.copies import DATA, FENCE, NEW, STABLE, Scene
from penstock.actions._placing import workload
from penstock.adapters._kubernetes import Access, Client
from penstock.adapters._meshes.backends import look_up, state_of
from penstock.adapters.kubernetes import Kubernetes, Settings
from penstock.config import ServiceConfig
from penstock.core.pipeline import State
from penstock.core.release import Release
from penstock.core.scaleconfig import WarmConfig
from penstock.core.traffic import WHOLE, TrafficPlan, Weight
from penstock.core.workload import Limits, Scaling
from penstock.ports import Image
from penstock.testing.kubernetes import Behaviour, FakeCluster

SECONDS = 20.0
#: Four copies for everybody, eight at most.
CONFIG = ServiceConfig(
    service="shop",
    replicas=4,
    limits=Limits(cpus=0.5),
    scaling=Scaling(most=8, cpu=70, idle_seconds=1.0),
    warm=WarmConfig(bake_seconds=1e6),
    start_seconds=10.0,
    drain_seconds=0.1,
)


class Town(Scene):
    """The scene, whose platform is a cluster."""

    def __init__(self, cluster: FakeCluster, platform: Kubernetes, client: Client) -> None:
        super().__init__(CONFIG)
        self.cluster = cluster
        self.client = client
        self.platform = platform  # type: ignore[assignment]

    async def serving(self, copies: int) -> None:
        """The stable release, delivered before, has everybody."""
        asked = workload(STABLE, DATA, Image(("serve",), CONFIG))
        await self.platform.place(replace(asked, begin_with=copies), fence=FENCE)
        placement = await self.until_ready(STABLE)
        plan = TrafficPlan("shop", "production", (placement.backend,), (Weight(STABLE.id, WHOLE),))
        await self.router.apply(plan, fence=FENCE)

    def bounds(self, release: Release) -> tuple[int, int]:
        found = self.cluster.api.storage.get("horizontalpodautoscalers.autoscaling", "default", release.id)
        assert found is not None
        return found["spec"]["minReplicas"], found["spec"]["maxReplicas"]

    async def has(self, release: Release, copies: int) -> None:
        async with asyncio.timeout(SECONDS):
            while len((await self.until_ready(release)).instances) != copies:
                await asyncio.sleep(0.01)


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    async with FakeCluster(speed=20.0) as cluster:
        for release in (STABLE, NEW):
            cluster.kubelet.behaviours[f"registry.test/shop@{release.artifact}"] = Behaviour()
        access = Access.of_files([cluster.kubeconfig(tmp_path)])
        platform = Kubernetes(Settings("registry.test"), access)
        made = Town(cluster, platform, Client(access))
        tending = asyncio.create_task(made.tend())
        try:
            await made.serving(4)
            yield made
        finally:
            tending.cancel()
            await asyncio.gather(tending, return_exceptions=True)
            await made.client.close()
            await platform.close()


async def test_bounds_go_with_users_and_load_sets_the_copies_between_them(town: Town) -> None:
    town.cluster.give_work(STABLE.id, 4.2)
    await town.has(STABLE, 6)
    assert (await town.deploy()).state is State.SUCCESS
    assert (town.bounds(STABLE), town.bounds(NEW)) == ((4, 8), (1, 2))
    town.cluster.give_work(NEW.id, 0.7)
    for share, between in ((250, (2, 4)), (500, (3, 6))):  # of the six that serve everybody by now
        assert (await town.shift(share)).state is State.SUCCESS
        assert town.bounds(NEW) == between
    town.cluster.give_work(NEW.id, 3.5)
    await town.has(NEW, 5)

    assert (await town.promote()).state is State.SUCCESS
    got = [(share, ready) for release, share, ready in town.router.moves if release == NEW.id]
    assert all(ready * WHOLE >= 6 * share for share, ready in got), "copies go before users"
    assert (town.bounds(STABLE), town.bounds(NEW)) == ((6, 8), (8, 8)), "each holds what it has for a while"
    town.cluster.give_work(STABLE.id, 0.0)
    town.router.moves.clear()
    assert (await town.restore()).state is State.SUCCESS
    back = [(share, ready) for release, share, ready in town.router.moves if release == STABLE.id]
    assert back[-1] == (WHOLE, 8), "as many as serve everybody, before anybody comes back"


async def test_copies_that_load_has_taken_away_are_no_lack_to_the_router(town: Town) -> None:
    town.cluster.give_work(STABLE.id, 4.2)
    await town.has(STABLE, 6)
    six = (await town.placement(STABLE)).backend
    town.cluster.give_work(STABLE.id, 0.0)
    await town.has(STABLE, 4)
    await town.cluster.settled()
    known = await look_up(town.client, (STABLE.id,))
    led = state_of(six, known)
    assert (led.ready, led.total) == (4, 4)
    fixed = state_of(replace(six, elastic=False), known)
    assert (fixed.ready, fixed.total) == (4, 6), "where nothing takes copies away, some are lacking"
