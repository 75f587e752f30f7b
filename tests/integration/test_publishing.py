"""An image is in the registry before a cluster's nodes are told to pull it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.image import put_image
from fakes.images import FakeImages
from penstock.adapters._kubernetes import Access
from penstock.adapters.kubernetes import Kubernetes, Settings
from penstock.core.fence import Fence
from penstock.core.workload import Workload
from penstock.errors import Invalid, Unavailable
from penstock.testing.kubernetes import FakeCluster

ARTIFACT = "sha256:" + "1" * 64
FENCE = Fence("web/production", 1, "key")


def workload(artifact: str) -> Workload:
    return Workload(
        service="web", environment="production", release="web-1", artifact=artifact, command=("serve",)
    )


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    async with FakeCluster(speed=20.0) as found:
        yield found


async def test_an_image_is_published_before_it_is_named_and_only_then(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    artifact = put_image(tmp_path / "store")
    images = FakeImages(tmp_path / "store")
    platform = Kubernetes(Settings(), Access.of_files([cluster.kubeconfig(tmp_path)]), images)
    try:
        images.trouble = Unavailable("the registry does not answer", where="registry.test/shop/web")
        with pytest.raises(Unavailable, match="the registry does not answer"):
            await platform.place(workload(artifact), fence=FENCE)
        assert cluster.api.storage.all("deployments.apps", "default") == []
        images.trouble = None
        await platform.place(workload(artifact), fence=FENCE)
        (deployment,) = cluster.api.storage.all("deployments.apps", "default")
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        assert container["image"] == f"registry.test/shop/web@{artifact}"
        assert container["image"] in images.held
        await platform.place(workload(artifact), fence=FENCE)
        await platform.scale("web-1", 2, fence=FENCE)
        assert images.asked == [("web", artifact)] * 2
    finally:
        await platform.close()


async def test_where_nobody_says_where_images_are_nothing_is_placed(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    platform = Kubernetes(Settings(), Access.of_files([cluster.kubeconfig(tmp_path)]))
    try:
        with pytest.raises(Invalid, match="nobody says where images are"):
            await platform.place(workload(ARTIFACT), fence=FENCE)
    finally:
        await platform.close()
