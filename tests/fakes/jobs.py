"""A cluster whose Jobs run: each container in bubblewrap, which stands for an image with sh, tar, Python."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from penstock.adapters._kubernetes import Access
from penstock.adapters.bubblewrap import Bubblewrap
from penstock.adapters.kubernetes.jobs import KubernetesJobs
from penstock.adapters.kubernetes.steps import Settings
from penstock.core.workload import Mount, Step
from penstock.testing.kubernetes import Behaviour, FakeCluster
from penstock.testing.kubernetes.finite import Enclose, Inside

#: What a kubelet gives to every pod: without it no name is found, and no dependency installed.
NAMES = ("/etc/hosts", "/etc/resolv.conf")
IMAGE = f"registry.example/base/steps@sha256:{'5' * 64}"


def enclosing(bubblewrap: Bubblewrap) -> Enclose:
    """The network of a pod is this machine's: what bubblewrap adds to a step that has it is not the pod's."""

    def enclose(inside: Inside) -> tuple[str, ...]:
        mounts = tuple(Mount(source, target, writable) for source, target, writable in inside.mounts)
        if inside.network:
            mounts += tuple(Mount(str(Path(name).resolve()), name) for name in NAMES if Path(name).exists())
        command = bubblewrap.enclose(Step(inside.argv, "/", mounts, inside.env))
        share = ("--share-net",) if inside.network else ()
        return (*command[:2], *share, *command[2:])

    return enclose


def ready_for_jobs(cluster: FakeCluster, bubblewrap: Bubblewrap) -> None:
    cluster.kubelet.behaviours[IMAGE] = Behaviour()
    cluster.run_jobs(enclosing(bubblewrap))


@asynccontextmanager
async def jobs_of(
    cluster: FakeCluster, folder: Path, settings: Settings | None = None
) -> AsyncIterator[KubernetesJobs]:
    """One worker's way to run steps."""
    access = Access.of_files([cluster.kubeconfig(folder)])
    sandbox = KubernetesJobs(settings or Settings(IMAGE), access)
    try:
        yield sandbox
    finally:
        await sandbox.close()
