"""Images in memory, for tests of whatever has artifacts published. It passes the suite of the real thing."""

from __future__ import annotations

from pathlib import Path

from penstock.core.digest import digest, hex_of
from penstock.core.image import read_manifest
from penstock.errors import Broken, Invalid, PenstockError


class FakeImages:
    """Copies images of *layout* into *held*, by name and digest. *trouble* is raised instead."""

    def __init__(self, layout: Path, pull: str = "registry.test/shop") -> None:
        self.held: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.trouble: PenstockError | None = None
        self._layout = layout
        self._pull = pull

    async def publish(self, service: str, artifact: str) -> str:
        self.asked.append((service, artifact))
        if self.trouble is not None:
            raise self.trouble
        name = f"{self._pull}/{service}"
        if f"{name}@{artifact}" not in self.held:
            manifest = self._read(artifact)
            parts = {part: self._read(part) for part in read_manifest(manifest)}
            self.held |= {f"{name}@{part}": data for part, data in {**parts, artifact: manifest}.items()}
        return f"{name}@{artifact}"

    def _read(self, name: str) -> bytes:
        try:
            data = (self._layout / "blobs/sha256" / hex_of(name)).read_bytes()
        except FileNotFoundError as error:
            raise Invalid(f"the artifact store does not have {name}", next_move="ship it again") from error
        if digest(data) != name:
            raise Broken("the blob's bytes are not those that its name says", where=name)
        return data
