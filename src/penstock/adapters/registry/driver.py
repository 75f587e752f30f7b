"""Pushes an artifact to where nodes can pull it: manifest, configuration and layer, byte for byte.

Called by a platform before it names the image to its nodes, and by several workers at once. What is there is
not sent again, so a push that was cut off is simply made anew, and two of the same image do not disturb one
another: everything is known by its digest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import httpx

from penstock.adapters.registry.asking import SECONDS, Asked, Asker, Door
from penstock.adapters.registry.failures import Answer, Unsettled, strange
from penstock.adapters.registry.place import Place
from penstock.adapters.registry.stored import Blob, read_image
from penstock.core.digest import hex_of, short
from penstock.core.image import MANIFEST_TYPE

#: What is read back is what was sent, not something packed again on the way.
HEADERS = {"accept-encoding": "identity", "user-agent": "penstock"}

#: Seconds before what is `Unsettled` is pushed anew: while another worker pushes the same layer, Docker's
#: registry (2.8) reads the file in which it notes that while it writes it.
PAUSES = (0.1, 0.4)


class Registry:
    """*layout* is the artifact store's folder, *push* the URL under which each service has its repository,
    *pull* the same as nodes name it (``registry.example/shop``; without it, host and path of *push*), and
    *auth* a Docker ``config.json``."""

    def __init__(self, layout: Path, push: str, pull: str = "", auth: Path | None = None) -> None:
        self._layout = layout
        self._place = Place.of(push, pull)
        self._door = Door(auth)
        self._tls = httpx.create_ssl_context()

    async def check(self) -> None:
        """Raise what keeps everybody from pushing: nobody answers there, it is no registry, or it does not
        let us in. Whether we may push to a repository is seen when there is one."""
        async with self._client() as http:
            asker = Asker(http, self._place, self._place.prefix or "penstock", self._door)
            answer = await asker.ask(Asked("GET", self._place.origin.join("/v2/")))
            if answer.status != 200:
                raise asker.failure(answer)

    async def publish(self, service: str, artifact: str) -> str:
        hex_of(artifact)
        repository = self._place.repository(service)
        async with self._client() as http:
            asker = Asker(http, self._place, repository, self._door)
            if not await _is_there(asker, artifact):
                manifest, blobs = await asyncio.to_thread(read_image, self._layout, artifact)
                await _push(asker, artifact, manifest, blobs)
        return self._place.reference(service, artifact)

    def _client(self) -> httpx.AsyncClient:
        timeout = httpx.Timeout(SECONDS, read=None)  # what is to be committed may take its time
        return httpx.AsyncClient(verify=self._tls, timeout=timeout, headers=HEADERS)


async def _is_there(asker: Asker, artifact: str) -> bool:
    headers = {"accept": MANIFEST_TYPE}
    answer = await asker.ask(Asked("HEAD", asker.url(f"manifests/{artifact}"), headers))
    if answer.status == 404:
        return False
    if answer.status != 200:
        raise asker.failure(answer)
    # A web site that answers everything with its front page is no registry.
    if answer.digest != artifact and (answer.digest or answer.headers.get("content-type") != MANIFEST_TYPE):
        told = answer.digest or "no digest"
        raise strange(f"{told[:80]} for the image {artifact}", asker.where)
    return True


async def _push_blob(asker: Asker, blob: Blob) -> None:
    """In one piece: nothing is left to go on with after a crash but what the registry tidies away."""
    answer = await asker.ask(Asked("HEAD", asker.url(f"blobs/{blob.digest}")))
    if answer.status == 200 and answer.headers.get("content-length") == str(blob.size):
        return
    if answer.status not in (200, 404):
        raise asker.failure(answer)
    begun = asker.url("blobs/uploads/")
    answer = await asker.ask(Asked("POST", begun))
    if answer.status != 202:
        raise asker.failure(answer)
    goal = str(answer.headers.get("location", ""))
    if not goal:
        raise strange("an upload without a place for it", asker.where)
    # Its query may be signed: it is not written anew.
    upload = f"{goal}{'&' if '?' in goal else '?'}digest={quote(blob.digest)}"
    headers = {"content-type": "application/octet-stream"}
    answer = await asker.ask(Asked("PUT", asker.joined(begun, upload), headers, blob))
    if answer.status != 201:
        raise asker.failure(answer)
    _check(asker, answer, blob.digest)


async def _push(asker: Asker, artifact: str, manifest: bytes, blobs: Sequence[Blob]) -> None:
    for pause in PAUSES:
        with suppress(Unsettled):
            return await _push_once(asker, artifact, manifest, blobs)
        await asyncio.sleep(pause)
    return await _push_once(asker, artifact, manifest, blobs)


async def _push_once(asker: Asker, artifact: str, manifest: bytes, blobs: Sequence[Blob]) -> None:
    for blob in blobs:
        await _push_blob(asker, blob)
    await _push_manifest(asker, artifact, manifest)


async def _push_manifest(asker: Asker, artifact: str, manifest: bytes) -> None:
    """Under a tag as well: registries may tidy away what has none."""
    url = asker.url(f"manifests/{short(artifact)}")
    answer = await asker.ask(Asked("PUT", url, {"content-type": MANIFEST_TYPE}, manifest))
    if answer.status == 201 and answer.digest == artifact:
        return
    # Where tags never change, the second of two workers is told no, and all is well.
    if answer.status < 500 and await _is_there(asker, artifact):
        return
    if answer.status != 201:
        raise asker.failure(answer)
    _check(asker, answer, artifact)
    raise strange(f"it took the image, and does not have it as {artifact}", asker.where)


def _check(asker: Asker, answer: Answer, digest: str) -> None:
    if answer.digest not in ("", digest):
        raise strange(f"it has {answer.digest[:80]} of what was sent as {digest}", asker.where)
