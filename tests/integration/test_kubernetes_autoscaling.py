"""Copies that follow load in a cluster: what Penstock asks for are bounds, and the cluster's own autoscaler
sets the number between them.

Pods are stubs; how much they have to do is said by hand.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fakes.cluster import rules
from penstock.adapters._kubernetes import Access
from penstock.adapters.kubernetes import Kubernetes, Settings
from penstock.core.fence import Fence
from penstock.core.workload import Later, Limits, Placement, Scaling, Workload
from penstock.errors import Conflict, Refused, Unavailable
from penstock.testing.kubernetes import Behaviour, FakeCluster, Fault

SECONDS = 20.0
ARTIFACT = "sha256:" + "1" * 64
FENCE = Fence("web/production", 3, "key")
#: Of four copies for everybody, load may make eight; a dark release begins with one.
WORKLOAD = Workload(
    "web",
    "production",
    "web-1",
    ARTIFACT,
    ("serve",),
    replicas=4,
    begin_with=1,
    drain_seconds=0.1,
    limits=Limits(cpus=0.5),
    scaling=Scaling(most=8, cpu=70, idle_seconds=1.0),
)
DEPLOYMENT, AUTOSCALER = "deployments.apps", "horizontalpodautoscalers.autoscaling"


@dataclass
class World:
    cluster: FakeCluster
    platform: Kubernetes
    another: Kubernetes

    def named(self, full: str) -> dict[str, Any]:
        found = self.cluster.api.storage.get(full, "default", "web-1")
        assert found is not None, f"no {full}"
        return found

    @property
    def copies(self) -> int:
        return int(self.named(DEPLOYMENT)["spec"]["replicas"])

    @property
    def bounds(self) -> tuple[int, int]:
        spec = self.named(AUTOSCALER)["spec"]
        return spec["minReplicas"], spec["maxReplicas"]

    async def place(self) -> Placement:
        await self.platform.place(WORKLOAD, fence=FENCE)
        return await self.able(1)

    async def scale(self, replicas: int, *then: Later) -> Placement:
        return await self.platform.scale("web-1", replicas, fence=FENCE, then=then)

    async def able(self, count: int) -> Placement:
        async with asyncio.timeout(SECONDS):
            while True:
                found = await self.platform.observe("web-1")
                if found and (found.able, len(found.instances)) == (count, count):
                    return found
                await asyncio.sleep(0.01)

    async def tended(self, wanted: Callable[[], bool]) -> None:
        """By two workers, until it is as wanted."""
        async with asyncio.timeout(SECONDS):
            while not wanted():
                await asyncio.gather(self.platform.tend(), self.another.tend())
                await asyncio.sleep(0.01)

    async def quiet(self) -> None:
        """Whoever looks after it has nothing to ask the API for."""
        await self.cluster.settled()
        await self.tended(lambda: True)
        async with asyncio.timeout(SECONDS):
            while True:  # news may be on its way yet
                before = len(self.cluster.asked)
                for _ in range(10):
                    await self.platform.tend()
                    await asyncio.sleep(0)
                if len(self.cluster.asked) == before:
                    return


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with FakeCluster(speed=20.0) as cluster:
        cluster.kubelet.behaviours[f"registry.test/shop/web@{ARTIFACT}"] = Behaviour()
        files = [cluster.kubeconfig(tmp_path)]
        both = (Kubernetes(Settings("registry.test/shop"), Access.of_files(files)) for _ in range(2))
        world = World(cluster, *both)
        yield world
        await world.platform.close()
        await world.another.close()


# --- bounds ----------------------------------------------------------------------------------------------


async def test_the_bounds_are_those_of_its_share_of_the_users(world: World) -> None:
    placed = await world.place()
    assert (placed.asked, placed.most, placed.elastic) == (1, 8, True)
    assert world.bounds == (1, 2)
    for asked, most in ((2, 4), (3, 6), (4, 8), (5, 8)):
        scaled = await world.scale(asked)
        assert (scaled.asked, len(scaled.instances), world.bounds) == (asked, asked, (asked, most))
        await world.able(asked)
    owner = world.named(DEPLOYMENT)["metadata"]
    (reference,) = world.named(AUTOSCALER)["metadata"]["ownerReferences"]
    assert (reference["name"], reference["uid"]) == (owner["name"], owner["uid"])


async def test_load_adds_copies_and_takes_them_away_between_the_bounds(world: World) -> None:
    await world.place()
    await world.scale(2)
    await world.able(2)
    world.cluster.give_work("web-1", 1.5)  # 75 percent each: a tenth more than 70 is as good as that
    await world.cluster.settled()
    assert world.copies == 2
    world.cluster.give_work("web-1", 2.8)
    await world.able(4)
    world.cluster.give_work("web-1", 0.2)
    fewer = await world.able(2)
    assert (fewer.asked, world.bounds) == (2, (2, 4))


async def test_copies_that_load_has_added_are_not_taken_away_by_what_is_asked_for(world: World) -> None:
    """Of the three that serve, two are asked for from now on; until load says so, all stay."""
    await world.place()
    await world.scale(3)
    await world.able(3)
    world.cluster.give_work("web-1", 2.1)
    scaled = await world.scale(2)
    assert (scaled.asked, len(scaled.instances), world.bounds) == (2, 3, (2, 4))
    await world.cluster.settled()
    assert world.copies == 3


async def test_what_is_asked_for_again_is_written_once(world: World) -> None:
    await world.place()
    await world.scale(2)
    await world.able(2)
    await world.quiet()
    before = world.cluster.api.storage.version
    await world.scale(2)
    await world.platform.place(WORKLOAD, fence=FENCE)
    assert world.cluster.api.storage.version == before


async def test_none_is_none_whatever_the_load_and_one_that_is_asked_for_again_wakes_up(world: World) -> None:
    await world.place()
    await world.scale(3)
    await world.able(3)
    world.cluster.give_work("web-1", 9.0)
    none = await world.scale(0)
    assert none.instances == ()
    await world.cluster.settled()
    (state,) = world.named(AUTOSCALER)["status"]["conditions"]
    assert (world.copies, state["reason"]) == (0, "ScalingDisabled")
    world.cluster.give_work("web-1", 1.4)
    assert len((await world.scale(2)).instances) == 2
    await world.able(2)


async def test_where_nobody_measures_there_are_as_many_as_are_asked_for(world: World) -> None:
    await world.place()
    for asked in (4, 2):
        await world.scale(asked)
        await world.cluster.settled()
        assert world.copies == 4  # fewer are in the bounds of both
    (state,) = world.named(AUTOSCALER)["status"]["conditions"]
    assert (state["status"], state["reason"]) == ("False", "FailedGetContainerResourceMetric")
    await world.scale(1)
    await world.able(2)  # more than two are out of these


async def test_it_goes_with_the_release(world: World) -> None:
    await world.place()
    assert world.named(AUTOSCALER)
    await world.platform.remove("web-1", fence=FENCE)
    async with asyncio.timeout(SECONDS):
        while world.cluster.api.storage.get(AUTOSCALER, "default", "web-1"):
            await asyncio.sleep(0.01)


async def test_releases_that_do_not_follow_load_cost_nothing_more(world: World) -> None:
    await world.platform.place(replace(WORKLOAD, scaling=Scaling(most=8, in_flight=5)), fence=FENCE)
    await world.able(1)
    told = await world.scale(2)
    await world.quiet()
    assert told.advisory == ("scaling.in_flight",)
    assert not [one for one in world.cluster.asked if "scale" in one]


async def test_the_measure_that_a_cluster_goes_by_is_no_advice(world: World) -> None:
    assert (await world.place()).advisory == ()


# --- looking after ----------------------------------------------------------------------------------------


async def test_what_was_asked_for_later_lowers_the_bounds_and_then_ends_it(world: World) -> None:
    await world.place()
    await world.scale(4)
    await world.able(4)
    world.cluster.give_work("web-1", 2.8)
    await world.scale(4, Later(3, 0.0), Later(0, 3600.0))
    await world.tended(lambda: world.bounds == (3, 6))
    assert world.copies == 4, "load has the last word between the bounds"
    await world.scale(4, Later(0, 0.0))
    await world.tended(lambda: world.copies == 0)
    await world.able(0)


async def test_one_that_is_gone_or_says_something_else_is_mended_once(world: World) -> None:
    await world.place()
    await world.scale(2)
    kind = world.cluster.api.named(AUTOSCALER)
    assert kind
    world.cluster.api.delete(kind, "default", "web-1")
    await world.tended(lambda: bool(world.cluster.api.storage.get(AUTOSCALER, "default", "web-1")))
    assert world.bounds == (2, 4)
    old = world.named(AUTOSCALER)
    spec = {**old["spec"], "minReplicas": 1, "maxReplicas": 2}
    stale = {key: old[key] for key in ("apiVersion", "kind")} | {"spec": spec}
    metadata = {key: old["metadata"][key] for key in ("name", "namespace", "labels", "ownerReferences")}
    world.cluster.api.apply(kind, {**stale, "metadata": metadata}, manager="penstock")  # who came too late
    await world.tended(lambda: world.bounds == (2, 4))
    await world.quiet()


async def test_bounds_that_somebody_else_has_set_are_told_and_stay_until_he_lets_go(world: World) -> None:
    await world.place()
    world.cluster.edit(AUTOSCALER, "web-1", {"spec": {"maxReplicas": 20}}, manager="kubectl-edit")
    await world.quiet()
    assert world.bounds == (1, 20)
    with pytest.raises(Conflict, match=r"kubectl-edit changed \.spec\.maxReplicas, which Penstock sets"):
        await world.scale(2)
    assert world.bounds == (1, 20)
    await world.quiet()
    world.cluster.edit(AUTOSCALER, "web-1", {"spec": {"maxReplicas": 4}}, manager="kubectl-edit")
    await world.tended(lambda: world.bounds == (2, 4))
    await world.able(2)


async def test_an_autoscaler_that_is_not_ours_is_left_alone(world: World) -> None:
    kind = world.cluster.api.named(AUTOSCALER)
    assert kind
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web-1"}
    spec = {
        "scaleTargetRef": target,
        "maxReplicas": 3,
        "metrics": [{"type": "Resource", "resource": cpu}],
    }
    whole = {"apiVersion": kind.api_version, "kind": kind.kind, "spec": spec}
    metadata = {"name": "web-1", "namespace": "default"}
    world.cluster.api.create(kind, {**whole, "metadata": metadata}, manager="kubectl")
    with pytest.raises(Conflict, match="a HorizontalPodAutoscaler web-1 that is not ours"):
        await world.platform.place(WORKLOAD, fence=FENCE)
    assert world.bounds == (1, 3)


# --- fences, and what breaks off --------------------------------------------------------------------------


async def test_a_lower_fence_changes_nothing(world: World) -> None:
    await world.place()
    await world.scale(2)
    for count in (0, 1, 4):
        with pytest.raises(Conflict, match="fence 2 is stale: 3 has been seen"):
            await world.another.scale("web-1", count, fence=replace(FENCE, number=2))
    assert (world.copies, world.bounds) == (2, (2, 4))


WRITES = ["patch deployments", "patch horizontalpodautoscalers", "update deployments/scale"]


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("how", ["cut", "cut-after"])
@pytest.mark.parametrize("count", [0, 4])
async def test_what_broke_off_is_taken_up_again(world: World, write: str, how: str, count: int) -> None:
    """The connection ends before, or after, one of the writes; the same call then comes to its end."""
    await world.place()
    before = 0 if count else 2  # from none, no autoscaler is faster
    await world.scale(before)
    await world.able(before)
    verb, resource = write.split(" ")
    world.cluster.fail(Fault(verb, resource, how=how))  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match="does not answer"):
        await world.scale(count)
    found = await world.another.scale("web-1", count, fence=replace(FENCE, number=4))
    bounds = (4, 8) if count else (1, 1)
    assert (len(found.instances), found.asked, world.bounds) == (count, count, bounds)
    await world.able(count)


@pytest.mark.parametrize("write", WRITES)
async def test_who_looks_after_it_ends_what_another_began(world: World, write: str) -> None:
    """Whoever was to end the last copies, as their time had come, dies in the middle of it."""
    await world.place()
    await world.scale(2, Later(0, 0.0))
    verb, resource = write.split(" ")
    world.cluster.fail(Fault(verb, resource, how="cut"))
    with pytest.raises(Unavailable, match="does not answer"):
        await world.tended(lambda: False)
    await world.tended(lambda: (world.copies, world.bounds) == (0, (1, 1)))
    await world.able(0)


async def test_the_autoscaler_and_a_change_meet_and_both_are_made(world: World) -> None:
    await world.place()
    await world.scale(2)
    await world.able(2)
    moved = "the object has been modified"
    world.cluster.fail(Fault("update", "deployments/scale", status=409, message=moved))
    world.cluster.fail(Fault("patch", "horizontalpodautoscalers", status=409, message=moved))
    assert (await world.scale(3)).asked == 3
    assert (world.copies, world.bounds) == (3, (3, 6))


# --- rights ----------------------------------------------------------------------------------------------


async def test_the_listed_rights_are_enough_and_one_that_is_missing_is_named(world: World) -> None:
    listed = rules("rbac.yaml")
    world.cluster.allow([rule for rule in listed if "horizontalpodautoscalers" not in rule["resources"]])
    right = r"create on horizontalpodautoscalers\.autoscaling in namespace default"
    with pytest.raises(Refused, match=right):
        await world.platform.place(WORKLOAD, fence=FENCE)
    world.cluster.allow(listed)
    await world.place()
    await world.scale(2)
    await world.scale(0)
    await world.quiet()
