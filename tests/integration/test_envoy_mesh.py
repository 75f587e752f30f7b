"""Calls between two machines over mutual TLS: two real Envoys on loopback, each with its own authority."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.machines import ENVIRONMENT, STOREFRONT, Machine, NotLetIn, Scene, asked, dial, machines
from fakes.web import Website, free_port
from penstock.adapters.issuer import LocalIssuer
from penstock.core.admission import Admission
from penstock.core.mesh import Export, Issued, identity
from penstock.core.traffic import Backend, Egress, TrafficPlan, Weight
from penstock.errors import Invalid


@pytest.fixture
async def scene(short_tmp: Path) -> AsyncIterator[Scene]:
    async with machines(short_tmp, 3600.0) as found:
        yield found


# --- it works ----------------------------------------------------------------------------------------------


async def test_a_call_reaches_the_service_of_a_peer_and_neither_knows(scene: Scene) -> None:
    answer = await asked(f"{await scene.calling()}/items")
    assert (answer.status_code, answer.text) == (200, "catalog-1"), answer.text
    head = scene.site.heads[-1]
    assert head.startswith("get /items http/1.1")
    assert "penstock" not in head
    assert "client-cert" not in head
    assert scene.front.requests == 0


async def test_peers_see_the_weights_that_everybody_sees(scene: Scene) -> None:
    url = await scene.calling()
    second = Website("catalog-2")
    await second.start()
    try:
        export = scene.east.exporting(scene.west.admitted("storefront"))
        backends = tuple(
            Backend(site.name, (site.address,), "/health", export=export) for site in (scene.site, second)
        )
        plan = TrafficPlan(
            "catalog", ENVIRONMENT, backends, (Weight("catalog-1", 500), Weight("catalog-2", 500))
        )
        await scene.east.apply(plan)
        assert {(await asked(url)).text for _ in range(40)} == {"catalog-1", "catalog-2"}
    finally:
        await second.stop()


async def test_a_peer_may_be_given_by_name(scene: Scene) -> None:
    await scene.east.export(scene.site, scene.west.admitted("storefront"))
    remote = scene.east.remote("west", address=f"localhost:{scene.east.mesh_port}")
    assert (await asked(await scene.west.caller("storefront", scene.front, remote))).status_code == 200


async def test_what_a_caller_says_of_its_calls_counts_and_nobody_elses_change(scene: Scene) -> None:
    """West has a catalog too: its storefront's calls go to east, those of its shop stay."""
    local = Website("catalog-9")
    await local.start()
    try:
        url = await scene.calling()
        where = f"127.0.0.1:{free_port()}"
        shop = Backend("shop-1", (scene.front.address,), "/health", (Egress("catalog", where),))
        await scene.west.apply(TrafficPlan("shop", ENVIRONMENT, (shop,), (Weight("shop-1", 1000),)))
        await scene.west.export(local)
        assert ((await asked(url)).text, (await asked(f"http://{where}")).text) == ("catalog-1", "catalog-9")
    finally:
        await local.stop()


async def test_a_websocket_goes_through(scene: Scene) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"upgrade" not in (await reader.readuntil(b"\r\n\r\n")).lower():
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        else:
            writer.write(
                b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
            )
            writer.write((await reader.readexactly(4)).upper())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, asyncio.timeout(10):
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        export = scene.east.exporting(scene.west.admitted("storefront"))
        backend = Backend("catalog-1", (address,), "/health", export=export)
        await scene.east.apply(TrafficPlan("catalog", ENVIRONMENT, (backend,), (Weight("catalog-1", 1000),)))
        url = await scene.west.caller("storefront", scene.front, scene.east.remote("west"))
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(
            b"GET / HTTP/1.1\r\nhost: catalog\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"ping")
        assert await reader.readexactly(4) == b"PING"
        writer.close()


# --- who is let in -----------------------------------------------------------------------------------------


async def test_who_shows_a_good_certificate_is_let_in(scene: Scene) -> None:
    """So that the refusals below are refusals of what they say."""
    await scene.calling()
    answer = await dial(scene.east, scene.folder, scene.west.issuer.issue(STOREFRONT))
    assert (answer.status, answer.body) == (200, "catalog-1")


async def test_without_a_certificate_nobody_is_let_in(scene: Scene) -> None:
    await scene.calling()
    with pytest.raises(NotLetIn):
        await dial(scene.east, scene.folder, None)
    await scene.east.logged("PEER_DID_NOT_RETURN_A_CERTIFICATE")
    reader, writer = await asyncio.open_connection("127.0.0.1", scene.east.mesh_port)
    writer.write(b"GET / HTTP/1.1\r\nhost: catalog\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
    assert scene.site.requests == 0


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (STOREFRONT, "unable_to_get_local_issuer_certificate"),
        (identity("north", ENVIRONMENT, "storefront"), "no_trust_bundle_store"),
    ],
)
async def test_a_certificate_of_a_stranger_is_refused(scene: Scene, name: str, why: str) -> None:
    """An authority of which east knows nothing, whatever name it gives."""
    await scene.calling()
    stranger = Machine(scene.folder / "strangers", "north", 3600.0)
    with pytest.raises(NotLetIn):
        await dial(scene.east, scene.folder, stranger.issuer.issue(name))
    await scene.east.logged(why)
    assert scene.site.requests == 0


async def test_a_peer_vouches_for_its_own_services_alone(scene: Scene) -> None:
    north = Machine(scene.folder / "strangers", "north", 3600.0)
    await scene.east.export(scene.site, scene.west.admitted("storefront"), north.admitted("shop"))
    with pytest.raises(NotLetIn):
        await dial(scene.east, scene.folder, north.issuer.issue(STOREFRONT))
    await scene.east.logged("unable_to_get_local_issuer_certificate")
    own = await dial(scene.east, scene.folder, north.issuer.issue(identity("north", ENVIRONMENT, "shop")))
    assert own.status == 200


async def test_a_service_of_a_peer_that_is_not_named_is_told_so(scene: Scene) -> None:
    await scene.calling()
    url = await scene.west.caller("shop", scene.front, scene.east.remote("west"))
    answer = await asked(url)
    assert answer.status_code == 403
    assert answer.text == "catalog is not exported to spiffe://west/production/shop in production\n"
    assert scene.site.requests == 0


async def test_a_service_that_is_not_exported_cannot_be_asked_for(scene: Scene) -> None:
    await scene.calling()
    await scene.east.export(scene.site, service="hidden")
    with pytest.raises(NotLetIn):
        await dial(scene.east, scene.folder, scene.west.issuer.issue(STOREFRONT), "hidden")
    await scene.east.logged('"asked":"hidden.production.east","caller":null,"details":null,"flags":"NR"')


async def test_peers_are_let_in_by_exports_alone(scene: Scene) -> None:
    """They are no users, and none of the callers on this machine: what is said of those is not about them."""
    export = scene.east.exporting(scene.west.admitted("storefront"))
    admission = Admission(callers=("shop",), public=False)
    backend = Backend("catalog-1", (scene.site.address,), "/health", export=export, admission=admission)
    plan = TrafficPlan("catalog", ENVIRONMENT, (backend,), (Weight("catalog-1", 1000),))
    users = (await scene.east.apply(plan)).address
    url = await scene.west.caller("storefront", scene.front, scene.east.remote("west"))
    assert ((await asked(url)).status_code, (await asked(users)).status_code) == (200, 403)


async def test_an_export_that_ends_is_refused_from_then_on(scene: Scene) -> None:
    url = await scene.calling()
    assert (await asked(url)).status_code == 200
    before = scene.site.requests
    await scene.east.export(scene.site)
    answer = await asked(url)  # by a connection that was let in before, unless that is being closed already
    why = {
        403: "catalog is not exported to spiffe://west/production/storefront",
        503: "catalog at the peer east",
    }
    assert why[answer.status_code] in answer.text
    assert scene.site.requests == before
    await scene.east.export(scene.site, scene.west.admitted("storefront"))
    assert (await asked(url)).status_code == 200


@pytest.mark.parametrize(
    ("ahead", "life", "refused"),
    [
        (0, -10, "certificate_has_expired"),
        (240, 3600, ""),
        (600, 3600, "certificate_is_not_yet_valid"),
        (-3500, 3600, ""),
        (-3700, 3600, "certificate_has_expired"),
    ],
)
async def test_clocks_may_differ_by_so_much(scene: Scene, ahead: float, life: float, refused: str) -> None:
    """A peer whose clock is *ahead* by some seconds, with certificates that live *life*."""
    await scene.calling()
    peer = LocalIssuer(scene.west.keys, life, lambda: time.time() + ahead)
    asking = dial(scene.east, scene.folder, peer.issue(STOREFRONT))
    if not refused:
        assert (await asking).status == 200
        return
    with pytest.raises(NotLetIn):
        await asking
    await scene.east.logged(refused)
    assert scene.site.requests == 0


# --- whom a caller believes --------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def answering(scene: Scene, shown: Issued) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Somebody who answers in place of *east*; where, and what he was sent over TLS."""
    context, heard = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), list[bytes]()
    pair = scene.folder / "answering.pem"
    pair.write_text(shown.chain + shown.key)
    context.load_cert_chain(pair)
    context.set_alpn_protocols(["h2"])

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(100))
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", heard


@pytest.mark.parametrize("case", ["another service", "another authority", "ended"])
async def test_a_caller_sends_nothing_to_who_is_not_the_service(scene: Scene, case: str) -> None:
    catalog = identity("east", ENVIRONMENT, "catalog")
    shown = {
        "another service": lambda: scene.east.issuer.issue(identity("east", ENVIRONMENT, "shop")),
        "another authority": lambda: scene.west.issuer.issue(catalog),
        "ended": lambda: LocalIssuer(scene.east.keys, -10).issue(catalog),
    }[case]()
    async with answering(scene, shown) as (address, heard):
        remote = scene.east.remote("west", address=address)
        answer = await asked(await scene.west.caller("storefront", scene.front, remote))
        assert answer.status_code == 503
        assert f"catalog at the peer east ({address}): " in answer.text
        assert "CERTIFICATE_VERIFY_FAILED" in answer.text
        assert b"".join(heard) == b""


async def test_a_peer_that_is_down_is_named_and_comes_back(scene: Scene) -> None:
    remote = scene.east.remote("west")
    url = await scene.west.caller("storefront", scene.front, remote)
    answer = await asked(url)
    assert (answer.status_code, answer.headers["x-penstock-flags"]) == (503, "URX,UF")
    assert f"catalog at the peer east ({scene.east.address}): " in answer.text
    await scene.east.export(scene.site, scene.west.admitted("storefront"))
    assert (await asked(url)).status_code == 200


async def test_a_peer_that_speaks_no_tls_is_sent_nothing(scene: Scene) -> None:
    """Never plaintext as a fall-back: what arrives is the beginning of a handshake, and no request."""
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(4096))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        url = await scene.west.caller("storefront", scene.front, scene.east.remote("west", address=address))
        answer = await asked(f"{url}/secret-path")
    assert answer.status_code == 503
    assert heard
    assert all(said.startswith(b"\x16\x03") and b"secret-path" not in said for said in heard)


# --- what cannot be ----------------------------------------------------------------------------------------


async def test_where_somebody_else_listens_nothing_is_changed(scene: Scene) -> None:
    users = await scene.east.export(scene.site, service="shop")
    taken = Export("east", scene.front.address, (scene.west.admitted("storefront"),))
    backend = Backend("catalog-1", (scene.site.address,), "/health", export=taken)
    with pytest.raises(Invalid, match="cannot listen at"):
        await scene.east.apply(TrafficPlan("catalog", ENVIRONMENT, (backend,), (Weight("catalog-1", 1000),)))
    assert (await asked(users.address)).status_code == 200
    assert (await scene.east.export(scene.site, service="other")).weights == (Weight("other-1", 1000),)
