"""The images contract: the fake, Debian's docker-registry with and without a password, and a registry by hand
that wants a token for each repository."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from contracts.images import ImagesContract, Read, Subject
from fakes.images import FakeImages
from fakes.registry import PASSWORD, USER, FakeRegistry, docker_registry, login
from penstock.adapters.registry import Registry
from penstock.core.image import MANIFEST_TYPE


def reader(url: str, headers: dict[str, str] | None = None, auth: tuple[str, str] | None = None) -> Read:
    """As a node asks the registry at *url*."""

    async def read(name: str, digest: str) -> bytes | None:
        repository = name.partition("/")[2]
        async with httpx.AsyncClient(auth=auth, headers=headers, verify=False) as client:
            for kind in ("manifests", "blobs"):
                accept = {"accept": MANIFEST_TYPE}
                answer = await client.get(f"{url}/v2/{repository}/{kind}/{digest}", headers=accept)
                if answer.status_code == 200:
                    return answer.content
        return None

    return read


class TestFake(ImagesContract):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> Subject:
        images = FakeImages(tmp_path)

        async def read(name: str, digest: str) -> bytes | None:
            return images.held.get(f"{name}@{digest}")

        return Subject(images, tmp_path, "registry.test/shop", read)


class TestDockerRegistry(ImagesContract):
    @pytest.fixture
    async def subject(self, tmp_path: Path) -> AsyncIterator[Subject]:
        async with docker_registry(tmp_path) as url:
            images = Registry(tmp_path / "store", f"{url}/shop")
            yield Subject(images, tmp_path / "store", f"{httpx.URL(url).netloc.decode()}/shop", reader(url))


class TestDockerRegistryWithAPassword(ImagesContract):
    @pytest.fixture
    async def subject(self, tmp_path: Path) -> AsyncIterator[Subject]:
        async with docker_registry(tmp_path, locked=True) as url:
            file = login(tmp_path / "config.json", httpx.URL(url).netloc.decode())
            images = Registry(tmp_path / "store", f"{url}/a/b/", "mirror.example:5000/shop", file)
            read = reader(url, auth=(USER, PASSWORD))

            async def translated(name: str, digest: str) -> bytes | None:
                return await read(name.replace("mirror.example:5000/shop", "x/a/b"), digest)

            yield Subject(images, tmp_path / "store", "mirror.example:5000/shop", translated)


class TestRegistryWithTokens(ImagesContract):
    @pytest.fixture
    async def subject(self, tmp_path: Path) -> AsyncIterator[Subject]:
        fake = FakeRegistry()
        fake.token = "a-token"
        await fake.server.start()
        file = login(tmp_path / "config.json", fake.server.address)
        images = Registry(tmp_path / "store", fake.url, auth=file)
        read = reader(fake.url, {"authorization": "Bearer a-token"})
        yield Subject(images, tmp_path / "store", fake.server.address, read)
        await fake.server.stop()
