"""Who gets in, as a real Envoy has it: what it says, on open connections, and what waits for what."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from fakes.web import Website, free_port
from penstock.adapters.envoy import Envoy
from penstock.core.admission import NO_BREAKERS, Admission, Breakers
from penstock.core.fence import Fence
from penstock.core.traffic import WHOLE, Backend, Egress, TrafficPlan, TrafficState, Weight


@dataclass(frozen=True)
class Mesh:
    """The service ``web``, and the service ``shop`` that calls it by one kept connection: `calls`."""

    folder: Path
    envoy: Envoy
    sites: dict[str, Website]
    calls: httpx.AsyncClient
    users: httpx.AsyncClient

    async def serve(self, release: str, admission: Admission, breakers: Breakers = NO_BREAKERS) -> None:
        """All users on it."""
        state = await self.envoy.read("web", "production")
        backend = Backend(
            release, (self.sites[release].address,), "/health", admission=admission, breakers=breakers
        )
        state = await self.apply(state.exposing(backend))
        await self.apply(state.shifting(Weight(release, WHOLE)))

    async def apply(self, plan: TrafficPlan) -> TrafficState:
        return await self.envoy.apply(plan, fence=Fence(f"{plan.service}/{plan.environment}", 1, "key"))

    async def stat(self, name: str) -> int:
        """A number of Envoy's own."""
        transport = httpx.AsyncHTTPTransport(uds=str(self.folder / "admin.sock"), verify=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://envoy") as admin:
            found = (await admin.get(f"/stats?format=json&filter=^{name}$")).json()["stats"]
        return int(found[0]["value"])

    def logged(self, status: int) -> list[dict[str, object]]:
        """Lines of the access log with this status."""
        written = (self.folder / "access.log").read_text().split("\n")[:-1]
        return [line for line in map(json.loads, written) if line["status"] == status]

    async def counted(self, release: str) -> tuple[int, int, int | None]:
        found = {c.release: c for c in await self.envoy.counters("web", "production")}[release]
        return found.requests, found.errors, found.refused


@pytest.fixture
async def mesh(short_tmp: Path) -> AsyncIterator[Mesh]:
    sites = {name: Website(name) for name in ("web-1", "web-2", "shop-1")}
    envoy, socket = Envoy(short_tmp / "envoy", port := free_port()), short_tmp / "shop.sock"
    async with contextlib.AsyncExitStack() as stack:
        for site in sites.values():
            await site.start()
            stack.push_async_callback(site.stop)
        stack.push_async_callback(envoy.stop)
        calls = await stack.enter_async_context(
            httpx.AsyncClient(
                transport=httpx.AsyncHTTPTransport(uds=str(socket), verify=False), base_url="http://web"
            )
        )
        users = await stack.enter_async_context(httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}"))
        made = Mesh(short_tmp / "envoy", envoy, sites, calls, users)
        # Known first, so that the port of the service is the first one.
        await made.serve("web-1", Admission())
        shop = Backend("shop-1", (sites["shop-1"].address,), "/health", (Egress("web", f"unix:{socket}"),))
        await made.apply(TrafficPlan("shop", "production", (shop,), ()))
        yield made


async def test_the_answer_names_the_rule(mesh: Mesh) -> None:
    await mesh.serve("web-2", Admission(callers=("cart", "till"), public=False))
    called, asked = await mesh.calls.get("/"), await mesh.users.get("/")
    assert (called.status_code, called.text) == (
        403,
        "shop may not call web: its traffic.callers lets in cart, till\n",
    )
    assert (asked.status_code, asked.text) == (403, "web is not for users: its traffic.public is false\n")
    async with asyncio.timeout(10):
        while len(lines := mesh.logged(403)) < 2:
            await asyncio.sleep(0.05)
    assert sorted(str(line["caller"]) for line in lines) == ["None", "shop"]
    assert called.headers["x-penstock-flags"] == "-", "it is an answer of the proxy's own"
    await mesh.serve("web-1", Admission(callers=()))
    assert (
        await mesh.calls.get("/")
    ).text == "shop may not call web: its traffic.callers lets in no service\n"


async def test_a_limit_says_which_it_is(mesh: Mesh) -> None:
    await mesh.serve("web-2", Admission(per_second=1, burst=1), Breakers(requests=1))
    await mesh.users.get("/")
    limited = await mesh.calls.get("/")
    assert (limited.status_code, "traffic.rate" in limited.text) == (429, True)
    assert limited.headers["x-penstock-flags"] == "RL"
    await mesh.apply((await mesh.envoy.read("web", "production")).shifting(Weight("web-1", WHOLE)))
    await mesh.serve("web-1", Admission(), Breakers(requests=1))
    async with held(mesh, "web-1", 1):
        full = await mesh.users.get("/")
    assert (full.status_code, "traffic.most_requests" in full.text) == (503, True)
    assert full.headers["x-penstock-flags"] == "UO"


async def test_open_connections_follow_a_promotion_and_a_rollback(mesh: Mesh) -> None:
    """A listener is never replaced for it: one that is goes on serving the connections that it has."""
    seen = []
    for release, admission in (("web-2", Admission(callers=())), ("web-1", Admission())) * 2:
        await mesh.serve(release, admission)
        seen.append((await mesh.calls.get("/")).status_code)
    assert seen == [403, 200, 403, 200]
    assert await mesh.stat("http.out.shop-1.web.downstream_cx_total") == 1


async def test_a_request_above_the_connections_waits_for_one(mesh: Mesh) -> None:
    most, asked = 4, 16
    await mesh.serve("web-2", Admission(), Breakers(connections=most))
    waiting = [asyncio.ensure_future(mesh.users.get("/hold")) for _ in range(asked)]
    held = 0
    async with asyncio.timeout(10):
        while held + await mesh.stat("cluster.web-2.upstream_rq_pending_active") < asked:
            await asyncio.sleep(0.01)
            held = mesh.sites["web-2"].held
    # Each thread of Envoy has one at least, whatever the others have.
    assert 1 <= held < most + (os.cpu_count() or 1)
    mesh.sites["web-2"].let_go.set()
    assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}
    assert await mesh.counted("web-2") == (asked, 0, None)


async def test_the_next_driver_knows_who_gets_in(mesh: Mesh, short_tmp: Path) -> None:
    await mesh.serve("web-2", Admission(callers=("cart",), per_second=7, burst=9), Breakers(3, 4))
    before = await mesh.envoy.read("web", "production")
    after = await Envoy(short_tmp / "envoy").read("web", "production")
    assert (after, after.drift) == (before, "")


async def test_what_an_earlier_release_has_kept_is_read(mesh: Mesh, short_tmp: Path) -> None:
    file = short_tmp / "envoy" / "state.json"
    kept = json.loads(file.read_text())
    for plan in (*kept["plans"].values(), *kept["begun"].values()):
        for backend in plan["backends"]:
            del backend["admission"], backend["breakers"]
    file.write_text(json.dumps(kept))
    state = await Envoy(short_tmp / "envoy").read("web", "production")
    assert (state.admission, state.drift) == (Admission(), "")


@contextlib.asynccontextmanager
async def held(mesh: Mesh, release: str, count: int) -> AsyncIterator[None]:
    """*count* requests of users that the release has not answered yet."""
    asked = [asyncio.ensure_future(mesh.users.get("/hold")) for _ in range(count)]
    try:
        async with asyncio.timeout(10):
            while mesh.sites[release].held < count:
                await asyncio.sleep(0.01)
        yield
    finally:
        mesh.sites[release].let_go.set()
        await asyncio.gather(*asked)
