"""Webhooks from the command line to the receiver: a real server, a real delivery, a receiver on loopback."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from playhouse import Playhouse, opened
from shell import Shell

from fakes.receiver import ReceiverServer
from penstock.core.webhook import headers, read_secret


@pytest.fixture(scope="module")
def house() -> Iterator[Playhouse]:
    with opened() as found:
        yield found


@pytest.fixture
async def server() -> AsyncIterator[ReceiverServer]:
    made = ReceiverServer()
    await made.start()
    yield made
    await made.stop()


def told_of(events: list[dict[str, Any]], delivery: str) -> list[str]:
    """The standard events of a delivery, in the order in which they came."""
    kinds = [event["type"] for event in events if event["data"]["context"]["chainId"] == delivery]
    own = [kind for kind in kinds if kind.startswith("dev.cdevents.")]
    return [kind.removeprefix("dev.cdevents.").removesuffix(".0.3.0") for kind in own]


async def test_a_delivery_is_told_from_its_start_to_its_end(
    sh: Shell, house: Playhouse, server: ReceiverServer
) -> None:
    added = await asyncio.to_thread(sh.json, "webhook", "add", "chat", server.url)
    secret = read_secret(added["secret"])
    (file,) = house.home.keys.glob("webhook-*")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    first = await asyncio.to_thread(house.ship, "first")
    slow = await asyncio.to_thread(house.ship, "slow")
    async with asyncio.timeout(20):
        while not any(b"rolledback" in message.body for message in server.got):
            await asyncio.sleep(0.02)
        while sum(b"pipelinerun.finished" in message.body for message in server.got) < 2:
            await asyncio.sleep(0.02)
    events = [json.loads(message.body) for message in server.accepted]
    assert told_of(events, first["id"]) == [
        "pipelinerun.started", "artifact.packaged", "testsuiterun.finished", "service.published",
        "pipelinerun.finished",
    ]  # fmt: skip
    assert told_of(events, slow["id"]) == [
        "pipelinerun.started", "artifact.packaged", "testsuiterun.finished", "service.rolledback",
        "pipelinerun.finished",
    ]  # fmt: skip
    assert any(event["type"].startswith("dev.cdeventsx.penstock-signoff.") for event in events)
    times = [event["time"] for event in events if event["data"]["context"]["chainId"] == first["id"]]
    assert times == sorted(times)
    for message in server.accepted:
        given = message.headers
        expected = headers(secret, given["webhook-id"], int(given["webhook-timestamp"]), message.body)
        assert given["webhook-signature"] == expected["webhook-signature"]
    await asyncio.to_thread(sh.ok, "webhook", "remove", "chat")
    assert not file.exists()


async def test_add_list_test_and_remove_say_what_they_did(
    sh: Shell, house: Playhouse, server: ReceiverServer
) -> None:
    assert "nobody is told" in await asyncio.to_thread(sh.ok, "webhook", "list")
    out = await asyncio.to_thread(sh.ok, "webhook", "add", "mail", server.url)
    assert "shown once): whsec_" in out
    secret = out.partition("whsec_")[2].split()[0]
    listed = await asyncio.to_thread(sh.ok, "webhook", "list")
    assert server.url in listed
    assert secret not in listed
    assert "answered 204" in await asyncio.to_thread(sh.ok, "webhook", "test", "mail")
    server.statuses = [500]
    await asyncio.to_thread(sh, "webhook", "test", "mail")
    assert (sh.code, "answered 500" in sh.out) == (1, True)
    await server.stop()
    await asyncio.to_thread(sh, "webhook", "test", "mail")
    assert (sh.code, "does not answer" in sh.err) == (3, True)
    await asyncio.to_thread(sh, "webhook", "add", "mail", server.url)
    assert (sh.code, "penstock webhook remove mail" in sh.err) == (1, True)
    assert "told no more" in await asyncio.to_thread(sh.ok, "webhook", "remove", "mail")
    await asyncio.to_thread(sh, "webhook", "remove", "mail")
    assert (sh.code, "known: none" in sh.err) == (2, True)


@pytest.mark.parametrize(
    "words",
    [
        ("add", "Bad Name", "http://127.0.0.1:1/"),
        ("add", "../../trust", "http://127.0.0.1:1/"),
        ("add", "chat", "ftp://127.0.0.1/"),
        ("add", "chat", "not a url"),
        ("remove", "../x"),
        ("remove", "nobody"),
        ("test", "nobody"),
        ("test", "a b"),
    ],
)
def test_bad_input_is_told_and_nothing_is_kept(sh: Shell, house: Playhouse, words: tuple[str, ...]) -> None:
    sh("webhook", *words)
    assert sh.code == 2, (sh.out, sh.err)
    assert "✗" in sh.err
    assert sh.json("webhook", "list") == {"webhooks": []}
    assert list(house.home.keys.glob("webhook-*")) == []


def test_only_an_administrator_may_choose_who_is_told(sh: Shell, house: Playhouse) -> None:
    token = sh.json("identity", "token", "stranger")["token"]
    with house.client(authorization=f"Bearer {token}") as client:
        answers: list[httpx.Response] = [
            client.post("/v1/webhooks", json={"name": "chat", "url": "http://127.0.0.1:1/"}),
            client.delete("/v1/webhooks/chat"),
            client.post("/v1/webhooks/chat/test"),
        ]
        assert [answer.status_code for answer in answers] == [403, 403, 403]
