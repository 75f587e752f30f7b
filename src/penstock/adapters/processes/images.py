"""Unpacks artifacts from an OCI image layout, checking every byte on the way.

Called by the driver. An image is unpacked once, read-only, and shared by its instances.
"""

from __future__ import annotations

import errno
import hashlib
import io
import shutil
import sys
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from penstock.adapters._archive import unpack
from penstock.core.digest import hex_of
from penstock.core.image import ABI_LABEL, read_config, read_manifest
from penstock.errors import Broken, Invalid, Unavailable


@dataclass(frozen=True)
class Unpacked:
    """*root* holds the image's files; *env* and *command* are its configuration."""

    root: Path
    env: dict[str, str]
    command: tuple[str, ...]


class Images:
    def __init__(self, layout: Path, folder: Path) -> None:
        self._layout = layout
        self._folder = folder

    def unpack(self, artifact: str) -> Unpacked:
        """The image's files and settings. `Invalid` if it cannot run here, `Broken` if it was changed."""
        config, layer = read_manifest(self._blob(artifact))
        described = read_config(self._blob(config))
        _check_abi(described.labels.get(ABI_LABEL, ""), artifact)
        root = self._folder / hex_of(artifact)
        if not root.exists():
            partial = root.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            _extract(self._blob(layer), partial)
            partial.rename(root)
        return Unpacked(root, dict(described.env), described.command)

    def keep_only(self, artifacts: set[str]) -> None:
        """Forget images that no release uses."""
        wanted = {hex_of(artifact) for artifact in artifacts}
        for path in self._folder.iterdir() if self._folder.exists() else ():
            if path.name not in wanted:
                shutil.rmtree(path, ignore_errors=True)

    def _blob(self, name: str) -> bytes:
        path = self._layout / "blobs" / "sha256" / hex_of(name)
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise Invalid(f"the artifact store does not have {name}", where=str(self._layout)) from error
        except OSError as error:
            raise Unavailable(f"cannot read {name}: {error.strerror}", where=str(path)) from error
        if hashlib.sha256(data).hexdigest() != hex_of(name):
            raise Broken("the blob's bytes are not those that its name says", where=str(path))
        return data


def _extract(layer: bytes, destination: Path) -> None:
    try:
        destination.mkdir(parents=True)
        with tarfile.open(fileobj=io.BytesIO(layer), mode="r:gz") as archive:
            unpack(archive, destination)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            move = "free some space on the node's disk"
            raise Unavailable(f"a layer: {error.strerror}", where=str(destination), next_move=move) from error
        raise Invalid(f"a layer cannot be unpacked: {error}", where=str(destination)) from error


def _check_abi(wanted: str, artifact: str) -> None:
    present = f"cp{sys.version_info.major}{sys.version_info.minor}"
    if wanted.startswith("cp") and wanted != present:
        raise Invalid(
            f"built for {wanted}; this machine's Python is {present}",
            where=artifact,
            next_move="run Penstock with the Python that the image was built for, or build it again",
        )
