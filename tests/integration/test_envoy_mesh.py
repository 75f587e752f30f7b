"""Calls between two machines over mutual TLS: two real Envoys on loopback, each with its own authority."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.machines import ENVIRONMENT, Machine, asked
from fakes.web import Website, free_port
from penstock.adapters.issuer import LocalIssuer
from penstock.cli.load import run as load
from penstock.core.mesh import Export, Issued, identity, server_name
from penstock.core.traffic import Backend, Egress, TrafficPlan, Weight
from penstock.errors import Conflict, Invalid

STOREFRONT = identity("west", ENVIRONMENT, "storefront")


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


@pytest.fixture
async def scene(short_tmp: Path) -> AsyncIterator[Scene]:
    async with machines(short_tmp, 3600.0) as found:
        yield found


@pytest.fixture
async def short_lived(short_tmp: Path) -> AsyncIterator[Scene]:
    """Certificates that live for four seconds, and so are renewed after two."""
    async with machines(short_tmp, 4.0) as found:
        yield found


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
        export = Export("east", scene.east.address, (scene.west.admitted("storefront"),))
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
        export = Export("east", scene.east.address, (scene.west.admitted("storefront"),))
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
    reader, writer = await asyncio.open_connection("127.0.0.1", scene.east.mesh_port)
    writer.write(b"GET / HTTP/1.1\r\nhost: catalog\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
    assert scene.site.requests == 0


@pytest.mark.parametrize("name", [STOREFRONT, identity("north", ENVIRONMENT, "storefront")])
async def test_a_certificate_of_a_stranger_is_refused(scene: Scene, name: str) -> None:
    """An authority of which east knows nothing, whatever name it gives."""
    await scene.calling()
    stranger = Machine(scene.folder / "strangers", "north", 3600.0)
    with pytest.raises(NotLetIn):
        await dial(scene.east, scene.folder, stranger.issuer.issue(name))
    assert scene.site.requests == 0


async def test_a_peer_vouches_for_its_own_services_alone(scene: Scene) -> None:
    north = Machine(scene.folder / "strangers", "north", 3600.0)
    await scene.east.export(scene.site, scene.west.admitted("storefront"), north.admitted("shop"))
    with pytest.raises(NotLetIn):
        await dial(scene.east, scene.folder, north.issuer.issue(STOREFRONT))
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


async def test_an_export_that_ends_is_refused_from_then_on(scene: Scene) -> None:
    url = await scene.calling()
    assert (await asked(url)).status_code == 200
    await scene.east.export(scene.site)
    answer = await asked(url)  # on a connection that was let in before
    assert answer.status_code == 403
    assert "catalog is not exported to spiffe://west/production/storefront" in answer.text


@pytest.mark.parametrize(
    ("clock", "life", "good"), [(0, -10, False), (240, 3600, True), (600, 3600, False), (-3500, 3600, True)]
)
async def test_clocks_may_differ_and_what_has_ended_has_ended(
    scene: Scene, clock: float, life: float, good: bool
) -> None:
    """Certificates of a peer whose clock is *clock* seconds ahead, and whose certificates live *life*."""
    await scene.calling()
    peer = LocalIssuer(scene.west.keys, life, lambda: time.time() + clock)
    asking = dial(scene.east, scene.folder, peer.issue(STOREFRONT))
    if good:
        assert (await asking).status == 200
        return
    with pytest.raises(NotLetIn):
        await asking
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


# --- certificates are renewed ------------------------------------------------------------------------------


async def test_a_rotation_loses_no_request(short_lived: Scene) -> None:
    scene = short_lived
    url = await scene.calling()
    shown: set[bytes] = set()
    async with scene.west.tended(), scene.east.tended():
        loading = asyncio.create_task(load([f"{url}/"], 100.0, 9.0, scene.folder / "load.json"))
        while not loading.done():  # connections of their own beside those that the load keeps
            answer = await dial(scene.east, scene.folder, scene.west.issuer.issue(STOREFRONT))
            assert answer.status == 200
            shown.add(answer.certificate)
            await asyncio.sleep(0.1)
        counts = await loading
    assert counts.requests > 500
    assert (counts.failed_by_switching, dict(counts.errors)) == (0, {})
    assert len(shown) >= 4


async def test_an_agent_that_was_away_renews_when_it_is_back(short_lived: Scene) -> None:
    scene = short_lived
    url = await scene.calling()
    file = scene.east.secret("catalog")
    first = file.read_text()
    ended = float(json.loads(first)["version_info"].split()[2])
    # Past half of its life, with nobody there to renew it.
    await until(lambda: time.time() > ended - 1.0)
    assert (await asked(url)).status_code == 200
    assert file.read_text() == first
    # Past its end: nobody is believed any more, and nothing goes out in plain.
    await until(lambda: time.time() > ended + 1.0)
    with pytest.raises(NotLetIn):
        await dial(scene.east, scene.folder, LocalIssuer(scene.west.keys).issue(STOREFRONT))
    async with scene.west.tended(), scene.east.tended():
        await until(lambda: file.read_text() != first)
        answer = await dial(scene.east, scene.folder, scene.west.issuer.issue(STOREFRONT))
        assert answer.status == 200
        assert (await asked(url)).status_code == 200


async def test_keys_are_for_their_owner_and_go_with_their_use(scene: Scene) -> None:
    await scene.calling()
    files = [scene.east.secret("catalog"), scene.west.secret("storefront"), scene.east.keys / "mesh-0001.key"]
    assert [oct(file.stat().st_mode)[-3:] for file in files] == ["600"] * 3
    await scene.east.export(scene.site)
    assert not files[0].exists()


async def test_two_authorities_are_trusted_while_one_follows_the_other(scene: Scene) -> None:
    url = await scene.calling()
    old = scene.west.issuer.issue(STOREFRONT)
    scene.west.issuer.prepare()
    await scene.east.export(scene.site, scene.west.admitted("storefront"))
    scene.west.issuer.switch()
    async with scene.west.tended():
        await until(lambda: "mesh-0002" in scene.west.secret("storefront").read_text())
    for shown in (old, scene.west.issuer.issue(STOREFRONT)):
        assert (await dial(scene.east, scene.folder, shown)).status == 200
    assert (await asked(url)).status_code == 200
    await scene.east.export(scene.site, scene.west.admitted("storefront"))
    with pytest.raises(NotLetIn):
        await dial(scene.east, scene.folder, old)
    assert (await asked(url)).status_code == 200


async def test_a_lost_key_is_told_and_no_new_authority_is_made_in_silence(
    short_lived: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene = short_lived
    url = await scene.calling()
    key, kept = scene.west.keys / "mesh-0001.key", (scene.west.keys / "mesh-0001.key").read_bytes()
    key.unlink()
    async with scene.west.tended(), scene.east.tended():
        await until(lambda: "the key of the mesh's authority is gone" in caplog.text)
        assert (await asked(url)).status_code == 200  # what runs goes on
        with pytest.raises(Conflict, match="key of the mesh's authority is gone"):
            await scene.west.caller("shop", scene.front, scene.east.remote("west"))
        before = scene.west.secret("storefront").read_text()
        key.write_bytes(kept)
        key.chmod(0o600)
        await until(lambda: scene.west.secret("storefront").read_text() != before)
        assert (await asked(url)).status_code == 200


# --- what cannot be ----------------------------------------------------------------------------------------


async def test_where_somebody_else_listens_nothing_is_changed(scene: Scene) -> None:
    users = await scene.east.export(scene.site, service="shop")
    taken = Export("east", scene.front.address, (scene.west.admitted("storefront"),))
    backend = Backend("catalog-1", (scene.site.address,), "/health", export=taken)
    with pytest.raises(Invalid, match="cannot listen at"):
        await scene.east.apply(TrafficPlan("catalog", ENVIRONMENT, (backend,), (Weight("catalog-1", 1000),)))
    assert (await asked(users.address)).status_code == 200
    assert (await scene.east.export(scene.site, service="other")).weights == (Weight("other-1", 1000),)
