"""Certificates of two machines are renewed, lost, and signed by another authority, while calls go on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from fakes.machines import STOREFRONT, NotLetIn, Scene, asked, dial, machines, until
from penstock.adapters.issuer import LocalIssuer
from penstock.cli.load import run as load
from penstock.errors import Conflict


@pytest.fixture
async def scene(short_tmp: Path) -> AsyncIterator[Scene]:
    async with machines(short_tmp, 3600.0) as found:
        yield found


@pytest.fixture
async def short_lived(short_tmp: Path) -> AsyncIterator[Scene]:
    """Certificates that live for four seconds, and so are renewed after two."""
    async with machines(short_tmp, 4.0) as found:
        yield found


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


async def test_certificates_that_are_gone_are_made_before_the_proxy_starts(scene: Scene) -> None:
    """As after a restore: a backup holds no certificates, and Envoy would refuse what shows them."""
    url = await scene.calling()
    for machine in (scene.west, scene.east):
        await machine.stop()
        for file in (machine.folder / "envoy").glob("sds-*.json"):
            file.unlink()
    async with scene.west.tended(), scene.east.tended():
        deadline = time.monotonic() + 10
        while not (await answered(url)):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


async def answered(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return (await asked(url)).status_code == 200
    return False


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
        await scene.west.export(scene.front, service="other")  # nor is anybody else held up
        with pytest.raises(Conflict, match="key of the mesh's authority is gone"):
            await scene.west.caller("shop", scene.front, scene.east.remote("west"))
        before = scene.west.secret("storefront").read_text()
        key.write_bytes(kept)
        key.chmod(0o600)
        await until(lambda: scene.west.secret("storefront").read_text() != before)
        assert (await asked(url)).status_code == 200
