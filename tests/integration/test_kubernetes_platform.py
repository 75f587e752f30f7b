"""What the Kubernetes platform makes of a cluster's troubles, its rights and other people's hands.

Pods are stubs here; `contracts.test_platform` runs real ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fakes.cluster import rules
from penstock.adapters._kubernetes import Access
from penstock.adapters.kubernetes import Kubernetes, Settings
from penstock.core.fence import Fence
from penstock.core.workload import Later, Limits, Liveness, Phase, Placement, Scaling, Workload
from penstock.errors import Conflict, Invalid, PenstockError, Refused, Unavailable
from penstock.testing.kubernetes import Behaviour, FakeCluster, Fault
from penstock.testing.kubernetes.kinds import PODS

SECONDS = 20.0
ARTIFACT = "sha256:" + "1" * 64
IMAGE = f"registry.test/shop/web@{ARTIFACT}"
RIGHTS = rules("rbac.yaml")
#: What a cluster makes itself, and we never touch.
ITS_OWN = {"replicasets.apps", "pods", "endpointslices.discovery.k8s.io", "events"}

WORKLOAD = Workload(
    service="web",
    environment="production",
    release="web-1",
    artifact=ARTIFACT,
    command=("serve",),
    env={"COLOUR": "blue", "DATABASE": "postgres://app:sesame-open@db"},
    secrets=("sesame-open",),
    calls=("price-list",),
    health_path="/health",
    start_seconds=1.0,
    liveness=Liveness("/live"),
    drain_seconds=1.0,
    limits=Limits(memory_mb=100, cpus=0.25),
)


def fence(number: int = 1, scope: str = "web/production") -> Fence:
    return Fence(scope, number, "key")


@dataclass
class World:
    cluster: FakeCluster
    folder: Path
    platform: Kubernetes

    def another(self) -> Kubernetes:
        """Another worker's, which knows nothing yet."""
        access = Access.of_files([self.cluster.kubeconfig(self.folder)])
        return Kubernetes(Settings("registry.test/shop"), access)

    async def until(self, wanted: Callable[[Placement], bool], release: str = "web-1") -> Placement:
        found = await self.platform.observe(release)
        async with asyncio.timeout(SECONDS):
            while found is None or not wanted(found):
                await asyncio.sleep(0.01)
                found = await self.platform.observe(release)
        return found

    def named(self, full: str, name: str) -> dict[str, object]:
        found = self.cluster.api.storage.get(full, "default", name)
        assert found is not None, f"no {full} {name}"
        return found

    def left(self) -> set[tuple[str, str]]:
        """What is there, by kind and name, but for what the cluster made."""
        found = ((full, one["metadata"]["name"]) for full, one in self.cluster.api.storage.kinds())
        return {(full, name) for full, name in found if full not in ITS_OWN}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with FakeCluster(speed=20.0) as cluster:
        cluster.kubelet.behaviours[IMAGE] = Behaviour()
        access = Access.of_files([cluster.kubeconfig(tmp_path)])
        world = World(cluster, tmp_path, Kubernetes(Settings("registry.test/shop"), access))
        yield world
        await world.platform.close()


# --- rights ----------------------------------------------------------------------------------------------


async def everything(world: World) -> None:
    """All that a delivery, its end and a worker's restart ask of a cluster."""
    await world.platform.place(WORKLOAD, fence=fence())
    await world.until(lambda p: p.ready)
    await world.platform.scale("web-1", 2, fence=fence())
    await world.until(lambda p: p.able == 2)
    await world.platform.logs("web-1", 5)
    await world.platform.scale("web-1", 1, fence=fence())
    second = world.another()
    try:
        assert await second.logs("web-1", 5) == ("hello",)
    finally:
        await second.close()
    (pod,) = world.cluster.api.all(world.cluster.api.named("pods"), "default")  # type: ignore[arg-type]
    world.cluster.kubelet.end_container("default", pod["metadata"]["name"], 137)
    await world.until(lambda p: p.ready and p.instances[0].restarts == 1)
    await world.platform.remove("web-1", fence=fence())


AUTOSCALER = {
    "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web-2"},
    "maxReplicas": 2,
    "metrics": [
        {
            "type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 9}},
        }
    ],
}


async def following_load(world: World) -> None:
    """Where an earlier release of its name is about to go."""
    labels = {"app.kubernetes.io/managed-by": "penstock"}
    make(world, "horizontalpodautoscalers.autoscaling", "web-2", labels, spec=AUTOSCALER)
    workload = replace(WORKLOAD, release="web-2", scaling=Scaling(most=4, cpu=50))
    await world.platform.place(workload, fence=fence())
    await world.platform.scale("web-2", 2, fence=fence())
    await world.platform.scale("web-2", 0, fence=fence())
    await world.platform.remove("web-2", fence=fence())


FULL = ("services", "configmaps", "secrets", "poddisruptionbudgets.policy")


def make(world: World, full: str, name: str, labels: dict[str, str], **rest: object) -> None:
    """As somebody else makes it."""
    kind = world.cluster.api.named(full)
    assert kind is not None
    metadata = {"name": name, "namespace": "default", "labels": labels}
    value = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **rest}
    world.cluster.api.create(kind, value, manager="kubectl")


async def test_the_listed_rights_are_enough_and_none_is_listed_in_vain(world: World) -> None:
    world.cluster.allow(RIGHTS)
    await everything(world)
    await following_load(world)
    world.cluster.kubelet.behaviours[IMAGE] = Behaviour(life="crash")
    for full in FULL:  # a release that was removed and is placed again at once meets what is about to go
        make(world, full, "web-1", {"app.kubernetes.io/managed-by": "penstock"})
    await world.platform.place(WORKLOAD, fence=fence())
    await world.until(lambda p: p.failed)
    await world.platform.place(WORKLOAD, fence=fence())  # a new start
    await world.platform.remove("web-1", fence=fence())
    assert world.cluster.rights.unused(RIGHTS) == set()


async def test_a_right_that_is_missing_is_named(world: World) -> None:
    world.cluster.allow([rule for rule in RIGHTS if "endpointslices" not in rule["resources"]])
    with pytest.raises(Refused, match=r"list on endpointslices\.discovery\.k8s\.io in namespace default"):
        await world.platform.place(WORKLOAD, fence=fence())
    world.cluster.allow(RIGHTS)  # it was granted meanwhile
    await world.platform.place(WORKLOAD, fence=fence())


# --- what is made, and what is left -----------------------------------------------------------------------


async def test_a_copy_that_goes_by_itself_while_it_is_told_to_is_gone(world: World) -> None:
    """An API takes a change of what is not there for something new, and new pods we have no right to make."""
    world.cluster.allow(RIGHTS)
    await world.platform.place(replace(WORKLOAD, replicas=2), fence=fence())
    await world.until(lambda p: [one.phase for one in p.instances] == [Phase.READY] * 2)

    lost: list[str] = []

    async def lose(what: str, moment: str) -> None:
        if (what, moment) == ("patch pods", "before") and not lost:
            lost.append(what)
            for pod in world.cluster.api.all(PODS, "default"):
                world.cluster.api.delete(PODS, "default", pod["metadata"]["name"], grace=0)

    world.cluster.at_write(lose)
    await world.platform.scale("web-1", 1, fence=fence())
    assert (await world.until(lambda p: [one.phase for one in p.instances] == [Phase.READY])).asked == 1
    assert lost


async def test_what_is_made_goes_with_the_release(world: World) -> None:
    await world.platform.place(WORKLOAD, fence=fence())
    await world.until(lambda p: p.ready)
    names = {"deployments.apps", "services", "configmaps", "secrets", "poddisruptionbudgets.policy"}
    beside = {("serviceaccounts", "web"), ("services", "web-1-preview")}
    assert world.left() == {*((full, "web-1") for full in names), *beside}
    for full, name in world.left():
        assert "finalizers" not in world.named(full, name)["metadata"]  # type: ignore[operator]
    await world.platform.remove("web-1", fence=fence())
    async with asyncio.timeout(SECONDS):
        while world.left() != {("serviceaccounts", "web")}:
            await asyncio.sleep(0.01)


async def test_secrets_are_in_the_secret_alone(world: World) -> None:
    await world.platform.place(WORKLOAD, fence=fence())
    for full, name in world.left() - {("secrets", "web-1")}:
        assert "sesame" not in str(world.named(full, name))
    container = world.named("deployments.apps", "web-1")["spec"]["template"]["spec"]["containers"][0]  # type: ignore[index]
    sources = {entry["name"]: next(iter(entry.get("valueFrom", {"value": ""}))) for entry in container["env"]}
    assert sources["DATABASE"] == "secretKeyRef"
    assert sources["COLOUR"] == "configMapKeyRef"


@pytest.mark.parametrize("at", ["serviceaccounts", "services", "configmaps", "secrets", "deployments"])
@pytest.mark.parametrize("how", ["cut", "cut-after"])
async def test_what_broke_off_is_taken_up_again(world: World, at: str, how: str) -> None:
    """The connection ends before, or after, one of the writes; the same call then completes the release."""
    world.cluster.fail(Fault("patch", at, how=how))  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match="does not answer"):
        await world.platform.place(WORKLOAD, fence=fence())
    second = world.another()
    await second.place(WORKLOAD, fence=fence(2))
    await world.until(lambda p: p.ready)
    await second.close()
    assert len(world.left()) == 7


async def test_a_name_that_a_cluster_cannot_hold_is_refused_before_anything_is_made(world: World) -> None:
    with pytest.raises(Invalid, match="cannot be the name of a Kubernetes Service"):
        await world.platform.place(replace(WORKLOAD, release="1-web"), fence=fence())
    assert world.left() == set()


# --- fences and other hands -------------------------------------------------------------------------------


async def test_a_lower_fence_changes_nothing(world: World) -> None:
    await world.platform.place(WORKLOAD, fence=fence(5))
    await world.until(lambda p: p.ready)
    second = world.another()
    for stale in (
        second.place(WORKLOAD, fence=fence(4)),
        second.scale("web-1", 3, fence=fence(4)),
        second.remove("web-1", fence=fence(4)),
    ):
        with pytest.raises(Conflict, match="fence 4 is stale: 5 has been seen"):
            await stale
    with pytest.raises(Conflict, match="belongs to web/production"):
        await second.scale("web-1", 3, fence=fence(9, "cart/production"))
    await second.close()
    assert (await world.until(lambda p: p.ready)).able == 1


async def test_a_change_meets_the_clusters_own_and_is_made_all_the_same(world: World) -> None:
    await world.platform.place(WORKLOAD, fence=fence())
    world.cluster.fail(Fault("patch", "deployments", status=409, message="the object has been modified"))
    assert (await world.platform.scale("web-1", 2, fence=fence(), then=(Later(1, 60.0),))).asked == 2


async def test_a_number_that_somebody_else_has_set_is_told_and_stays(world: World) -> None:
    await world.platform.place(WORKLOAD, fence=fence())
    await world.until(lambda p: p.ready)
    world.cluster.edit("deployments.apps", "web-1", {"spec": {"replicas": 3}}, manager="kubectl-scale")
    with pytest.raises(Conflict, match=r"kubectl-scale changed \.spec\.replicas"):
        await world.platform.scale("web-1", 2, fence=fence())
    assert (await world.until(lambda p: p.able == 3)).able == 3


async def test_a_deployment_that_is_not_ours_is_left_alone(world: World) -> None:
    labels = {"app": "theirs"}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "a", "image": IMAGE}]}}
    spec = {"selector": {"matchLabels": labels}, "template": pod}
    make(world, "deployments.apps", "web-1", {}, spec=spec)
    with pytest.raises(Conflict, match="not ours"):
        await world.platform.place(WORKLOAD, fence=fence())
    with pytest.raises(Conflict, match="not ours"):
        await world.platform.remove("web-1", fence=fence())
    assert await world.platform.observe("web-1") is None


async def test_a_secret_that_is_not_ours_is_left_alone(world: World) -> None:
    make(world, "secrets", "web-1", {}, stringData={"theirs": "yes"})
    with pytest.raises(Conflict, match="a Secret web-1 that is not ours"):
        await world.platform.place(WORKLOAD, fence=fence())
    assert world.named("secrets", "web-1")["stringData"] == {"theirs": "yes"}


# --- troubles ---------------------------------------------------------------------------------------------


async def failing(world: World, behaviour: Behaviour) -> Placement:
    world.cluster.kubelet.behaviours[IMAGE] = behaviour
    await world.platform.place(WORKLOAD, fence=fence())
    return await world.until(lambda p: p.failed)


async def test_an_image_that_is_not_there_fails_at_once_with_the_next_move(world: World) -> None:
    failed = await failing(world, Behaviour(trouble="image-pull"))
    assert f"the image {IMAGE} of pod web-1-" in failed.reason
    assert "cannot be pulled" in failed.reason
    assert "next: push it under the configured prefix" in failed.reason


async def test_a_crash_loop_fails_with_its_last_words(world: World) -> None:
    failed = await failing(
        world, Behaviour(life="crash", exit_code=4, output=("no database, no sesame-open",))
    )
    assert failed.reason == "ended with exit code 4; its output:\nno database, no ***"
    assert failed.crash_looping
    assert failed.instances[0].exit_code == 4


async def test_no_room_is_told_with_what_the_scheduler_says(world: World) -> None:
    failed = await failing(
        world, Behaviour(trouble="unschedulable", message="0/2 nodes: 2 Insufficient memory.")
    )
    assert failed.reason.startswith("not ready after 1 s: no node takes pod web-1-")
    assert "2 Insufficient memory" in failed.reason
    assert "next: ask for less (limits in penstock.yaml)" in failed.reason


async def test_what_never_is_ready_says_what_it_wrote(world: World) -> None:
    failed = await failing(world, Behaviour(life="deaf", output=("listening on 127.0.0.1",)))
    assert failed.reason == "not ready after 1 s; its output:\nlistening on 127.0.0.1"


async def test_a_used_up_quota_is_told_while_it_waits_and_mended_when_raised(world: World) -> None:
    make(world, "resourcequotas", "small", {}, spec={"hard": {"pods": "1"}})
    await world.platform.place(replace(WORKLOAD, replicas=2), fence=fence())
    waiting = await world.until(lambda p: p.able == 1 and bool(p.reason))
    assert "the quota of namespace default is used up" in waiting.reason
    assert "next: kubectl describe quota -n default" in waiting.reason
    assert [instance.phase for instance in waiting.instances] == [Phase.READY, Phase.STARTING]
    world.cluster.edit("resourcequotas", "small", {"spec": {"hard": {"pods": "2"}}})
    assert (await world.until(lambda p: p.able == 2)).reason == ""


async def test_a_node_that_is_lost_is_named_and_another_copy_comes(world: World) -> None:
    await world.platform.place(WORKLOAD, fence=fence())
    ready = await world.until(lambda p: p.ready)
    (pod,) = world.cluster.api.all(world.cluster.api.named("pods"), "default")  # type: ignore[arg-type]
    node = pod["spec"]["nodeName"]
    world.cluster.kubelet.lose(node, evict=False)
    lost = await world.until(lambda p: not p.able)
    assert lost.reason.startswith(f"node {node}, which runs pod {pod['metadata']['name']}, is not heard of")
    assert not lost.failed, "what once served is not given up"
    world.cluster.kubelet.lose(node)
    again = await world.until(lambda p: p.ready)
    assert again.instances[0].address != ready.instances[0].address


async def test_an_api_that_is_away_is_told_and_the_picture_comes_back(world: World) -> None:
    await world.platform.place(WORKLOAD, fence=fence())
    await world.until(lambda p: p.ready)
    await world.cluster.disconnect()
    with pytest.raises(Unavailable, match="does not answer"):
        await world.until(lambda _: False)
    await world.cluster.reconnect()
    async with asyncio.timeout(SECONDS):
        while not await quiet(world.platform.observe("web-1")):
            await asyncio.sleep(0.01)


async def test_nothing_is_polled(world: World) -> None:
    await world.platform.place(WORKLOAD, fence=fence())
    await world.until(lambda p: p.ready)
    before = len(world.cluster.asked)
    for _ in range(200):
        await world.platform.observe("web-1")
    assert len(world.cluster.asked) == before


async def quiet(asking: Awaitable[Placement | None]) -> Placement | None:
    """None too while it cannot be told."""
    try:
        return await asking
    except PenstockError:
        return None
