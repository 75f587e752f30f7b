"""Images on their whole way: from the artifact store into a registry, and from there into pods that run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from fakes.image import ABI, put_base, put_image
from fakes.images import FakeImages
from fakes.registry import FakeRegistry, docker_registry
from penstock.adapters._kubernetes import Access
from penstock.adapters.build import Layout
from penstock.adapters.kubernetes import Kubernetes, Settings
from penstock.adapters.registry import Registry
from penstock.core.fence import Fence
from penstock.core.workload import Placement, Workload
from penstock.ports import Images
from penstock.testing.kubernetes import FakeCluster, Puller, PullError

FENCE = Fence("web/production", 1, "key")
COMMAND = ("python3", "/app/program.py", "serve")


def workload(artifact: str) -> Workload:
    return Workload(
        service="web",
        environment="production",
        release="web-1",
        artifact=artifact,
        command=COMMAND,
        health_path="/health",
        replicas=2,
        start_seconds=30.0,
    )


@asynccontextmanager
async def a_platform(
    folder: Path, images: Images, puller: Puller, bases: dict[str, str]
) -> AsyncIterator[Kubernetes]:
    async with FakeCluster(speed=20.0) as cluster:
        cluster.kubelet.pull = puller
        access = Access.of_files([cluster.kubeconfig(folder)])
        platform = Kubernetes(Settings(bases=bases), access, images, Layout(folder / "store"))
        try:
            yield platform
        finally:
            await platform.close()


async def published(folder: Path, url: str) -> dict[str, str]:
    """What artifacts of this machine run on, in the registry at *url*."""
    images = Registry(folder / "bases", f"{url}/library")
    return {ABI: await images.publish("python", put_base(folder / "bases"))}


async def until(platform: Kubernetes, wanted: Callable[[Placement], bool]) -> Placement:
    async with asyncio.timeout(30):
        while (found := await platform.observe("web-1")) is None or not wanted(found):
            await asyncio.sleep(0.01)
    return found


async def test_what_was_built_here_runs_in_a_pod_that_pulled_it(tmp_path: Path) -> None:
    artifact = put_image(tmp_path / "store", COMMAND)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(docker_registry(tmp_path))
        images = Registry(tmp_path / "store", f"{url}/shop", "registry.example/shop")
        puller = Puller({"registry.example": url})
        bases = await published(tmp_path, url)
        platform = await stack.enter_async_context(a_platform(tmp_path, images, puller, bases))
        await platform.place(workload(artifact), fence=FENCE)
        found = await until(platform, lambda p: p.ready and p.able == 2)
        assert found.base == bases[ABI]
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"http://{found.instances[0].address}/")
        assert answer.json()["IMAGE"] == "yes"  # the image's own environment
        await platform.remove("web-1", fence=FENCE)


async def test_without_a_base_nothing_runs_it_and_it_says_so(tmp_path: Path) -> None:
    """An artifact holds the application alone; what would hide that is the interpreter of this machine."""
    artifact = put_image(tmp_path / "store", COMMAND)
    fake = FakeRegistry()
    await fake.server.start()
    images = Registry(tmp_path / "store", f"{fake.url}/shop")
    try:
        async with a_platform(tmp_path, images, Puller(), {}) as platform:
            await platform.place(workload(artifact), fence=FENCE)
            found = await until(platform, lambda p: p.failed)
            assert 'exec: "python3": executable file not found in $PATH' in found.reason
            assert "next: name an image that has this program in bases" in found.reason
            assert found.base == ""
            await platform.remove("web-1", fence=FENCE)
    finally:
        await fake.server.stop()


async def test_a_pod_whose_image_comes_late_comes_up_by_itself(tmp_path: Path) -> None:
    """As it is where somebody else pushes, and where a registry was away."""
    artifact = put_image(tmp_path / "store", COMMAND)
    fake = FakeRegistry()
    await fake.server.start()
    where = Registry(tmp_path / "store", f"{fake.url}/shop")
    promised = FakeImages(tmp_path / "store", f"{fake.server.address}/shop")
    try:
        bases = await published(tmp_path, fake.url)
        async with a_platform(tmp_path, promised, Puller(), bases) as platform:
            await platform.place(workload(artifact), fence=FENCE)
            await until(platform, lambda p: "not found" in str(p))
            await where.publish("web", artifact)
            await until(platform, lambda p: p.ready)
            await platform.remove("web-1", fence=FENCE)
    finally:
        await fake.server.stop()


async def test_what_is_not_what_its_digest_says_is_not_run(tmp_path: Path) -> None:
    artifact = put_image(tmp_path / "store")
    fake = FakeRegistry()
    await fake.server.start()
    try:
        reference = await Registry(tmp_path / "store", f"{fake.url}/shop").publish("web", artifact)
        layer = json.loads(fake.manifests[artifact][1])["layers"][0]["digest"]
        whole = fake.blobs[layer]
        fake.blobs[layer] = whole + b"x"
        with pytest.raises(PullError, match="failed to validate digest"):
            await Puller()(reference, tmp_path / "node")
        del fake.blobs[layer]
        with pytest.raises(PullError, match=f"{layer}: not found"):
            await Puller()(reference, tmp_path / "node")
        fake.blobs[layer] = whole
        behaviour = await Puller()(reference, tmp_path / "node")
        assert behaviour.root is not None
        assert (behaviour.root / "app/program.py").exists()
        with pytest.raises(PullError, match="not named by digest"):
            await Puller()(reference.partition("@")[0] + ":latest", tmp_path / "node")
    finally:
        await fake.server.stop()
    with pytest.raises(PullError, match="failed to do request"):
        await Puller()(reference, tmp_path / "node")
