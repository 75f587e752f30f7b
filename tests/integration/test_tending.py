"""Surplus copies in a cluster, which whoever has a worker looks after: `Kubernetes.tend`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.adapters._kubernetes import Access
from penstock.adapters.kubernetes import Kubernetes
from penstock.adapters.kubernetes import Settings as Placing
from penstock.core.fence import Fence
from penstock.core.workload import Later, Workload
from penstock.errors import Broken, PenstockError, Unavailable
from penstock.testing.kubernetes import Behaviour, FakeCluster, Fault

ARTIFACT = "sha256:" + "1" * 64
FENCE = Fence("web/production", 3, "key")
WORKLOAD = Workload("web", "production", "web-1", ARTIFACT, ("serve",), replicas=3, drain_seconds=0.1)
SECONDS = 20.0


@pytest.fixture
async def fake() -> AsyncIterator[FakeCluster]:
    async with FakeCluster(speed=20.0) as fake:
        fake.kubelet.behaviours[f"registry.test/shop/web@{ARTIFACT}"] = Behaviour()
        yield fake


@pytest.fixture
async def workers(fake: FakeCluster, tmp_path: Path) -> AsyncIterator[tuple[Kubernetes, ...]]:
    """Two of them; `WORKLOAD` is placed, and both see its copies."""
    files = [fake.kubeconfig(tmp_path)]
    both = tuple(Kubernetes(Placing("registry.test/shop"), Access.of_files(files)) for _ in range(2))
    await both[0].place(WORKLOAD, fence=FENCE)
    for worker in both:
        await until_able(worker, 3)
    yield both
    for worker in both:
        await worker.close()


async def until_able(platform: Kubernetes, count: int) -> None:
    async with asyncio.timeout(SECONDS):
        while not (found := await platform.observe("web-1")) or (found.able, len(found.instances)) != (
            count,
            count,
        ):
            await asyncio.sleep(0.01)


async def until_unreadable(platform: Kubernetes, release: str) -> None:
    async with asyncio.timeout(SECONDS):
        with contextlib.suppress(Broken):
            while True:
                await platform.observe(release)
                await asyncio.sleep(0.01)


def replicas(fake: FakeCluster) -> int:
    found = fake.api.storage.get("deployments.apps", "default", "web-1")
    assert found is not None
    return int(found["spec"]["replicas"])


async def test_copies_go_once_fewer_are_asked_for_whoever_looks(
    fake: FakeCluster, workers: tuple[Kubernetes, ...]
) -> None:
    one, other = workers
    await one.scale("web-1", 3, fence=FENCE, then=(Later(1, 0.0), Later(0, 3600.0)))
    async with asyncio.timeout(SECONDS):
        while replicas(fake) == 3:
            await asyncio.gather(one.tend(), other.tend())
            await asyncio.sleep(0.02)
    await until_able(other, 1)
    left = await other.observe("web-1")
    assert left is not None
    assert (left.asked, [later.replicas for later in left.later]) == (1, [0])
    with pytest.raises(PenstockError, match="fence 2 is stale: 3 has been seen"):
        await other.scale("web-1", 3, fence=replace(FENCE, number=2))


async def test_nothing_is_asked_while_nothing_is_due(
    fake: FakeCluster, workers: tuple[Kubernetes, ...]
) -> None:
    one, _ = workers
    await one.scale("web-1", 3, fence=FENCE, then=(Later(1, 3600.0),))
    await fake.settled()
    before = len(fake.asked)
    for _ in range(50):
        await one.tend()
    assert len(fake.asked) == before


async def test_whoever_comes_second_leaves_it_and_comes_back(
    fake: FakeCluster, workers: tuple[Kubernetes, ...]
) -> None:
    one, _ = workers
    await one.scale("web-1", 3, fence=FENCE, then=(Later(1, 0.0),))
    fake.fail(Fault("patch", "deployments", status=409, message="the object has been modified"))
    await one.tend()
    assert replicas(fake) == 3
    fake.heal()
    fake.edit("deployments.apps", "web-1", {"metadata": {"labels": {"seen": "yes"}}})  # as whoever came first
    async with asyncio.timeout(SECONDS):
        while replicas(fake) != 1:
            await one.tend()
            await asyncio.sleep(0.01)


async def test_one_that_cannot_be_read_keeps_nobody_from_the_others(
    fake: FakeCluster, workers: tuple[Kubernetes, ...]
) -> None:
    one, _ = workers
    for name in ("web-0", "web-2"):  # they are looked at before web-1, and after it
        await one.place(replace(WORKLOAD, release=name), fence=FENCE)
        change = {"metadata": {"annotations": {"penstock.org/asked": "three"}}}
        fake.edit("deployments.apps", name, change)
        await until_unreadable(one, name)
    await one.scale("web-1", 3, fence=FENCE, then=(Later(1, 0.0),))
    with pytest.raises(Broken, match="next: put back what it held") as caught:
        await one.tend()
    assert replicas(fake) == 1
    for name in ("web-0", "web-2"):
        words = f"deployments.apps default/{name}: its annotation penstock.org/asked cannot be read"
        assert words in str(caught.value)


async def test_what_an_api_was_away_for_is_done_later(
    fake: FakeCluster, workers: tuple[Kubernetes, ...]
) -> None:
    one, _ = workers
    await one.scale("web-1", 3, fence=FENCE, then=(Later(1, 0.0),))
    await fake.settled()
    fake.fail(Fault("patch", "deployments"))
    with pytest.raises(Unavailable, match="on demand"):
        await one.tend()
    await one.tend()
    assert replicas(fake) == 1


async def test_a_number_that_somebody_else_has_set_is_asked_about_once(
    fake: FakeCluster, workers: tuple[Kubernetes, ...]
) -> None:
    one, _ = workers
    await one.place(WORKLOAD, fence=FENCE)
    await one.scale("web-1", 3, fence=FENCE, then=(Later(1, 0.0),))
    fake.edit("deployments.apps", "web-1", {"spec": {"replicas": 5}}, manager="kubectl-scale")
    await until_able(one, 5)
    await fake.settled()
    for _ in range(20):
        await one.tend()
        await asyncio.sleep(0.005)
    assert replicas(fake) == 5
    before = len(fake.asked)
    for _ in range(20):
        await one.tend()
    assert len(fake.asked) == before
