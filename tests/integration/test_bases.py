"""What a release runs on in a cluster: a base by what it was built for, and what is said where there is none,
the cluster is too old for it, or its nodes cannot have it. Pods are stubs; `test_pulling` has real ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from penstock.adapters._kubernetes import Access
from penstock.adapters.kubernetes import Kubernetes, Settings
from penstock.config import ServiceConfig
from penstock.core.fence import Fence
from penstock.core.workload import Placement, Workload
from penstock.errors import Invalid
from penstock.ports import Image, Surplus
from penstock.testing.kubernetes import Behaviour, FakeCluster, Fault
from penstock.testing.kubernetes.kubelet import ARCHITECTURE

SECONDS = 20.0
BUILT = Image(("serve",), ServiceConfig("web"), abi="cp311", platform=f"linux/{ARCHITECTURE}")
ARTIFACT = "sha256:" + "1" * 64
IMAGE = f"registry.test/shop/web@{ARTIFACT}"
BASE = "registry.test/library/python@sha256:" + "2" * 64
PATCHED = "registry.test/library/python@sha256:" + "3" * 64
WORKLOAD = Workload("web", "production", "web-1", ARTIFACT, ("serve",), start_seconds=0.5, drain_seconds=0.1)
FENCE = Fence("web/production", 1, "key")


@dataclass
class Store:
    """Artifacts that are all alike, and where they were published."""

    image: Image = BUILT
    published: list[str] = field(default_factory=list)

    async def describe(self, artifact: str) -> Image:
        return self.image

    async def prune(self, keep: Collection[str], before: float, *, dry: bool = False) -> Surplus:
        raise NotImplementedError

    async def publish(self, service: str, artifact: str) -> str:
        self.published.append(artifact)
        return f"registry.test/shop/{service}@{artifact}"


@dataclass
class World:
    cluster: FakeCluster
    folder: Path
    store: Store

    @asynccontextmanager
    async def on(self, **bases: str) -> AsyncIterator[Kubernetes]:
        """The platform of a cluster's file that says so."""
        access = Access.of_files([self.cluster.kubeconfig(self.folder)])
        platform = Kubernetes(Settings(bases=bases), access, self.store, self.store)
        try:
            yield platform
        finally:
            await platform.close()

    @property
    def placed(self) -> list[str]:
        found = self.cluster.api.all(self.cluster.api.named("deployments.apps"))  # type: ignore[arg-type]
        return [deployment["metadata"]["name"] for deployment in found]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with FakeCluster(speed=20.0) as cluster:
        images = (IMAGE, BASE, PATCHED)
        cluster.kubelet.behaviours.update((image, Behaviour()) for image in images)
        yield World(cluster, tmp_path, Store())


async def until(
    platform: Kubernetes, wanted: Callable[[Placement], bool], release: str = "web-1"
) -> Placement:
    async with asyncio.timeout(SECONDS):
        while (found := await platform.observe(release)) is None or not wanted(found):
            await asyncio.sleep(0.01)
    return found


async def test_a_new_base_is_for_what_is_placed_from_then_on(world: World) -> None:
    second = replace(WORKLOAD, release="web-2")
    async with world.on(cp311=BASE) as before:
        await before.place(WORKLOAD, fence=FENCE)
        assert (await until(before, lambda p: p.ready)).base == BASE
    async with world.on(cp311=PATCHED) as after:
        await after.place(second, fence=FENCE)
        assert (await until(after, lambda p: p.ready, "web-2")).base == PATCHED
        assert (await after.place(WORKLOAD, fence=FENCE)).base == BASE, "as it was placed"
        assert (await after.scale("web-1", 2, fence=FENCE)).base == BASE
        await after.remove("web-1", fence=FENCE)
        await after.place(WORKLOAD, fence=FENCE)
        assert (await until(after, lambda p: p.ready)).base == PATCHED, "it was placed anew"


async def test_one_that_has_no_base_is_told_before_anything_is_sent_or_placed(world: World) -> None:
    async with world.on(node22=BASE) as platform:
        with pytest.raises(Invalid, match="it was built for cp311"):
            await platform.place(WORKLOAD, fence=FENCE)
    assert (world.store.published, world.placed) == ([], [])


async def test_a_cluster_that_does_not_know_image_volumes_is_told(world: World) -> None:
    world.cluster.api.image_volumes = "unknown"
    async with world.on(cp311=BASE) as platform:
        with pytest.raises(Invalid, match=r"needs Kubernetes 1\.35 .*unknown field") as caught:
            await platform.place(WORKLOAD, fence=FENCE)
        assert caught.value.where == "deployments.apps default/web-1"
        assert "bring the cluster to 1.35" in caught.value.next_move
        said = '.spec.template.spec.volumes[name="artifact"].image: field not declared in schema'
        world.cluster.fail(Fault("patch", "deployments", status=500, message=said))  # as others say it
        with pytest.raises(Invalid, match=r"needs Kubernetes 1\.35 .*field not declared"):
            await platform.place(WORKLOAD, fence=FENCE)
    assert world.placed == []


async def test_a_cluster_that_drops_them_without_a_word_is_told_and_keeps_nothing(world: World) -> None:
    world.cluster.api.image_volumes = "off"
    async with world.on(cp311=BASE) as platform:
        with pytest.raises(Invalid, match=r"needs Kubernetes 1\.35 .*has dropped the volume"):
            await platform.place(WORKLOAD, fence=FENCE)
        assert world.placed == []
        world.cluster.api.image_volumes = "on"
        await platform.place(WORKLOAD, fence=FENCE)
        await until(platform, lambda p: p.ready)
    async with world.on() as platform:  # what needs no base is none of its business
        world.cluster.api.image_volumes = "off"
        await platform.place(replace(WORKLOAD, release="web-2"), fence=FENCE)
        assert (await until(platform, lambda p: p.ready, "web-2")).base == ""


@pytest.mark.parametrize(
    ("missing", "move"),
    [(IMAGE, "push it under the configured prefix"), (BASE, "correct bases in the cluster's file")],
    ids=["artifact", "base"],
)
async def test_which_of_the_two_images_nodes_cannot_pull_is_told(
    world: World, missing: str, move: str
) -> None:
    del world.cluster.kubelet.behaviours[missing]
    async with world.on(cp311=BASE) as platform:
        await platform.place(WORKLOAD, fence=FENCE)
        found = await until(platform, lambda p: p.failed)
    assert f"the image {missing} of pod web-1-" in found.reason
    assert f"next: {move}" in found.reason


async def test_it_goes_to_nodes_that_can_run_it(world: World) -> None:
    world.store.image = replace(world.store.image, platform="linux/riscv64")
    async with world.on(cp311=BASE) as platform:
        await platform.place(WORKLOAD, fence=FENCE)
        found = await until(platform, lambda p: "no node takes" in p.reason)
    assert "didn't match Pod's node affinity/selector" in found.reason
    assert "it was built for linux/riscv64: give the cluster a node of that kind" in found.reason
