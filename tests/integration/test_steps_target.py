"""Where the cluster's file has steps, builds and checks run there: it is asked before, kept, and opened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fakes.cluster import rules
from fakes.jobs import IMAGE, ready_for_jobs
from penstock.adapters.bubblewrap import Bubblewrap
from penstock.adapters.kubernetes.jobs import KubernetesJobs
from penstock.bootstrap.home import IN_CLUSTER, Home, Settings
from penstock.bootstrap.target import check_cluster, open_target
from penstock.cluster import Steps
from penstock.clusterfile import load_cluster
from penstock.core.fence import Fence
from penstock.core.workload import Isolation, Step
from penstock.errors import Conflict, Invalid, Refused
from penstock.ports import Sandbox
from penstock.testing.kubernetes import FakeCluster
from penstock.testing.kubernetes.gateway import use_gateway
from penstock.testing.kubernetes.kinds import JOBS, PODS

STEPS = Steps(f"registry.test/steps@sha256:{'5' * 64}", namespace="steps", memory_mb=512)
TEXT = """\
kubeconfig: kubeconfig
images: {push: "http://127.0.0.1:1/shop"}
gateway: {name: public, host: "{service}.example.org"}
metrics: {prometheus: "http://127.0.0.1:1"}
"""


async def test_a_cluster_with_steps_is_where_they_run(tmp_path: Path, short_tmp: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(f'{TEXT}steps: {{image: "{STEPS.image}", namespace: steps, memory_mb: 512}}\n')
    home = Home(short_tmp)
    async with FakeCluster() as fake:
        fake.kubeconfig(tmp_path)
        home.keep(Settings(cluster=load_cluster(file), sandbox=IN_CLUSTER))
        assert home.settings.cluster is not None
        assert home.settings.cluster.steps == STEPS
        assert home.settings.sandbox_here == "bubblewrap"
        target = open_target(home)
        assert isinstance(target.sandbox, KubernetesJobs)
        await target.close()


async def test_a_right_that_is_missing_is_named(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(TEXT)
    async with FakeCluster() as fake:
        fake.kubeconfig(tmp_path)
        fake.allow([])
        cluster = load_cluster(file)
        with pytest.raises(Invalid, match="has no steps"):
            KubernetesJobs.of(cluster)
        sandbox = KubernetesJobs.of(replace(cluster, steps=STEPS))
        with pytest.raises(Refused, match=r"list on jobs\.batch in namespace steps"):
            await sandbox.check()
        await sandbox.close()


# --- an environment that is elsewhere ----------------------------------------------------------------------


@dataclass
class World:
    """The cluster of all environments, that of one, and a folder of an installation that uses both."""

    usual: FakeCluster
    us: FakeCluster
    home: Home
    stack: AsyncExitStack

    async def worker(self) -> Sandbox:
        target = open_target(self.home)
        self.stack.push_async_callback(target.close)
        assert target.sandbox is not None
        return target.sandbox

    async def run(self, worker: Sandbox, script: str, number: int, environment: str = "") -> str:
        """As a step of the acceptance stage; what it has written."""
        fence = Fence("web/us", number, "key")
        step = Step(("/bin/sh", "-c", script), "/", seconds=30.0, fence=fence, environment=environment)
        return (await worker.run(step, self.log)).tail

    async def begun(self, worker: Sandbox, number: int) -> asyncio.Task[str]:
        """A step that asks the environment, and has not ended when it has said so."""
        running = asyncio.create_task(self.run(worker, f"echo begun by {number}; sleep 60", number, "us"))
        async with asyncio.timeout(20):
            while not (self.log.exists() and f"begun by {number}" in self.log.read_text()):
                await asyncio.sleep(0.02)
        return running

    @property
    def log(self) -> Path:
        return self.home.path / "delivery-1/acceptance.log"

    @property
    def left(self) -> list[int]:
        """How many Jobs and pods are there, and how many elsewhere."""
        return [len(fake.api.all(JOBS) + fake.api.all(PODS)) for fake in (self.usual, self.us)]


@pytest.fixture
async def world(sandbox: Sandbox, tmp_path: Path, short_tmp: Path) -> AsyncIterator[World]:
    if not isinstance(sandbox, Bubblewrap):
        pytest.skip("the fake cluster encloses containers with bubblewrap, which does not work here")
    own = f"{{kubeconfig: us/kubeconfig, steps: {{image: '{IMAGE}', namespace: us-steps}}}}"
    steps = f"steps: {{image: '{IMAGE}'}}"
    (tmp_path / "cluster.yaml").write_text(f"{TEXT}{steps}\nenvironments: {{us: {own}}}\n")
    home = Home(short_tmp)
    async with AsyncExitStack() as stack:
        clusters = []
        for folder in (tmp_path, tmp_path / "us"):
            folder.mkdir(exist_ok=True)
            clusters.append(await stack.enter_async_context(FakeCluster()))
            clusters[-1].kubeconfig(folder)
            clusters[-1].api.namespaces.add("us-steps")
            ready_for_jobs(clusters[-1], sandbox)
            use_gateway(clusters[-1])
        home.keep(Settings(cluster=load_cluster(tmp_path / "cluster.yaml"), sandbox=IN_CLUSTER))
        yield World(clusters[0], clusters[1], home, stack)


async def test_only_steps_that_ask_an_environment_run_in_its_cluster(world: World) -> None:
    worker = await world.worker()
    assert worker.isolation == Isolation.CONTAINER
    assert await world.run(worker, "echo built", 1) == "built\n"
    assert await world.run(worker, "echo eu", 1, "eu") == "eu\n"
    assert "patch jobs" not in world.us.asked
    assert world.usual.asked.count("patch jobs") == 2
    assert await world.run(worker, "echo asked", 1, "us") == "asked\n"
    assert world.us.asked.count("patch jobs") == 1
    assert world.usual.asked.count("patch jobs") == 2
    assert world.left == [0, 0]


async def test_whoever_takes_a_delivery_over_ends_its_job_in_the_right_cluster(world: World) -> None:
    lost, heir = await world.worker(), await world.worker()
    first = await world.begun(lost, 1)
    assert world.left == [0, 2]
    (job,) = world.us.api.all(JOBS)
    assert job["metadata"]["namespace"] == "us-steps"
    assert await world.run(heir, "echo prepared", 2) == "prepared\n"
    assert await world.run(heir, "echo done", 2, "us") == "done\n"
    with pytest.raises(Conflict, match="somebody else has ended it"):
        await first
    second = await world.begun(heir, 2)
    with pytest.raises(Conflict, match="fence 1 is stale"):
        await world.run(lost, "true", 1, "us")
    assert world.left == [0, 2]
    second.cancel()
    await asyncio.wait([second])
    assert world.left == [0, 0]


async def test_what_keeps_an_environments_steps_from_running_is_told_with_its_name(world: World) -> None:
    cluster = world.home.settings.cluster
    assert cluster is not None
    await check_cluster(world.home, cluster)
    granted = [rule for name in ("rbac.yaml", "rbac-gateway-api.yaml") for rule in rules(name)]
    world.us.allow(granted)
    with pytest.raises(
        Refused, match=r"environment us: a right is missing: list on jobs\.batch in namespace us-steps"
    ) as raised:
        await check_cluster(world.home, cluster)
    assert raised.value.next_move
    world.us.allow(granted + rules("rbac-steps.yaml"))
    await check_cluster(world.home, cluster)
