"""A control plane with its admission port, for the tests beside it. All of it is real."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from fakes.certificates import Authority
from integration.ledger.world import Delivery, World, artifact, built, suite_ran
from penstock.bootstrap import serve
from penstock.bootstrap.certificate import Certificate
from penstock.bootstrap.control import ControlPlane, open_control_plane
from penstock.bootstrap.home import AdmissionSettings, Home, Settings
from penstock.core.predicates import Predicate
from penstock.server.app import create_admission_app
from penstock.server.bounds import Bounds
from penstock.server.connections import Listener

SECONDS = 20.0
HOST = "penstock-admission.penstock.svc"
SIDECAR = "registry.example/istio/proxyv2"
GOOD = Delivery("d-good", artifact("good"))
BAD = Delivery("d-bad", artifact("bad"))


def image(delivery: Delivery) -> str:
    return f"registry.test/shop/catalog@{delivery.artifact.digest}"


@dataclass
class Door:
    """A control plane that a cluster may ask. *world* tells what is in its ledger."""

    control: ControlPlane
    world: World
    authority: Authority
    certificate: Certificate
    server: Any = None
    port: int = 0

    async def open(self) -> None:
        config = serve._config(Bounds(create_admission_app(self.control)))
        listener = serve._tcp(self.port, kind=Listener)
        self.port = listener.getsockname()[1]
        self.server = serve._Server(self.certificate.shown_by(config))
        self.serving = asyncio.create_task(self.server.serve(sockets=[listener]))
        async with asyncio.timeout(SECONDS):
            while not self.server.started:
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        self.server.should_exit = True
        await self.serving

    async def sign_off(self, delivery: Delivery, *evidence: Predicate) -> None:
        await self.world.propose(delivery)
        await self.world.report(delivery, built(), suite_ran(), *evidence)
        await self.world.gate(delivery, "deploy")

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[httpx.AsyncClient]:
        """As an API server would, by hand."""
        trust = ssl.create_default_context(cadata=_pem(self.authority))
        async with httpx.AsyncClient(verify=trust, trust_env=False, timeout=SECONDS) as client:
            yield client

    async def post(self, path: str, body: bytes, **headers: str) -> httpx.Response:
        async with self.asking() as client:
            url = f"https://127.0.0.1:{self.port}{path}"
            return await client.post(url, content=body, headers=headers, extensions={"sni_hostname": HOST})


def _pem(authority: Authority) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return authority.certificate.public_bytes(Encoding.PEM).decode()


@asynccontextmanager
async def opened(short_tmp: Path, tmp_path: Path) -> AsyncIterator[Door]:
    authority, home = Authority.new(), Home(short_tmp / "home")
    certificate, key = authority.issue(tmp_path, HOST)
    home.create()
    asked = AdmissionSettings(1, str(certificate), str(key), (SIDECAR,))
    home.keep(Settings(sandbox="none", admission=asked))
    control = await open_control_plane(home)
    keys = control.keys
    world = World(tmp_path, control.store, keys.logs[0], keys.operator, keys.worker, control.ledger)
    world.clock = time.time() + 60  # what people say comes after what was said when it was founded
    made = Door(control, world, authority, Certificate.of(asked))
    await made.open()
    yield made
    await made.close()
    await control.close()
