"""Pulls images from a registry as a node does: by digest, every byte checked, unpacked into a folder.

Called by `kubelet` where a test sets ``kubelet.pull = Puller()``. It knows no login, and no tag: an image
that is not named by digest is refused.
"""

from __future__ import annotations

import hashlib
import io
import json
import posixpath
import re
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from penstock.testing.kubernetes.containers import Behaviour

SECONDS = 30.0
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_REFERENCE = re.compile(r"(?P<host>[^/@]+)/(?P<name>[^@]+)@(?P<digest>sha256:[0-9a-f]{64})")


class PullError(Exception):
    """The image cannot be had; the words are for the pod's status."""


class Puller:
    """*mirrors* says where a host of references really is: ``{"registry.example": "http://127.0.0.1:5000"}``.
    A host that is not among them is asked over plain HTTP on loopback, else over TLS."""

    def __init__(self, mirrors: Mapping[str, str] | None = None) -> None:
        self._mirrors = dict(mirrors or {})

    async def __call__(self, image: str, folder: Path) -> Behaviour:
        """How its pods live, once it is unpacked below *folder*. `PullError` if it cannot be had."""
        found = _REFERENCE.fullmatch(image)
        if found is None:
            raise PullError(f'"{image}" is not named by digest')
        local = re.fullmatch(r"(127\.[\d.]+|localhost|\[::1\])(:\d+)?", found["host"])
        url = self._mirrors.get(found["host"], f"{'http' if local else 'https'}://{found['host']}")
        try:
            async with httpx.AsyncClient(timeout=SECONDS, follow_redirects=True) as client:
                base = f"{url}/v2/{found['name']}"
                manifest = json.loads(await _got(client, f"{base}/manifests/", found["digest"]))
                config = json.loads(await _got(client, f"{base}/blobs/", manifest["config"]["digest"]))
                root = folder / found["digest"].replace(":", "-")
                shutil.rmtree(root, ignore_errors=True)
                for layer in manifest["layers"]:
                    _unpack(await _got(client, f"{base}/blobs/", layer["digest"]), root)
        except httpx.HTTPError as error:
            raise PullError(f"failed to do request: {error or type(error).__name__}") from error
        except (ValueError, KeyError, TypeError, tarfile.TarError, OSError) as error:
            raise PullError(f"failed to unpack: {error!r}") from error
        return Behaviour(root=root, env=_environment(config), sealed=True)


async def _got(client: httpx.AsyncClient, base: str, digest: str) -> bytes:
    answer = await client.get(base + digest, headers={"accept": MANIFEST, "accept-encoding": "identity"})
    if answer.status_code != 200:
        raise PullError(f"{digest}: {'not found' if answer.status_code == 404 else answer.status_code}")
    if (told := "sha256:" + hashlib.sha256(answer.content).hexdigest()) != digest:
        raise PullError(f"failed to validate digest: got {told}, want {digest}")
    return answer.content


def _environment(config: Any) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in config["config"].get("Env") or ())


def _unpack(layer: bytes, root: Path) -> None:
    """Files, folders and symbolic links that stay inside; nothing else is looked for in an image."""
    with tarfile.open(fileobj=io.BytesIO(layer), mode="r:gz") as archive:
        for member in archive:
            clean = posixpath.normpath(member.name)
            if clean.startswith(("/", "..")):
                raise ValueError(f"{member.name} leads out of the image")
            path = root / clean
            if not path.parent.resolve().is_relative_to(root.resolve()):
                raise ValueError(f"{member.name} leads out of the image through a link")
            path.parent.mkdir(parents=True, exist_ok=True)
            if member.isdir():
                path.mkdir(exist_ok=True)
            elif member.issym():
                path.symlink_to(member.linkname)
            elif (content := archive.extractfile(member)) is not None:
                path.write_bytes(content.read())
                path.chmod(0o755 if member.mode & 0o100 else 0o644)
