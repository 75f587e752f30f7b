"""A reproducible OCI image with one layer: from files to bytes, and from bytes back to what they say.

Called by builders (which read the files) and by the artifact store (which keeps the blobs). The same
files, recipe and epoch give the same bytes: sorted paths, no owner, one time stamp, two modes, no
compiled Python. Must not open a file (builders give a reader with each, see `Held`) or read a clock.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from penstock.core.codec import Json
from penstock.core.digest import canonical, digest, hex_of
from penstock.errors import Broken, Invalid

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"

ROOT = "app"
#: The files of an image together, and one of them: while it is packed, all of it is in memory once.
MAX_LAYER_BYTES = 2 * 1024**3
MAX_FILE_BYTES = 1024**3

SERVICE_LABEL = "org.penstock.service"
ABI_LABEL = "org.penstock.abi"
BASE_LABEL = "org.penstock.base"
CONFIG_LABEL = "org.penstock.config"
#: Followed by the name of a service: what this one needs of it, an OpenAPI document.
CONTRACT_LABEL = "org.penstock.contract."
REVISION_LABEL = "org.opencontainers.image.revision"

_SKIPPED = re.compile(r"(?:^|/)__pycache__(?:/|$)|\.py[co]$")


@dataclass(frozen=True)
class Held:
    """Bytes that stay where they are until they are packed: *read* gives *size* of them."""

    size: int
    read: Callable[[], bytes]


@dataclass(frozen=True)
class File:
    """One entry of the layer: *path* relative to ``/app``; *link* is a symbolic link's target."""

    path: str
    data: bytes | Held = b""
    executable: bool = False
    link: str | None = None

    @property
    def size(self) -> int:
        """In bytes, without reading them."""
        return self.data.size if isinstance(self.data, Held) else len(self.data)


@dataclass(frozen=True)
class Recipe:
    """What the image says of itself. *platform* is OCI's ``os/architecture``."""

    command: tuple[str, ...]
    env: Mapping[str, str]
    labels: Mapping[str, str]
    platform: str
    epoch: int


@dataclass(frozen=True)
class Blobs:
    """The image as it is stored. *digest* of the manifest is the artifact's name."""

    manifest: bytes
    config: bytes
    layer: bytes

    @property
    def digest(self) -> str:
        return digest(self.manifest)

    @property
    def all(self) -> tuple[bytes, ...]:
        """Every blob, the manifest last: what names the others is written after them."""
        return (self.layer, self.config, self.manifest)


@dataclass(frozen=True)
class Described:
    """The part of an image's configuration that says how to run it. *platform* as in `Recipe`."""

    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    platform: str = ""


def assemble(files: Iterable[File], recipe: Recipe) -> Blobs:
    """The image of *files*. `Invalid` if they are too large for one."""
    plain = _tar(files, recipe.epoch)
    layer = _compress(plain)
    operating_system, _, architecture = recipe.platform.partition("/")
    config = canonical(
        {
            "architecture": architecture,
            "os": operating_system,
            "config": {
                "Env": [f"{name}={value}" for name, value in sorted(recipe.env.items())],
                "Cmd": list(recipe.command),
                "WorkingDir": f"/{ROOT}",
                "Labels": dict(recipe.labels),
            },
            "rootfs": {"type": "layers", "diff_ids": [digest(plain)]},
        }
    )
    manifest = canonical(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": _descriptor(CONFIG_TYPE, config),
            "layers": [_descriptor(LAYER_TYPE, layer)],
        }
    )
    return Blobs(manifest, config, layer)


def read_manifest(data: bytes) -> tuple[str, str]:
    """The digests of configuration and layer. `Broken` if this is not a manifest of ours."""
    value = _json(data, "manifest")
    try:
        (layer,) = value["layers"]
        found = (str(value["config"]["digest"]), str(layer["digest"]))
        hex_of(found[0]), hex_of(found[1])
    except (KeyError, TypeError, ValueError, Invalid) as error:
        raise Broken("not an image manifest with one layer", where=digest(data)) from error
    return found


def read_config(data: bytes) -> Described:
    """How to run the image. `Broken` if this is not an image configuration."""
    value = _json(data, "image configuration")
    try:
        given = value["config"]
        env = dict(str(pair).split("=", 1) for pair in given.get("Env") or [])
        labels = {str(name): str(text) for name, text in (given.get("Labels") or {}).items()}
        platform = f"{value.get('os', '')}/{value.get('architecture', '')}".strip("/")
        return Described(tuple(str(word) for word in given.get("Cmd") or []), env, labels, platform)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Broken("not an image configuration", where=digest(data)) from error


def _descriptor(kind: str, data: bytes) -> dict[str, str | int]:
    return {"mediaType": kind, "digest": digest(data), "size": len(data)}


def _tar(files: Iterable[File], epoch: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        folders: set[str] = set()
        for file in _packed(files):
            name = f"{ROOT}/{file.path}"
            for folder in _parents(name):
                if folder not in folders:
                    folders.add(folder)
                    tar.addfile(_entry(folder, epoch, tarfile.DIRTYPE, 0o755))
            _add(tar, name, file, epoch)
    return buffer.getvalue()


def _packed(files: Iterable[File]) -> list[File]:
    """What goes into the layer, in its order. `Invalid` if it is too large, before any of it is read."""
    packed = sorted((file for file in files if not _SKIPPED.search(file.path)), key=lambda file: file.path)
    largest = max(packed, key=lambda file: file.size, default=File(""))
    total = sum(tarfile.BLOCKSIZE + file.size for file in packed)
    move = "leave out of the repository and its build what the service does not need to run"
    if largest.size > MAX_FILE_BYTES:
        what = f"larger than {MAX_FILE_BYTES} bytes, the most for a file of an image: it has {largest.size}"
        raise Invalid(what, where=largest.path, next_move=move)
    if total > MAX_LAYER_BYTES:
        what = f"the image is larger than {MAX_LAYER_BYTES} bytes: it has {total}, the most of them here"
        raise Invalid(what, where=largest.path, next_move=move)
    return packed


def _add(tar: tarfile.TarFile, name: str, file: File, epoch: int) -> None:
    if file.link is not None:
        entry = _entry(name, epoch, tarfile.SYMTYPE, 0o777)
        entry.linkname = file.link
        tar.addfile(entry)
        return
    entry = _entry(name, epoch, tarfile.REGTYPE, 0o755 if file.executable else 0o644)
    data = file.data.read() if isinstance(file.data, Held) else file.data
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def _entry(name: str, epoch: int, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = kind, mode, epoch
    return entry


def _parents(name: str) -> list[str]:
    parts = name.split("/")[:-1]
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def _compress(data: bytes) -> bytes:
    # `gzip.compress` leaves a byte of the header to the zlib it finds; `GzipFile` always writes the same.
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=buffer, mtime=0) as stream:
        stream.write(data)
    return buffer.getvalue()


def _json(data: bytes, what: str) -> Json:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Broken(f"the {what} is not JSON", where=digest(data)) from error
