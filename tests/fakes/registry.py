"""Registries: Debian's own ``docker-registry`` on a port of loopback, and one by hand that can misbehave.

Used by tests of whatever pushes images or pulls them. Must not know what is pushed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from .answers import Answer, Answering, Question
from .web import free_port

INSTALL = "apt install docker-registry (no root: put its binary on PATH)"
USER, PASSWORD = "penstock", "sesame-open"
#: The two of them as htpasswd writes it.
HTPASSWD = "penstock:$2y$05$abcdefghijklmnopqrstuuS9BZOyeahxQEvqVJ2MwcTfokCZow8ni\n"
SECONDS = 60.0


@asynccontextmanager
async def docker_registry(folder: Path, *, locked: bool = False) -> AsyncIterator[str]:
    """The URL of a real one. If *locked*, it lets `USER` in with `PASSWORD`, and nobody else."""
    binary = shutil.which("docker-registry")
    if binary is None:
        if os.environ.get("CI") == "true":
            raise FileNotFoundError(INSTALL)
        pytest.skip(f"no docker-registry here; next: {INSTALL}")
    address = f"127.0.0.1:{free_port()}"
    config: dict[str, object] = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "registry")}},
        "http": {"addr": address},
    }
    if locked:
        (folder / "htpasswd").write_text(HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "a registry", "path": str(folder / "htpasswd")}}
    (folder / "registry.yml").write_text(json.dumps(config))  # JSON is YAML
    process = await asyncio.create_subprocess_exec(
        binary,
        "serve",
        str(folder / "registry.yml"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await _answers(f"http://{address}/v2/")
        yield f"http://{address}"
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()


async def _answers(url: str) -> None:
    async with asyncio.timeout(SECONDS), httpx.AsyncClient(verify=False) as client:
        while True:
            try:
                if (await client.get(url)).status_code in (200, 401):
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.02)


def login(file: Path, host: str, user: str = USER, password: str = PASSWORD) -> Path:
    """Write a Docker ``config.json`` for it."""
    basic = httpx.BasicAuth(user, password)
    header = next(basic.auth_flow(httpx.Request("GET", "http://x"))).headers["authorization"]
    file.write_text(json.dumps({"auths": {host: {"auth": header.removeprefix("Basic ")}}}))
    return file


class FakeRegistry:
    """OCI distribution over two dictionaries. With a *token*, who has none is sent to ``/token``, which gives
    it to whoever logs in as `USER`. *trouble* is asked first, and may answer instead. *elsewhere* (another
    registry's address) is where uploads are to go."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.token = ""
        self.elsewhere = ""
        self.trouble: Callable[[Question], Answer | None] = lambda _: None
        self.server = Answering(self.answer)

    @property
    def url(self) -> str:
        return f"http://{self.server.address}"

    @property
    def asked(self) -> list[str]:
        """Each request so far: method and path, digests left out."""
        return [re.sub(r"sha256:\w+", "…", f"{q.method} {q.path}") for q in self.server.asked]

    def answer(self, question: Question) -> Answer:
        if (said := self.trouble(question)) is not None:
            return said
        if question.path == "/token":
            return self._token(question)
        if self.token and question.headers.get("authorization") != f"Bearer {self.token}":
            offer = f'Bearer realm="{self.url}/token",service="fake",scope="repository:x:pull"'
            return problem(401, "UNAUTHORIZED", **{"www-authenticate": offer})
        if question.path == "/v2/":
            return Answer(b"{}")
        _, kind, name = question.path.rsplit("/", 2)
        match question.method, kind:
            case "POST", "uploads":
                base = f"http://{self.elsewhere}" if self.elsewhere else ""
                return Answer(status=202, headers={"location": f"{base}{question.path}1?state=a%2Fb"})
            case "PUT", "uploads":
                return self._upload(question)
            case "PUT", "manifests":
                return self._manifest(question, name)
            case "GET" | "HEAD", "blobs" if name in self.blobs:
                return Answer(self.blobs[name], headers={"docker-content-digest": name})
            case "GET" | "HEAD", "manifests" if name in self.manifests:
                media, body = self.manifests[name]
                headers = {"docker-content-digest": digest(body), "content-type": media}
                return Answer(body, headers=headers)
        return problem(404, "BLOB_UNKNOWN" if kind == "blobs" else "MANIFEST_UNKNOWN")

    def _token(self, question: Question) -> Answer:
        basic = httpx.BasicAuth(USER, PASSWORD)
        wanted = next(basic.auth_flow(httpx.Request("GET", "http://x"))).headers["authorization"]
        if question.headers.get("authorization") != wanted:
            return problem(401, "UNAUTHORIZED")
        return Answer(json.dumps({"token": self.token}).encode())

    def _upload(self, question: Question) -> Answer:
        name = question.given["digest"]
        if digest(question.body) != name or question.given.get("state") != "a/b":
            return problem(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        self.blobs[name] = question.body
        return Answer(status=201, headers={"docker-content-digest": name})

    def _manifest(self, question: Question, name: str) -> Answer:
        named = json.loads(question.body)
        if any(part["digest"] not in self.blobs for part in (named["config"], *named["layers"])):
            return problem(400, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry")
        held = (question.headers["content-type"], question.body)
        self.manifests |= {name: held, digest(question.body): held}
        return Answer(status=201, headers={"docker-content-digest": digest(question.body)})


def digest(body: bytes) -> str:
    return "sha256:" + hashlib.sha256(body).hexdigest()


def problem(status: int, code: str, message: str = "", **headers: str) -> Answer:
    """As the specification has errors."""
    said = {"errors": [{"code": code, "message": message or code.lower().replace("_", " ")}]}
    return Answer(json.dumps(said).encode(), status, headers)
