"""What is said when a cluster is not well: the table of ``docs/reference/cluster-troubles.md``, all of it,
done to the fake cluster while a release is placed, users are led, and a step is run."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from contracts.router import Subject
from contracts.test_router_cluster import ClusterWorld, over_gateway, over_istio
from fakes.cluster import rules
from fakes.jobs import IMAGE as STEP_IMAGE
from fakes.jobs import jobs_of, ready_for_jobs
from penstock.adapters._kubernetes import Access
from penstock.adapters.bubblewrap import Bubblewrap
from penstock.adapters.kubernetes import Kubernetes, Settings, life, steps
from penstock.adapters.kubernetes.jobs import KubernetesJobs
from penstock.core.fence import Fence
from penstock.core.traffic import TrafficState, Weight
from penstock.core.workload import Placement, Step, Workload
from penstock.errors import PenstockError, Unavailable
from penstock.ports import Sandbox
from penstock.testing.kubernetes import Behaviour, FakeCluster, Fault
from penstock.testing.kubernetes.kinds import PODS, QUOTAS, SLICES

DOCUMENT = Path(__file__).parents[2] / "docs/reference/cluster-troubles.md"
LINES = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| ")]
ROWS = [tuple(cell.strip() for cell in line.split("|")[1:-1]) for line in LINES[1:]]

FENCE = Fence("web/production", 1, "key")
IMAGE = "registry.test/shop/web@sha256:" + "1" * 64
WORKLOAD = Workload("web", "production", "web-1", IMAGE.rpartition("@")[2], ("serve",), start_seconds=1.0)
SECONDS = 20.0


class Asking:
    """Whoever asks something of *cluster*; *made* is what is written, as the API calls it."""

    cluster: FakeCluster
    made: str

    async def attempt(self) -> tuple[str, str]:
        """What becomes of it, as the table has it, and what is said."""
        raise NotImplementedError

    async def before(self) -> None:
        """What has to be there before there can be trouble of some kinds."""

    async def begun(self) -> None:
        """Return once its attempt has a pod, if it has one."""

    def theirs(self) -> tuple[str, dict[str, Any]]:
        """The name of what it makes, and what somebody else could have made under it."""
        raise NotImplementedError


POD = {"metadata": {"labels": {"app": "theirs"}}, "spec": {"containers": [{"name": "a", "image": IMAGE}]}}


class Release(Asking):
    made = "deployments.apps"

    def __init__(self, cluster: FakeCluster, platform: Kubernetes) -> None:
        self.cluster, self._platform = cluster, platform
        self._there = False
        cluster.kubelet.behaviours[IMAGE] = Behaviour()

    async def before(self) -> None:
        await self._platform.place(WORKLOAD, fence=FENCE)
        await self._until(lambda placement: placement.ready)
        self._there = True

    async def attempt(self) -> tuple[str, str]:
        if self._there:
            await self._platform.scale("web-1", 2, fence=FENCE)
        else:
            await self._platform.place(WORKLOAD, fence=FENCE)
        found = await self._until(lambda p: p.ready or p.failed or bool(p.lacks))
        if found.lacks:  # as an action that placed it says then
            what, _, move = found.reason.partition("; next: ")
            raise Unavailable(what, where=found.release, next_move=move)
        return "fails" if found.failed else "goes on", found.reason

    async def _until(self, wanted: Callable[[Placement], bool]) -> Placement:
        async with asyncio.timeout(SECONDS):
            while True:
                found = await self._platform.observe("web-1")
                if found is not None and wanted(found):
                    return found
                await asyncio.sleep(0.01)

    def theirs(self) -> tuple[str, dict[str, Any]]:
        return "web-1", {"selector": {"matchLabels": POD["metadata"]["labels"]}, "template": POD}


class Users(Asking):
    def __init__(self, cluster: FakeCluster, subject: Subject, world: ClusterWorld) -> None:
        self.cluster, self._subject, self._world = cluster, subject, world
        self.made = subject.router.kind.full  # type: ignore[attr-defined]
        self._state: TrafficState | None = None

    async def before(self) -> None:
        self._state = await self._subject.serving("web-1", "web-2")

    async def attempt(self) -> tuple[str, str]:
        if self._state is None:
            await self._subject.exposed("web-1")
        else:
            await self._subject.apply(self._state.shifting(Weight("web-1", 900), Weight("web-2", 100)))
        return "goes on", ""

    def theirs(self) -> tuple[str, dict[str, Any]]:
        answer = {"directResponse": {"status": 503}}
        istio = {"hosts": ["web"], "http": [answer]}
        return "web.production", istio if "istio" in self.made else {"rules": [{"name": "theirs"}]}


class Running(Asking):
    made = "jobs.batch"

    def __init__(self, cluster: FakeCluster, sandbox: KubernetesJobs, folder: Path) -> None:
        self.cluster, self._sandbox = cluster, sandbox
        self.log = folder / "delivery-1/tests.log"

    async def attempt(self) -> tuple[str, str]:
        step = Step(("/bin/sh", "-c", "echo begun; sleep 0.3"), "/", seconds=SECONDS, fence=FENCE)
        result = await self._sandbox.run(step, self.log)
        assert (result.exit_code, result.tail) == (0, "begun\n")
        return "goes on", ""

    def theirs(self) -> tuple[str, dict[str, Any]]:
        pod = {**POD, "spec": {**POD["spec"], "restartPolicy": "Never"}}
        return steps.name_of(self.log), {"backoffLimit": 0, "template": pod}

    async def begun(self) -> None:
        async with asyncio.timeout(SECONDS):
            while not (self.log.exists() and "begun" in self.log.read_text()):
                await asyncio.sleep(0.01)


# --- troubles ---------------------------------------------------------------------------------------------

#: Done before the attempt; what is returned is done beside it.
Trouble = Callable[[Asking], Awaitable[Awaitable[None] | None]]


def answered(status: int, message: str = "on demand", **more: Any) -> Trouble:
    """Every write is answered so."""

    async def make(asking: Asking) -> None:
        plural = asking.made.partition(".")[0]
        fault = Fault("patch", plural, status=status, message=message, times=99, **more)
        asking.cluster.fail(fault)

    return make


def there(trouble: Trouble) -> Trouble:
    """The same to something that is there already."""

    async def make(asking: Asking) -> Awaitable[None] | None:
        await asking.before()
        return await trouble(asking)

    return make


async def away(asking: Asking) -> None:
    await asking.cluster.disconnect()


async def forgotten(asking: Asking) -> None:
    asking.cluster.fail(Fault("watch", "", status=410, how="break", times=3))


async def edited(asking: Asking) -> None:
    name = {"deployments.apps": "web-1"}.get(asking.made, "web.production")
    kind = asking.cluster.api.named(asking.made)
    assert kind is not None
    spec = asking.cluster.api.get(kind, "default", name)["spec"]
    many = {"rules": spec.get("rules"), "http": spec.get("http")}
    field = next((field for field, value in many.items() if value), "replicas")
    value = [*many[field][:-1]] if many.get(field) else 3
    asking.cluster.edit(asking.made, name, {"spec": {field: value}}, manager="kubectl-edit")


async def taken(asking: Asking) -> None:
    kind = asking.cluster.api.named(asking.made)
    assert kind is not None
    name, spec = asking.theirs()
    head = {"apiVersion": kind.api_version, "kind": kind.kind}
    metadata = {"name": name, "namespace": "default"}
    asking.cluster.api.create(kind, {**head, "metadata": metadata, "spec": spec}, manager="helm")


async def account_taken(asking: Asking) -> None:
    kind = asking.cluster.api.named("serviceaccounts")
    assert kind is not None
    metadata = {"name": "web", "namespace": "default"}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
    asking.cluster.api.create(kind, account, manager="helm")


async def no_pods(asking: Asking) -> None:
    head = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": "default"}}
    asking.cluster.api.create(QUOTAS, {**head, "spec": {"hard": {"pods": "0"}}}, manager="kubectl")


def behaving(behaviour: Behaviour) -> Trouble:
    async def make(asking: Asking) -> None:
        asking.cluster.kubelet.behaviours.update({IMAGE: behaviour, STEP_IMAGE: behaviour})

    return make


async def node_lost(asking: Asking) -> Awaitable[None]:
    await asking.before()

    async def lose() -> None:
        await asking.begun()
        pod, *_ = asking.cluster.api.all(PODS)
        asking.cluster.kubelet.lose(pod["spec"]["nodeName"], evict=asking.made == Running.made)

    return lose()


async def not_ready(asking: Asking) -> None:
    (endpoint,) = asking.cluster.api.get(SLICES, "default", "web-2-1")["endpoints"]
    late = {"endpoints": [{**endpoint, "conditions": {"ready": False}}]}
    asking.cluster.edit(SLICES.full, "web-2-1", late)


async def unserved(asking: Asking) -> None:
    asking.cluster.api.unserve(asking.made)


async def homeless(asking: Asking) -> None:
    asking.cluster.api.namespaces.discard("default")


async def forbidden(asking: Asking) -> None:
    everything = (f"rbac{kind}.yaml" for kind in ("", "-steps", "-gateway-api", "-istio"))
    granted = [rule for name in everything for rule in rules(name)]
    plural = asking.made.partition(".")[0]
    asking.cluster.allow([rule for rule in granted if plural not in rule["resources"]])


QUOTA = (
    'configmaps "x" is forbidden: exceeded quota: small, requested: count=1, used: count=1, limited: count=1'
)
MODIFIED = "the object has been modified; please apply your changes to the latest version"
TROUBLES: dict[str, Trouble] = {
    "the API cannot be reached": away,
    "429": answered(429, retry_after=60),
    "503": answered(503),
    "410 ends its watches": there(forgotten),
    "409: it is another version, each time": there(answered(409, MODIFIED)),
    "409: there is one each time": answered(409, MODIFIED),
    "409: somebody has set what Penstock sets": there(edited),
    "its name is taken": taken,
    "its account is somebody else's": account_taken,
    "the quota of objects is used up": answered(403, QUOTA),
    "the quota of pods is used up": no_pods,
    "its image cannot be pulled": behaving(Behaviour(trouble="image-pull")),
    "it ends again and again": behaving(Behaviour(life="crash", exit_code=4)),
    "no node has room": behaving(Behaviour(trouble="unschedulable", message="0/2 nodes are available")),
    "its node is lost": node_lost,
    "not all copies are ready": there(not_ready),
    "its kind is not known": unserved,
    "its namespace is not there": homeless,
    "a right is missing": forbidden,
    "our token is not accepted": answered(401, "Unauthorized"),
    "an admission rule says no": answered(403, 'admission webhook "x.example.org" denied the request: no'),
}


# --- the table ---------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a pod that does not come looks why at once."""
    monkeypatch.setattr(life, "LOOK_SECONDS", 0.2)


@contextlib.asynccontextmanager
async def opened(who: str, folder: Path, sandbox: Sandbox) -> AsyncIterator[list[Asking]]:
    """Users are led by both routers."""
    async with AsyncExitStack() as stack:
        if who == "users":
            ways = [
                await stack.enter_async_context(over(folder / over.__name__))
                for over in (over_gateway, over_istio)
            ]
            yield [Users(world.cluster, subject, world) for subject, world, _ in ways]
            return
        cluster = await stack.enter_async_context(FakeCluster(speed=20.0 if who == "a release" else 1.0))
        if who == "a release":
            access = Access.of_files([cluster.kubeconfig(folder)])
            platform = Kubernetes(Settings("registry.test/shop"), access)
            stack.push_async_callback(platform.close)
            yield [Release(cluster, platform)]
            return
        if not isinstance(sandbox, Bubblewrap):
            pytest.skip("the fake cluster encloses containers with bubblewrap, which does not work here")
        ready_for_jobs(cluster, sandbox)
        settings = steps.Settings(STEP_IMAGE, start_seconds=3.0, end_seconds=3.0)
        jobs = await stack.enter_async_context(jobs_of(cluster, folder, settings))
        yield [Running(cluster, jobs, folder)]


async def told(asking: Asking, trouble: Trouble) -> tuple[str, str, str]:
    """What it is, what is said, and the next move. An error names its object too."""
    beside = await trouble(asking)
    try:
        async with asyncio.timeout(SECONDS):
            (what, said), _ = await asyncio.gather(asking.attempt(), beside or asyncio.sleep(0))
    except PenstockError as error:
        return (error.word.capitalize() if error.where else "without its object"), error.what, error.next_move
    words, _, move = said.partition("; next: ")
    return what, words, move


@pytest.mark.parametrize(
    ("who", "what", "word", "words", "move"), ROWS, ids=[f"{row[0]}: {row[1]}" for row in ROWS]
)
async def test_a_cluster_that_is_not_well(
    short_tmp: Path, sandbox: Sandbox, who: str, what: str, word: str, words: str, move: str
) -> None:
    for name in ("over_gateway", "over_istio", "delivery-1"):
        (short_tmp / name).mkdir()
    async with opened(who, short_tmp, sandbox) as everybody:
        for asking in everybody:
            found, said, next_move = await told(asking, TROUBLES[what])
            assert found == word, said
            assert words in said
            assert move in next_move


def test_the_table_has_everything_that_can_happen_to_everybody() -> None:
    done = {(who, what) for who, what, *_ in ROWS}
    assert len(done) == len(ROWS)
    assert {what for _, what in done} == set(TROUBLES)
    cannot = {
        "users": {
            "409: there is one each time",
            "its account is somebody else's",
            "the quota of pods is used up",
            "its image cannot be pulled",
            "it ends again and again",
            "no node has room",
            "its node is lost",
            "its namespace is not there",
        },
        "a release": {"409: there is one each time", "not all copies are ready", "its kind is not known"},
        "a step": {
            "its account is somebody else's",
            "409: it is another version, each time",
            "409: somebody has set what Penstock sets",
            "it ends again and again",
            "not all copies are ready",
            "its kind is not known",
        },
    }
    wanted = {(who, what) for who in cannot for what in TROUBLES if what not in cannot[who]}
    assert done == wanted
