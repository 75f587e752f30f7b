"""A fake cluster in a process of its own, so that its work is not taken for Penstock's.

    python -m parts.cluster FOLDER [--releases N]

serves until its standard input ends, with a kubeconfig in FOLDER, and prints how many requests there were for
each line that it reads. Pods are stubs that are ready at once, whatever their image. With *releases* there
are so many, alike, one pod each, and nobody looks after them: the controllers of the fake look at everything
after each change, which is a cost of theirs alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from penstock.adapters._kubernetes import Access, Client
from penstock.adapters.gateway_api import Attached, GatewayApi
from penstock.adapters.kubernetes import Kubernetes, Settings
from penstock.core.fence import Fence
from penstock.core.traffic import TrafficState
from penstock.core.workload import Workload
from penstock.testing.kubernetes import Behaviour, FakeCluster, Object, server
from penstock.testing.kubernetes.gateway import ROUTES, use_gateway
from penstock.testing.kubernetes.kinds import DEPLOYMENTS, PODS, SERVICES, SLICES, FakeKind

#: How much faster than a real node's the clock of probes runs.
SPEED = 10.0
#: A real API tells a watch once a minute that nothing has happened.
BOOKMARK_SECONDS = 60.0
ATTACHED = Attached("public", "default")
ARTIFACT = "sha256:" + "1" * 64


@dataclass(frozen=True)
class Drivers:
    """What a worker drives a cluster with. *client* is the router's."""

    platform: Kubernetes
    router: GatewayApi
    client: Client


@contextlib.asynccontextmanager
async def drivers(kubeconfig: Path) -> AsyncIterator[Drivers]:
    access = Access.of_files([kubeconfig])
    client, platform = Client(access), Kubernetes(Settings("registry.test"), access)
    router = GatewayApi(client, ATTACHED)
    try:
        yield Drivers(platform, router, client)
    finally:
        await platform.close()
        await router.close()


# --- from outside ----------------------------------------------------------------------------------------


class Served:
    """A running one, seen from the process that measures."""

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        self.kubeconfig = folder / "kubeconfig"
        self._process = process
        self._usage = psutil.Process(process.pid)

    @property
    def cpu(self) -> float:
        """Seconds of processor time so far."""
        used = self._usage.cpu_times()
        return used.user + used.system

    def asked(self) -> Counter[str]:
        """Requests so far, by "verb resource"."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return Counter(json.loads(self._process.stdout.readline()))


@contextlib.contextmanager
def served(folder: Path, *, releases: int = 0) -> Iterator[Served]:
    command = [sys.executable, "-m", "parts.cluster", str(folder), "--releases", str(releases)]
    where, pipe = Path(__file__).parents[1], subprocess.PIPE
    with subprocess.Popen(command, cwd=where, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("the fake cluster did not come up")
        yield Served(folder, process)
        assert process.stdin is not None
        process.stdin.close()


# --- inside ----------------------------------------------------------------------------------------------


async def pull(_image: str, _folder: Path) -> Behaviour:
    return Behaviour()


async def serve(folder: Path, releases: int) -> None:
    server.BOOKMARK_SECONDS = BOOKMARK_SECONDS
    cluster = FakeCluster(speed=SPEED)
    cluster.kubelet.pull = pull
    use_gateway(cluster)
    if releases:
        await cluster.reconnect()  # an API, and no controllers behind it
        for kind, value in await alike(folder, releases):
            cluster.api.storage.put(kind.full, value)
        await told(cluster, folder)
        await cluster.disconnect()
    else:
        async with cluster:
            await told(cluster, folder)


async def told(cluster: FakeCluster, folder: Path) -> None:
    cluster.kubeconfig(folder)
    print("ready", flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(Counter(cluster.asked)), flush=True)


async def alike(folder: Path, count: int) -> list[tuple[FakeKind, Object]]:
    """The objects of *count* releases, as a cluster has those of one that was really placed and led to."""
    made: list[tuple[FakeKind, Object]] = []
    async with FakeCluster(speed=SPEED) as cluster:
        cluster.kubelet.pull = pull
        use_gateway(cluster)
        async with drivers(cluster.kubeconfig(folder)) as ours:
            await placed(ours)
        await cluster.settled()
        kinds = (DEPLOYMENTS, PODS, SERVICES, SLICES, ROUTES)
        texts = [(kind, json.dumps(value)) for kind in kinds for value in cluster.api.all(kind)]
    uids = {json.loads(text)["metadata"]["uid"] for _, text in texts}
    for number in range(count):
        for kind, text in texts:
            own = text.replace("web-1", f"web-{number}").replace(
                '"web.production"', f'"web-{number}.production"'
            )
            for uid in uids:  # others refer to it
                own = own.replace(uid, f"{uid}-{number}")
            made.append((kind, json.loads(own)))
    return made


async def placed(ours: Drivers) -> None:
    workload = Workload("web", "production", "web-1", ARTIFACT, ("serve",), {"COLOUR": "blue"})
    fence = Fence("web/production", 1, "key")
    found = await ours.platform.place(workload, fence=fence)
    while not found.ready:
        await asyncio.sleep(0.01)
        found = await ours.platform.observe("web-1") or found
    state = TrafficState("web", "production")
    await ours.router.apply(state.exposing(found.backend), fence=fence)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--releases", type=int, default=0)
    given = parser.parse_args()
    asyncio.run(serve(given.folder, given.releases))


if __name__ == "__main__":
    main()
