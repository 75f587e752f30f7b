"""The `Artifacts` port: an OCI image layout on disk, the artifact store of one machine.

Called by the builders beside it (`Layout.put`) and through the port by whoever needs to know what an
artifact says of itself. Blobs are named by their digest and written once; a blob is complete before
anything names it, so a crash or a second writer leaves no half artifact.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from penstock.config import ServiceConfig
from penstock.core.codec import decode
from penstock.core.digest import canonical, digest, hex_of
from penstock.core.image import (
    ABI_LABEL,
    CONFIG_LABEL,
    CONTRACT_LABEL,
    MANIFEST_TYPE,
    SERVICE_LABEL,
    Blobs,
    Described,
    read_config,
    read_manifest,
)
from penstock.errors import Broken, Invalid
from penstock.ports import Image, Surplus


class Layout:
    """*path* is the layout's folder; it is made when something is first put in."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def describe(self, artifact: str) -> Image:
        """See `Artifacts.describe`."""
        found = self.read(artifact)
        try:
            config = decode(ServiceConfig, json.loads(found.labels[CONFIG_LABEL]), CONFIG_LABEL)
        except (KeyError, ValueError, RecursionError, Invalid) as error:
            raise Broken("the image does not hold its configuration", where=artifact) from error
        contracts = {
            name.removeprefix(CONTRACT_LABEL): text
            for name, text in found.labels.items()
            if name.startswith(CONTRACT_LABEL)
        }
        abi = found.labels.get(ABI_LABEL, "")
        return Image(found.command, config, contracts, abi, found.env, found.platform)

    def read(self, artifact: str) -> Described:
        """The image's own configuration; every byte is checked against its digest."""
        if not self._blob(artifact).exists():
            raise Invalid(
                "the artifact store does not have this image",
                where=artifact,
                next_move="ship the commit again: the same commit gives the same artifact",
            )
        config, _ = read_manifest(self._checked(artifact))
        return read_config(self._checked(config))

    def put(self, blobs: Blobs, name: str) -> str:
        """Store an image and list it as *name*; returns its digest. Storing it again changes nothing."""
        # Two builds may end at once, or one while old images are removed.
        with self._locked():
            for blob in blobs.all:
                self._write(self._blob(digest(blob)), blob)
            self._write(self._path / "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
            self._list(blobs, name)
        return blobs.digest

    async def prune(self, keep: Collection[str], before: float, *, dry: bool = False) -> Surplus:
        """See `Artifacts.prune`."""
        return await asyncio.to_thread(self._prune, keep, before, dry)

    def _prune(self, keep: Collection[str], before: float, dry: bool) -> Surplus:
        folder = self._path / "blobs/sha256"
        if not folder.exists():
            return Surplus((), 0)
        with self._locked():
            index = self._path / "index.json"
            listed = json.loads(index.read_bytes())["manifests"] if index.exists() else []
            images = [entry["digest"] for entry in listed]
            old = self._older(before)
            gone = [name for name in images if name in old and name not in keep]
            parts = self._parts({*images, *keep} - set(gone))
            old = {name: size for name, size in old.items() if name not in parts}
            if not dry:
                # What is not listed any more is looked for by nobody, whenever its bytes go.
                left = [entry for entry in listed if entry["digest"] not in gone]
                _replace(index, canonical({"schemaVersion": 2, "manifests": left}))
                for name in old:
                    self._blob(name).unlink(missing_ok=True)
        return Surplus(tuple(gone), sum(old.values()))

    def _older(self, before: float) -> dict[str, int]:
        """The sizes of blobs that nobody has put there since."""
        found = {path.name: path.stat() for path in (self._path / "blobs/sha256").glob("[!.]*")}
        return {f"sha256:{name}": seen.st_size for name, seen in found.items() if seen.st_mtime < before}

    def _parts(self, images: Collection[str]) -> set[str]:
        """These images and all that they are made of, as far as they are images and are here."""
        parts = set(images)
        for image in images:
            if self._blob(image).exists():
                with contextlib.suppress(Broken):
                    parts.update(read_manifest(self._checked(image)))
        return parts

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._path.mkdir(parents=True, exist_ok=True)
        with (self._path / ".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _list(self, blobs: Blobs, name: str) -> None:
        index = self._path / "index.json"
        listed = json.loads(index.read_bytes())["manifests"] if index.exists() else []
        if any(entry["digest"] == blobs.digest for entry in listed):
            return
        entry = {
            "mediaType": MANIFEST_TYPE,
            "digest": blobs.digest,
            "size": len(blobs.manifest),
            "annotations": {SERVICE_LABEL: name},
        }
        _replace(index, canonical({"schemaVersion": 2, "manifests": [*listed, entry]}))

    def _blob(self, name: str) -> Path:
        return self._path / "blobs/sha256" / hex_of(name)

    def _checked(self, name: str) -> bytes:
        try:
            data = self._blob(name).read_bytes()
        except OSError as error:
            raise Broken(f"a blob of the artifact store cannot be read: {error}", where=name) from error
        if digest(data) != name:
            raise Broken("a blob of the artifact store is damaged", where=name)
        return data

    def _write(self, path: Path, data: bytes) -> None:
        if path.exists() and path.read_bytes() == data:
            os.utime(path)  # wanted again: too young to be removed
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, data)


def _replace(path: Path, data: bytes) -> None:
    handle, fresh = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    Path(fresh).chmod(0o644)
    Path(fresh).replace(path)
