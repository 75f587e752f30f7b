"""The node agent counts copies by itself, between what was asked for and what load needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.node import agent_at
from fakes.platform import FakePlatform
from fakes.router import FakeRouter
from penstock.core.fence import Fence
from penstock.core.traffic import TrafficPlan, Weight
from penstock.core.workload import Scaling, Workload
from penstock.errors import Conflict
from penstock.node.client import NodeClient, NodePlatform, NodeRouter

SCOPE = "web/production"
FENCE = Fence(SCOPE, 5, "key")


@pytest.fixture
def platform() -> FakePlatform:
    return FakePlatform()


@pytest.fixture
def router() -> FakeRouter:
    return FakeRouter()


@pytest.fixture
async def client(short_tmp: Path, platform: FakePlatform, router: FakeRouter) -> AsyncIterator[NodeClient]:
    async with agent_at(short_tmp / "n", platform, router) as client:
        yield client


WORKLOAD = Workload(
    "web", "production", "web-1", "sha256:1", ("serve",), scaling=Scaling(most=3, in_flight=5)
)


async def elastic(node: NodePlatform, traffic: NodeRouter, router: FakeRouter) -> str:
    """A release that load may add copies to has all users; the address of its first copy."""
    placed = await node.place(WORKLOAD, fence=FENCE)
    router.up |= {f"unix:/fake/web-1/{number}" for number in range(3)}
    plan = TrafficPlan("web", "production", (placed.backend,), (Weight("web-1", 1000),))
    await traffic.apply(plan, fence=FENCE)
    async with asyncio.timeout(30):
        while not placed.ready:
            await asyncio.sleep(0.05)
            placed = await node.observe("web-1") or placed
    return placed.backend.addresses[0]


async def test_copies_follow_load_while_nobody_calls(client: NodeClient, router: FakeRouter) -> None:
    node, traffic = NodePlatform(client), NodeRouter(client)
    router.active[await elastic(node, traffic, router)] = 6
    async with asyncio.timeout(30):
        while len((await traffic.read("web", "production")).backends[0].backend.addresses) < 2:
            await asyncio.sleep(0.05)
    with pytest.raises(Conflict, match="4 is stale: 5"):
        await node.scale("web-1", 1, fence=Fence(SCOPE, 4, "key"))
    assert router.fences[-1] == Fence(SCOPE, 5, "scaling")


async def test_nobody_counts_copies_once_everything_was_told_to_stop(
    client: NodeClient, router: FakeRouter, platform: FakePlatform
) -> None:
    node, traffic = NodePlatform(client), NodeRouter(client)
    first = await elastic(node, traffic, router)
    await client.stop_everything()
    router.active[first] = 6
    # For longer than it takes to look twice: the agent looks at what it tends, too.
    tended = router.tended
    async with asyncio.timeout(30):
        while router.tended < tended + 12:
            await asyncio.sleep(0.05)
    found = await platform.observe("web-1")
    assert found is not None
    assert len(found.instances) == 1
    await traffic.apply((await traffic.read("web", "production")).settling("web-1"), fence=FENCE)
    async with asyncio.timeout(30):
        while len(found.instances) < 2:
            await asyncio.sleep(0.05)
            found = await platform.observe("web-1") or found
