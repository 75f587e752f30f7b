"""The platform contract on the fake, by environment too, on processes with and without a sandbox, behind a
node agent, and in a Kubernetes cluster."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from contracts.platform import LocalContract, PlatformContract, Subject
from fakes.image import PROGRAM, put_image
from fakes.node import agent_at
from fakes.platform import FakePlatform
from fakes.router import FakeRouter
from penstock.adapters._kubernetes import Access
from penstock.adapters.bubblewrap import Bubblewrap
from penstock.adapters.kubernetes import Kubernetes, Settings
from penstock.adapters.processes import Processes
from penstock.adapters.unsandboxed import Unsandboxed
from penstock.bootstrap.environments import Drivers, Platforms
from penstock.node.client import NodePlatform
from penstock.ports import Sandbox
from penstock.testing.kubernetes import Behaviour, FakeCluster


async def ask(address: str, path: str) -> str:
    uds = address.removeprefix("unix:") if address.startswith("unix:") else None
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=uds, verify=False)) as client:
        try:
            return (await client.get(f"http://{'workload' if uds else address}{path}")).text
        except httpx.TransportError as error:
            raise ConnectionError(str(error)) from error


async def over_processes(folder: Path, sandbox: Sandbox) -> AsyncIterator[Subject]:
    platform = Processes(folder / "w", folder / "artifacts", sandbox)
    subject = Subject(platform, put_image(folder / "artifacts"), platform.tend, ask)
    try:
        yield subject
    finally:
        await subject.remove_all()


class TestFake(PlatformContract, LocalContract):
    @pytest.fixture
    def subject(self) -> Subject:
        platform = FakePlatform()

        async def ask_fake(address: str, path: str) -> str:
            return platform.ask(address, path)

        return Subject(platform, "sha256:" + "0" * 64, platform.tend, ask_fake)


class TestByEnvironment(PlatformContract):
    @pytest.fixture
    def subject(self) -> Subject:
        platform = FakePlatform()
        platforms = Platforms(Drivers(platform, {"staging": FakePlatform()}))

        async def ask_fake(address: str, path: str) -> str:
            return platform.ask(address, path)

        return Subject(platforms, "sha256:" + "0" * 64, platform.tend, ask_fake)


class BoundsFiles:
    async def test_open_files_are_bounded_and_what_is_not_enforced_is_named(self, subject: Subject) -> None:
        await subject.place("serve")
        ready = await subject.until(lambda p: p.ready)
        assert await ask(ready.instances[0].address, "/files") == "256"
        assert ready.advisory == ("cpus",)


class TestProcessesSandboxed(BoundsFiles, PlatformContract, LocalContract):
    @pytest.fixture
    async def subject(self, short_tmp: Path, bubblewrap: Bubblewrap) -> AsyncIterator[Subject]:
        async for subject in over_processes(short_tmp, bubblewrap):
            yield subject

    async def test_it_cannot_read_what_is_not_its_own(self, subject: Subject, short_tmp: Path) -> None:
        secret = short_tmp / "secret"
        secret.write_text("the secret")
        await subject.place("serve")
        await subject.place("serve", release="web-2")
        await subject.until(lambda p: p.ready, "web-2")
        ready = await subject.until(lambda p: p.ready)
        address = ready.instances[0].address
        assert "hello" in await ask(address, "/read/app/program.py")
        others = short_tmp / "w" / "logs" / "web-2" / "0.log"
        assert others.exists()
        for path in (secret, others):
            assert (await ask(address, f"/read{path}")).startswith("refused: ")


class TestProcessesUnsandboxed(BoundsFiles, PlatformContract, LocalContract):
    @pytest.fixture
    async def subject(self, short_tmp: Path) -> AsyncIterator[Subject]:
        async for subject in over_processes(short_tmp, Unsandboxed()):
            yield subject


class TestNode(PlatformContract):
    @pytest.fixture
    async def subject(self, short_tmp: Path) -> AsyncIterator[Subject]:
        platform = FakePlatform()

        async def ask_fake(address: str, path: str) -> str:
            return platform.ask(address, path)

        async def the_agent_tends() -> None:
            await asyncio.sleep(0.05)

        async with agent_at(short_tmp / "node", platform, FakeRouter()) as client:
            yield Subject(NodePlatform(client), "sha256:" + "0" * 64, the_agent_tends, ask_fake)


class TestKubernetes(PlatformContract):
    """Against the fake cluster, whose pods are processes of this machine."""

    @pytest.fixture
    async def subject(self, tmp_path: Path) -> AsyncIterator[Subject]:
        async with FakeCluster(namespace="shop", speed=20.0) as cluster:
            artifact = "sha256:" + "1" * 64
            cluster.kubelet.behaviours[f"registry.test/web@{artifact}"] = unpacked(tmp_path / "image")
            settings = Settings("registry.test")
            platform = Kubernetes(settings, Access.of_files([cluster.kubeconfig(tmp_path)]))
            tend = functools.partial(asyncio.sleep, 0.01)
            subject = Subject(platform, artifact, tend, ask, neighbours="http://price-list.shop.svc:80")
            try:
                yield subject
                await subject.remove_all()
            finally:
                await platform.close()


def unpacked(root: Path) -> Behaviour:
    """The image of `fakes.image`, as a node has it."""
    (root / "app").mkdir(parents=True)
    (root / "app" / "program.py").write_bytes(PROGRAM)
    return Behaviour(root=root)
