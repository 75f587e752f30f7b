"""The contracts of the platform and of steps on a real cluster: the one that KUBECONFIG names, if an image is
named too. How: docs/guides/kubernetes.md.

`test_platform` and `test_sandbox` run the same suites on the fake one.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from contracts.platform import PlatformContract, Subject
from contracts.real import RealCluster
from contracts.test_sandbox import SandboxContract
from fakes.image import PROGRAM
from penstock.adapters._kubernetes import Access
from penstock.adapters.kubernetes import Kubernetes, Settings, steps
from penstock.adapters.kubernetes.jobs import KubernetesJobs
from penstock.ports import Sandbox

IMAGE = os.environ.get("PENSTOCK_CONTRACT_IMAGE", "")
NAMESPACE = os.environ.get("PENSTOCK_CONTRACT_NAMESPACE", "")
if not IMAGE:  # said by hand, so that nobody's cluster is used because a shell happened to name it
    pytest.skip(
        "no cluster: export KUBECONFIG=FILE PENSTOCK_CONTRACT_IMAGE=python:3.11-slim"
        " (docs/guides/kubernetes.md)",
        allow_module_level=True,
    )

#: Its restarts come ever later: after 10 seconds, then 20.
pytestmark = pytest.mark.timeout(600)


class Imported:
    """Images: nodes have it already, or pull it, by whatever name they know it."""

    async def publish(self, service: str, artifact: str) -> str:
        return IMAGE


@pytest.fixture
async def cluster() -> AsyncIterator[RealCluster]:
    async with RealCluster(Access.of_environment(), NAMESPACE) as cluster:
        yield cluster


class TestPlatform(PlatformContract):
    @pytest.fixture
    async def subject(self, cluster: RealCluster) -> AsyncIterator[Subject]:
        platform = Kubernetes(Settings(namespace=cluster.namespace), images=Imported())
        subject = Subject(
            platform,
            "sha256:" + "0" * 64,
            functools.partial(asyncio.sleep, 0.1),
            cluster.ask,
            neighbours="http://price-list.",
            program=("python3", "-c", PROGRAM.decode()),
        )
        try:
            yield subject
        finally:
            await subject.remove_all()
            await platform.close()


class TestSteps(SandboxContract):
    @pytest.fixture
    async def sandbox(self, cluster: RealCluster) -> AsyncIterator[Sandbox]:
        access = replace(Access.of_environment(), namespace=cluster.namespace)
        sandbox = KubernetesJobs(steps.Settings(IMAGE), access)
        try:
            yield sandbox
        finally:
            await sandbox.close()

    @pytest.fixture(autouse=True)
    def _there(self, cluster: RealCluster) -> None:
        self._cluster = cluster

    async def naps(self) -> bool:
        """Its processes are on another machine: it naps while it has a pod."""
        return bool(await self._cluster.pods())
