"""Two machines on loopback, each with an Envoy and an authority of its own, whose services call one another.

A real node agent looks after each while its block lasts. Must not know how certificates are made.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from fakes.node import agent_at
from fakes.platform import FakePlatform
from fakes.web import Website, free_port
from penstock.adapters.envoy import Envoy
from penstock.adapters.issuer import LocalIssuer
from penstock.core.fence import Fence
from penstock.core.mesh import Admitted, Export, Issued, Remote, identity, server_name
from penstock.core.traffic import Backend, Egress, TrafficPlan, TrafficState, Weight

ENVIRONMENT = "production"
STOREFRONT = identity("west", ENVIRONMENT, "storefront")


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
        export = self.exporting(*admitted) if admitted else None
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

    async def logged(self, words: str) -> None:
        """Wait until the proxy's log tells it."""
        log = self.folder / "envoy" / "access.log"
        await until(lambda: words in log.read_text())

    def exporting(self, *admitted: Admitted) -> Export:
        """To these peers, at our own address."""
        return Export(self.domain, self.address, admitted)

    def admitted(self, *services: str, trust: str = "") -> Admitted:
        """Our services, as a peer admits them."""
        return Admitted(self.domain, trust or self.issuer.trust(), services)

    def remote(self, own: str, *, trust: str = "", address: str = "", domain: str = "") -> Remote:
        """Ourselves, as the peer *own* calls us."""
        return Remote(own, domain or self.domain, address or self.address, trust or self.issuer.trust())


async def asked(url: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=10, verify=False) as client:
        return await client.get(url)


@dataclass
class Scene:
    """*west* calls, *east* is called; *site* stands behind the catalog of *east*."""

    west: Machine
    east: Machine
    site: Website
    front: Website
    folder: Path

    async def calling(self) -> str:
        """The catalog of *east* is exported to the storefront of *west*; where that calls it."""
        await self.east.export(self.site, self.west.admitted("storefront"))
        return await self.west.caller("storefront", self.front, self.east.remote("west"))


@contextlib.asynccontextmanager
async def machines(folder: Path, seconds: float) -> AsyncIterator[Scene]:
    async with contextlib.AsyncExitStack() as stack:
        sites = Website("catalog-1"), Website("storefront-1")
        for site in sites:
            await site.start()
            stack.push_async_callback(site.stop)
        west, east = Machine(folder, "west", seconds), Machine(folder, "east", seconds)
        for machine in (west, east):
            stack.push_async_callback(machine.stop)
        yield Scene(west, east, *sites, folder)


class NotLetIn(Exception):
    """The listener took no request: why, as the caller's end of TLS tells it."""


@dataclass(frozen=True)
class Dialled:
    status: int
    body: str
    certificate: bytes


async def dial(east: Machine, scratch: Path, shown: Issued | None, service: str = "catalog") -> Dialled:
    """One request of a caller of any making, on a connection of its own."""
    context = ssl.create_default_context(cadata=east.issuer.trust())
    context.check_hostname = False  # names are URIs here
    if shown is not None:
        pair = scratch / "shown.pem"
        pair.write_text(shown.chain + shown.key)
        context.load_cert_chain(pair)
    name = server_name(east.domain, ENVIRONMENT, service)
    try:
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", east.mesh_port, ssl=context, server_hostname=name
            )
            certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            writer.write(b"GET / HTTP/1.1\r\nhost: catalog\r\nconnection: close\r\n\r\n")
            answer = (await reader.read()).decode()
            writer.close()
    except (ssl.SSLError, ConnectionError) as error:
        raise NotLetIn(str(error)) from error
    if not answer:
        raise NotLetIn("closed without a word")
    head, _, body = answer.partition("\r\n\r\n")
    return Dialled(int(head.split()[1]), body, certificate)


async def until(met: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not met():
            await asyncio.sleep(0.02)
