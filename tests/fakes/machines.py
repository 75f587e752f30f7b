"""Two machines on loopback, each with an Envoy and an authority of its own, whose services call one another.

A real node agent looks after each while its block lasts. Must not know how certificates are made.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from fakes.node import agent_at
from fakes.platform import FakePlatform
from fakes.web import Website, free_port
from penstock.adapters.envoy import Envoy
from penstock.adapters.issuer import LocalIssuer
from penstock.core.fence import Fence
from penstock.core.mesh import Admitted, Export, Remote
from penstock.core.traffic import Backend, Egress, TrafficPlan, TrafficState, Weight

ENVIRONMENT = "production"


class Machine:
    """The installation *domain*; its certificates live *seconds*."""

    def __init__(self, folder: Path, domain: str, seconds: float) -> None:
        self.domain = domain
        self.folder = folder / domain
        self.keys = self.folder / "keys"
        self.keys.mkdir(parents=True)
        self.mesh_port = free_port()
        self.issuer = LocalIssuer(self.keys, seconds)
        self._first_port = free_port()
        self._drivers: list[Envoy] = []
        self.envoy = self._driver()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.mesh_port}"

    def _driver(self) -> Envoy:
        self._drivers.append(Envoy(self.folder / "envoy", self._first_port, self.issuer))
        return self._drivers[-1]

    @contextlib.asynccontextmanager
    async def tended(self) -> AsyncIterator[None]:
        """With a node agent, which is a new one each time."""
        self.envoy = self._driver()
        async with agent_at(self.folder / "node", FakePlatform(), self.envoy):
            yield

    async def stop(self) -> None:
        for driver in reversed(self._drivers):  # the process is a child of the one that started it
            await driver.stop()

    async def apply(self, plan: TrafficPlan) -> TrafficState:
        fence = Fence(f"{plan.service}/{plan.environment}", 1, "key")
        return await self.envoy.apply(plan, fence=fence)

    async def export(self, site: Website, *admitted: Admitted, service: str = "catalog") -> TrafficState:
        """Serve *service* by a site, to peers too if any are *admitted*."""
        export = Export(self.domain, self.address, admitted) if admitted else None
        backend = Backend(f"{service}-1", (site.address,), "/health", export=export)
        return await self.apply(
            TrafficPlan(service, ENVIRONMENT, (backend,), (Weight(backend.release, 1000),))
        )

    async def caller(self, service: str, site: Website, remote: Remote, callee: str = "catalog") -> str:
        """Serve *service*, which calls *callee* at a peer; the address at which it does."""
        where = f"127.0.0.1:{free_port()}"
        backend = Backend(f"{service}-1", (site.address,), "/health", (Egress(callee, where, remote),))
        plan = TrafficPlan(service, ENVIRONMENT, (backend,), (Weight(backend.release, 1000),))
        await self.apply(plan)
        return f"http://{where}"

    def secret(self, service: str) -> Path:
        """The file with the certificate that one of our services shows."""
        return self.folder / "envoy" / f"sds-{self.domain}%2F{ENVIRONMENT}%2F{service}.json"

    def admitted(self, *services: str, trust: str = "") -> Admitted:
        """Our services, as a peer admits them."""
        return Admitted(self.domain, trust or self.issuer.trust(), services)

    def remote(self, own: str, *, trust: str = "", address: str = "", domain: str = "") -> Remote:
        """Ourselves, as the peer *own* calls us."""
        return Remote(own, domain or self.domain, address or self.address, trust or self.issuer.trust())


async def asked(url: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=10) as client:
        return await client.get(url)
