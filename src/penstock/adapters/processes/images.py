"""Unpacks artifacts from an OCI image layout, checking every byte on the way.

Called by the driver. An image is unpacked once, read-only, and shared by its instances.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.adapters._archive import unpack
from penstock.core.digest import hex_of
from penstock.errors import Broken, Invalid, Unavailable

ABI_LABEL = "org.penstock.abi"


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
        manifest = json.loads(self._blob(artifact))
        config = json.loads(self._blob(manifest["config"]["digest"]))
        settings = config.get("config", {})
        _check_abi(settings.get("Labels") or {}, artifact)
        root = self._folder / hex_of(artifact)
        if not root.exists():
            partial = root.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            for layer in manifest["layers"]:
                _extract(self._blob(layer["digest"]), partial)
            partial.rename(root)
        env = dict(item.split("=", 1) for item in settings.get("Env") or ())
        return Unpacked(root, env, tuple(settings.get("Cmd") or ()))

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
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(layer))) as archive:
            unpack(archive, destination)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise Invalid(f"a layer cannot be unpacked: {error}", where=str(destination)) from error


def _check_abi(labels: dict[str, Any], artifact: str) -> None:
    wanted = str(labels.get(ABI_LABEL, ""))
    present = f"cp{sys.version_info.major}{sys.version_info.minor}"
    if wanted.startswith("cp") and wanted != present:
        raise Invalid(
            f"built for {wanted}; this machine's Python is {present}",
            where=artifact,
            next_move="run Penstock with the Python that the image was built for, or build it again",
        )
