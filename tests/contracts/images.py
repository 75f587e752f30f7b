"""What every `Images` must do: the same bytes under the same digest, once, or nothing to pull."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.image import put_image
from penstock.core.digest import digest, hex_of
from penstock.core.image import read_manifest
from penstock.errors import Broken, Invalid
from penstock.ports import Images

#: The bytes of a manifest or blob (by digest) as nodes get them under a name; None if it is not there.
Read = Callable[[str, str], Awaitable[bytes | None]]


@dataclass
class Subject:
    """*layout* is the artifact store, *pull* the prefix under which nodes pull."""

    images: Images
    layout: Path
    pull: str
    read: Read

    def made(self, *command: str) -> str:
        return put_image(self.layout, command or ("python3", "/app/program.py", "serve"))

    def blob(self, name: str) -> Path:
        return self.layout / "blobs/sha256" / hex_of(name)

    async def pulled(self, reference: str) -> list[str]:
        """The digests of all that an image consists of, as it is pulled and checked."""
        name, _, artifact = reference.partition("@")
        manifest = await self.read(name, artifact)
        assert manifest is not None
        names = [artifact, *read_manifest(manifest)]
        for part in names:
            data = await self.read(name, part)
            assert data is not None
            assert digest(data) == part
            assert data == self.blob(part).read_bytes()
        return names


class ImagesContract:
    async def test_what_is_published_is_pulled_byte_for_byte(self, subject: Subject) -> None:
        artifact = subject.made()
        reference = await subject.images.publish("web", artifact)
        assert reference == f"{subject.pull}/web@{artifact}"
        assert len(await subject.pulled(reference)) == 3

    async def test_again_changes_nothing(self, subject: Subject) -> None:
        artifact = subject.made()
        first = await subject.images.publish("web", artifact)
        assert await subject.images.publish("web", artifact) == first
        await subject.pulled(first)

    async def test_several_at_once_do_not_disturb_one_another(self, subject: Subject) -> None:
        images = [subject.made(), subject.made("other")]  # with the same layer
        names = [(service, artifact) for service in ("web", "price-list") for artifact in images] * 3
        published = await asyncio.gather(*(subject.images.publish(*name) for name in names))
        assert set(published) == {f"{subject.pull}/{service}@{artifact}" for service, artifact in names}
        for reference in set(published):
            await subject.pulled(reference)

    async def test_one_that_the_store_does_not_have_is_refused(self, subject: Subject) -> None:
        subject.made()
        with pytest.raises(Invalid, match="does not have"):
            await subject.images.publish("web", "sha256:" + "0" * 64)
        with pytest.raises(Invalid, match="not a sha256 digest"):
            await subject.images.publish("web", "latest")

    async def test_what_is_there_needs_no_store(self, subject: Subject) -> None:
        """An old release is put up again although its image was tidied away here."""
        artifact = subject.made()
        first = await subject.images.publish("web", artifact)
        for path in (subject.layout / "blobs/sha256").iterdir():
            path.unlink()
        assert await subject.images.publish("web", artifact) == first

    @pytest.mark.parametrize("which", range(3), ids=["manifest", "configuration", "layer"])
    @pytest.mark.parametrize("change", [lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b[:-1]])
    async def test_a_damaged_one_is_not_published(
        self, subject: Subject, which: int, change: Callable[[bytes], bytes]
    ) -> None:
        artifact = subject.made()
        part = (artifact, *read_manifest(subject.blob(artifact).read_bytes()))[which]
        whole = subject.blob(part).read_bytes()
        subject.blob(part).write_bytes(change(whole))
        with pytest.raises(Broken, match="not those that its name says"):
            await subject.images.publish("web", artifact)
        assert await subject.read(f"{subject.pull}/web", artifact) is None
        subject.blob(part).write_bytes(whole)
        await subject.pulled(await subject.images.publish("web", artifact))
