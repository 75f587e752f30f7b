"""Steps as Jobs of a cluster: who ends what, and what is told of all that can keep one from running."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakes.cluster import DEPLOY, rules
from fakes.jobs import IMAGE, enclosing, jobs_of, ready_for_jobs
from penstock.adapters.bubblewrap import Bubblewrap
from penstock.adapters.kubernetes import steps
from penstock.adapters.kubernetes.jobs import KubernetesJobs
from penstock.adapters.kubernetes.steps import Settings
from penstock.core.fence import Fence
from penstock.core.workload import Mount, Step, StepResult
from penstock.errors import Conflict, Invalid, Refused, Unavailable
from penstock.ports import Sandbox
from penstock.testing.kubernetes import Behaviour, FakeCluster, Fault
from penstock.testing.kubernetes.finite import Inside
from penstock.testing.kubernetes.kinds import JOBS, NETWORK_POLICIES, PODS, QUOTAS

HEAD = {"apiVersion": "v1"}
RIGHTS = rules("rbac-steps.yaml")
#: Nobody waits long for what will not come.
SETTINGS = Settings(IMAGE, start_seconds=3.0, end_seconds=3.0)


@dataclass
class World:
    """A cluster, the worker of most tests, and a folder that a step may write to."""

    cluster: FakeCluster
    bubblewrap: Bubblewrap
    folder: Path
    stack: AsyncExitStack
    workers: list[KubernetesJobs] = field(default_factory=list)

    async def worker(self, settings: Settings = SETTINGS) -> KubernetesJobs:
        made = await self.stack.enter_async_context(jobs_of(self.cluster, self.folder, settings))
        self.workers.append(made)
        return made

    async def run(self, script: str, worker: KubernetesJobs | None = None, **more: Any) -> StepResult:
        sandbox = worker or (self.workers or [await self.worker()])[0]
        return await sandbox.run(self.step(script, **more), self.folder / "delivery-1" / "tests.log")

    def step(self, script: str, **more: Any) -> Step:
        mounts = (Mount(str(self.folder / "work"), "/work", writable=True),)
        return replace(Step(("/bin/sh", "-c", script), "/work", mounts, seconds=30.0), **more)

    @property
    def left(self) -> list[str]:
        return [value["metadata"]["name"] for kind in (JOBS, PODS) for value in self.cluster.api.all(kind)]


@pytest.fixture
async def world(sandbox: Sandbox, short_tmp: Path) -> AsyncIterator[World]:
    if not isinstance(sandbox, Bubblewrap):
        pytest.skip("the fake cluster encloses containers with bubblewrap, which does not work here")
    for name in ("work", "delivery-1"):
        (short_tmp / name).mkdir()
    (short_tmp / "work").chmod(0o777)
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(FakeCluster())
        ready_for_jobs(cluster, sandbox)
        yield World(cluster, sandbox, short_tmp, stack)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


def begun(world: World, script_says: str = "begun") -> Callable[[], bool]:
    """Whether the step has said so in its log."""
    log = world.folder / "delivery-1/tests.log"
    return lambda: log.exists() and script_says in log.read_text()


def fence(number: int) -> Fence:
    return Fence("web/production", number, "key")


# --- rights ------------------------------------------------------------------------------------------------


async def test_exactly_the_listed_rights_are_needed(world: World) -> None:
    world.cluster.allow(RIGHTS)
    first, second = await world.worker(), await world.worker()
    older = asyncio.create_task(world.run("echo begun; sleep 60", first))
    await until(begun(world))
    assert (await world.run("echo done", second)).tail == "done\n"
    with pytest.raises(Conflict):
        await older
    quota = {"metadata": {"name": "none", "namespace": "default"}, "spec": {"hard": {"pods": "0"}}}
    world.cluster.api.create(QUOTAS, {**HEAD, "kind": "ResourceQuota", **quota}, manager="kubectl")
    with pytest.raises(Unavailable, match="quota"):
        await world.run("true", second)
    assert world.cluster.rights.unused(RIGHTS) == set()


@pytest.mark.parametrize(
    ("resource", "said"),
    [("jobs", r"list on jobs\.batch"), ("pods/exec", "create on pods/exec"), ("pods/log", "get on pods/log")],
)
async def test_a_missing_right_is_named(world: World, resource: str, said: str) -> None:
    world.cluster.allow([rule for rule in RIGHTS if resource not in rule["resources"]])
    with pytest.raises(Refused, match=said) as raised:
        await world.run("true")
    assert raised.value.next_move
    assert world.left == []


# --- who ends what -----------------------------------------------------------------------------------------


async def test_a_cancelled_step_leaves_nothing(world: World) -> None:
    running = asyncio.create_task(world.run("echo begun; sleep 60"))
    await until(begun(world))
    assert len(world.left) == 2
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert world.left == []


async def test_a_step_that_is_cancelled_while_it_is_made_leaves_nothing(world: World) -> None:
    worker, asked = await world.worker(), asyncio.Event()
    await world.run("true", worker)
    running = asyncio.create_task(world.run("sleep 60", worker))

    async def cancel(what: str, moment: str) -> None:
        if (what, moment) == ("patch jobs", "after"):
            asked.set()
            running.cancel()

    world.cluster.at_write(cancel)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert asked.is_set()
    assert world.left == []


async def test_a_step_is_ended_by_whoever_takes_its_delivery_over(world: World) -> None:
    """At no time there are two: the second begins once the first is gone."""
    lost, heir = await world.worker(), await world.worker()
    first = asyncio.create_task(world.run("echo begun; sleep 60; echo x > late", lost, fence=fence(1)))
    await until(begun(world))
    most = 0

    async def count() -> None:
        nonlocal most
        while True:
            most = max(most, len(world.cluster.api.all(PODS)))
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    assert (await world.run("echo done", heir, fence=fence(2))).tail == "done\n"
    counting.cancel()
    with pytest.raises(Conflict, match="somebody else has ended it"):
        await first
    assert most == 1
    assert not (world.folder / "work/late").exists()
    assert world.left == []


async def test_who_was_taken_over_from_ends_nothing(world: World) -> None:
    lost, heir = await world.worker(), await world.worker()
    second = asyncio.create_task(world.run("echo begun; sleep 1; echo done", heir, fence=fence(2)))
    await until(begun(world))
    with pytest.raises(Conflict, match="fence 1 is stale: 2 has been seen"):
        await world.run("true", lost, fence=fence(1))
    assert (await second).exit_code == 0


async def test_a_job_that_is_not_ours_is_left_alone(world: World) -> None:
    name = steps.name_of(world.folder / "delivery-1/tests.log")
    theirs = steps.job(name, "", Step(("true",), "/"), SETTINGS, "default")
    theirs["metadata"]["labels"] = {}
    head = {"apiVersion": "batch/v1", "kind": "Job"}
    world.cluster.api.create(JOBS, {**head, **theirs}, manager="kubectl")
    with pytest.raises(Conflict, match="not ours") as raised:
        await world.run("true")
    assert "steps.namespace" in raised.value.next_move
    assert name in world.left


async def test_what_nobody_takes_away_the_cluster_does(world: World) -> None:
    """A worker that was lost leaves a Job that ends at its deadline, and is then collected."""
    world.cluster.kubelet.behaviours[IMAGE] = Behaviour()
    step = replace(Step(("true",), "/"), seconds=0.0)
    job = steps.job("step-lost", "", step, replace(SETTINGS, start_seconds=-299.0), "default")
    assert job["spec"]["activeDeadlineSeconds"] == 1
    job["spec"]["ttlSecondsAfterFinished"] = 5
    head = {"apiVersion": "batch/v1", "kind": "Job"}
    world.cluster.api.create(JOBS, {**head, **job}, manager="penstock")
    await until(lambda: any(name != "step-lost" for name in world.left))
    await until(lambda: world.left == [])


# --- files and words ---------------------------------------------------------------------------------------


async def test_large_files_come_and_go_as_they_are(world: World) -> None:
    data = os.urandom(20_000_000)
    (world.folder / "work/given").write_bytes(data)
    (world.folder / "work/given").chmod(0o755)
    result = await world.run(
        "cat given given > made; rm given; mkdir -p a/b; ln -s ../made a/link; echo x > a/b/c"
    )
    assert result.exit_code == 0
    made = (world.folder / "work/made").read_bytes()
    assert hashlib.sha256(made).digest() == hashlib.sha256(data + data).digest()
    assert not (world.folder / "work/given").exists()
    assert (world.folder / "work/a/link").readlink() == Path("../made")
    assert (world.folder / "work/a/b/c").read_text() == "x\n"


async def test_what_cannot_be_read_is_told_and_the_rest_comes_back(world: World) -> None:
    result = await world.run("echo x > made; echo y > closed; chmod 0 closed")
    assert (world.folder / "work/made").read_text() == "x\n"
    assert result.exit_code == 0
    assert not (world.folder / "work/closed").exists()
    assert "not all of its files could be taken back" in result.tail


async def test_a_connection_that_breaks_loses_and_doubles_no_word(world: World) -> None:
    running = asyncio.create_task(world.run("echo begun; sleep 1.5; echo more; sleep 0.5; echo end"))
    await until(begun(world))
    await world.cluster.disconnect()
    await world.cluster.reconnect()
    result = await running
    assert (result.exit_code, result.tail) == (0, "begun\nmore\nend\n")


async def test_neither_command_nor_secret_is_in_what_the_cluster_keeps(world: World) -> None:
    env = {"TOKEN": "sesame-open"}
    running = asyncio.create_task(world.run("echo begun $TOKEN; sleep 60", env=env, secrets=("sesame-open",)))
    await until(begun(world))
    kept = str(world.cluster.api.all(JOBS)) + str(world.cluster.api.all(PODS))
    running.cancel()
    assert "sesame-open" not in kept
    assert "sleep 60" not in kept
    assert "sesame" not in (world.folder / "delivery-1/tests.log").read_text()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_step_with_network_is_told_who_resolves_names(world: World) -> None:
    told = Path("/etc/resolv.conf")
    if not told.exists():
        pytest.skip("nobody resolves names on this machine")
    assert (await world.run("cat /etc/resolv.conf", network=True)).tail.strip() == told.read_text().strip()


async def test_a_step_without_network_reaches_nobody(world: World) -> None:
    """As the policy says that is installed beside the rights."""
    documents = yaml.safe_load_all((DEPLOY / "rbac-steps.yaml").read_text())
    for policy in (one for one in documents if one["kind"] == "NetworkPolicy"):
        policy["metadata"]["namespace"] = "default"
        world.cluster.api.create(NETWORK_POLICIES, policy, manager="kubectl")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        script = f"python3 -c \"import socket; socket.create_connection(('127.0.0.1', {port}), 3)\""
        assert (await world.run(script)).exit_code != 0
        assert (await world.run(script, network=True)).exit_code == 0


# --- what can keep a step from running ---------------------------------------------------------------------


async def test_an_image_that_is_not_there(world: World) -> None:
    world.cluster.kubelet.behaviours.clear()
    with pytest.raises(Invalid, match="cannot be pulled") as raised:
        await world.run("true")
    assert "steps" in raised.value.next_move
    assert world.left == []


async def test_an_image_without_tar(world: World) -> None:
    real = enclosing(world.bubblewrap)

    def enclose(inside: Inside) -> tuple[str, ...]:
        lacking = inside.argv[2:] and inside.argv[2].startswith("tar ")
        return real(
            replace(inside, argv=("/bin/sh", "-c", "echo tar: not found >&2; exit 127"))
            if lacking
            else inside
        )

    world.cluster.run_jobs(enclose)
    with pytest.raises(Invalid, match="tar: not found") as raised:
        await world.run("true")
    assert "steps.image" in raised.value.next_move


async def test_no_node_has_room(world: World) -> None:
    full = "0/2 nodes are available: 2 Insufficient memory."
    world.cluster.kubelet.behaviours[IMAGE] = Behaviour(trouble="unschedulable", message=full)
    with pytest.raises(Unavailable, match="Insufficient memory") as raised:
        await world.run("true")
    assert "steps in the cluster's file" in raised.value.next_move
    assert world.left == []


async def test_a_quota_that_is_used_up(world: World) -> None:
    quota = {"metadata": {"name": "none", "namespace": "default"}, "spec": {"hard": {"pods": "0"}}}
    world.cluster.api.create(QUOTAS, {**HEAD, "kind": "ResourceQuota", **quota}, manager="kubectl")
    with pytest.raises(Unavailable, match="quota of namespace default is used up") as raised:
        await world.run("true")
    assert "kubectl describe quota" in raised.value.next_move
    assert world.left == []


async def test_a_node_that_is_lost(world: World) -> None:
    running = asyncio.create_task(world.run("echo begun; sleep 60"))
    await until(begun(world))
    (pod,) = world.cluster.api.all(PODS)
    world.cluster.kubelet.lose(pod["spec"]["nodeName"])
    with pytest.raises(Unavailable, match="is not heard of") as raised:
        await running
    assert "kubectl describe node" in raised.value.next_move


async def test_a_step_that_uses_too_much_memory(world: World) -> None:
    worker = await world.worker(replace(SETTINGS, memory_mb=80))
    script = "python3 -c 'x = bytearray(300_000_000); import time; time.sleep(30)'"
    result = await world.run(script, worker)
    assert result.exit_code == 137
    assert "out of memory: a step may use 80 MB: steps.memory_mb" in result.tail


async def test_an_api_that_is_away_is_told(world: World) -> None:
    worker = await world.worker()
    await world.run("true", worker)
    world.cluster.fail(Fault("create", "", times=9))
    world.cluster.fail(Fault("patch", "jobs", times=9))
    with pytest.raises(Unavailable, match="on demand"):
        await world.run("true", worker)


async def test_only_folders_can_be_written_to(world: World) -> None:
    (world.folder / "file").write_text("x")
    mounts = (Mount(str(world.folder / "file"), "/app/file", writable=True),)
    with pytest.raises(Invalid, match="only folders"):
        await world.run("true", mounts=mounts)
    assert world.left == []
