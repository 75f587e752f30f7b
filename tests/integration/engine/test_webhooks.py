"""Webhooks to a real receiver that fails, hangs, goes away and comes back: nothing is lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fakes.receiver import Message, ReceiverServer
from integration.ledger.world import Delivery, World, artifact, built
from penstock.adapters.receiver import HttpReceiver
from penstock.core import webhook
from penstock.core.predicates import Ended, Shifted
from penstock.engine.journal import Journal
from penstock.engine.webhooks import Outside, Webhooks
from penstock.errors import Conflict, Invalid
from penstock.ledger import follow, hooks
from penstock.ports import Receiver, Store

SECRET = bytes(range(32))
#: Longer than any test: a receiver that hangs is given up only where a test says so.
PATIENT = 60.0


class Post:
    """A ledger whose entries are told to receivers."""

    def __init__(self, world: World, seconds: float = PATIENT) -> None:
        self.world = world
        self.seconds = seconds
        self.journal = Journal(world.store)
        self.delivery = Delivery("shop-1", artifact("a"))

    def sender(self) -> Webhooks:
        def receiver(url: str) -> Receiver:
            return HttpReceiver(url, self.seconds)

        outside = Outside("http://localhost:7070", receiver, lambda _: SECRET)
        return Webhooks(self.world.store, self.world.ledger, self.journal, outside, pause=0.01)

    async def add(self, name: str, server: ReceiverServer) -> None:
        async with self.world.store.transaction() as tx:
            await hooks.add(self.world.ledger, tx, name, server.url)

    async def happen(self, *reasons: str) -> None:
        """One event for each reason, and entries around it that are none."""
        for reason in reasons:
            shifted = Shifted("shop-1", (), reason)
            await self.world.report(
                self.delivery, shifted, Ended("shop-1", "failure", "error", reason), shifted
            )

    async def behind(self, sender: Webhooks) -> dict[str, int]:
        async with self.world.store.transaction(write=False) as tx:
            return await sender.behind(tx)

    async def place(self, name: str) -> int:
        async with self.world.store.transaction(write=False) as tx:
            return await follow.place(tx, hooks.follower(name))

    async def hooks(self) -> tuple[webhook.Webhook, ...]:
        async with self.world.store.transaction(write=False) as tx:
            return await hooks.every(tx)


@asynccontextmanager
async def running(sender: Webhooks) -> AsyncIterator[Webhooks]:
    task = asyncio.create_task(sender.run())
    try:
        yield sender
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def post(tmp_path: Path, store: Store) -> Post:
    made = Post(await World.begin(tmp_path, store))
    await made.journal.migrate()
    await hooks.migrate(store)
    return made


@pytest.fixture
async def server() -> AsyncIterator[ReceiverServer]:
    made = ReceiverServer()
    await made.start()
    yield made
    await made.stop()


def reasons(messages: list[Message]) -> list[str]:
    return [json.loads(message.body)["data"]["subject"]["content"]["errors"] for message in messages]


def ids(messages: list[Message]) -> list[str]:
    return [message.headers["webhook-id"] for message in messages]


async def until_quiet(post: Post, sender: Webhooks) -> None:
    async with asyncio.timeout(20):
        while any((await post.behind(sender)).values()):
            await asyncio.sleep(0.01)


# --- what is sent ----------------------------------------------------------------------------------------


async def test_every_event_arrives_in_order_and_signed(post: Post, server: ReceiverServer) -> None:
    await post.happen("before it was added")
    await post.add("chat", server)
    await post.happen("one", "two")
    async with running(post.sender()) as sender:
        await server.until(2)
        await post.happen("three")
        got = await server.until(3)
        await until_quiet(post, sender)
    assert reasons(got) == ["one", "two", "three"]
    for message in got:
        assert message.path == "/in"
        assert message.headers["content-type"] == "application/cloudevents+json; charset=utf-8"
        event = json.loads(message.body)
        at = int(message.headers["webhook-timestamp"])
        assert webhook.headers(SECRET, event["id"], at, message.body).items() <= message.headers.items()
    assert len(set(ids(got))) == 3


async def test_a_delivery_that_the_journal_does_not_know_has_a_chain_all_the_same(
    post: Post, server: ReceiverServer
) -> None:
    await post.add("chat", server)
    await post.world.report(post.delivery, built())
    async with running(post.sender()):
        (message,) = await server.until(1)
    data = json.loads(message.body)["data"]
    assert data["context"]["type"] == "dev.cdevents.artifact.packaged.0.3.0"
    assert data["context"]["source"].startswith("urn:penstock:ledger:")


async def test_a_test_event_is_sent_at_once_and_its_answer_told(post: Post, server: ReceiverServer) -> None:
    await post.add("chat", server)
    server.statuses = [204, 500]
    assert [await post.sender().try_out("chat", number) for number in ("1", "2")] == [204, 500]
    with pytest.raises(Invalid, match="known: chat"):
        await post.sender().try_out("mail", "1")


# --- receivers that fail ---------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 503, 400, 404, 302])
async def test_an_event_is_sent_again_until_it_is_accepted(
    post: Post, server: ReceiverServer, status: int
) -> None:
    await post.add("chat", server)
    server.statuses = [status, status]
    await post.happen("one", "two")
    async with running(post.sender()) as sender:
        got = await server.until(2)
        await until_quiet(post, sender)
        assert sender.problems == {}
        assert sender.failures == {"chat": 2}
    assert reasons(server.got) == ["one", "one", "one", "two"]
    assert len(set(ids(server.got[:3]))) == 1
    assert reasons(got) == ["one", "two"]


async def test_a_receiver_that_is_away_gets_everything_when_it_is_back(
    post: Post, server: ReceiverServer
) -> None:
    await post.add("chat", server)
    await server.stop()
    await post.happen("one", "two")
    async with running(post.sender()) as sender:
        async with asyncio.timeout(20):
            while sender.failures.get("chat", 0) < 2:
                await asyncio.sleep(0.01)
        assert "chat" in sender.problems
        assert (await post.behind(sender))["chat"] > 0
        await server.start()
        got = await server.until(2)
        await until_quiet(post, sender)
        assert sender.problems == {}
    assert reasons(got) == ["one", "two"]


async def test_a_receiver_that_hangs_is_given_up_and_asked_again(post: Post, server: ReceiverServer) -> None:
    post.seconds = 0.2
    await post.add("chat", server)
    await post.happen("one")
    server.open.clear()
    async with running(post.sender()) as sender:
        await server.tried(2)
        assert "no answer within" in sender.problems["chat"]
        server.open.set()
        await until_quiet(post, sender)
    assert set(reasons(server.got)) == {"one"}
    assert len(set(ids(server.got))) == 1


async def test_a_dead_receiver_does_not_hold_up_another(post: Post, server: ReceiverServer) -> None:
    dead = ReceiverServer()
    await dead.start()
    dead.open.clear()
    await post.add("dead", dead)
    await post.add("chat", server)
    await post.happen("one", "two")
    async with running(post.sender()) as sender:
        await dead.tried(1)
        assert reasons(await server.until(2)) == ["one", "two"]
        async with asyncio.timeout(20):
            while (await post.behind(sender))["chat"]:
                await asyncio.sleep(0.01)
        assert (await post.behind(sender))["dead"] == 5
    await dead.stop()


async def test_one_that_says_gone_is_disabled_and_told_no_more(post: Post, server: ReceiverServer) -> None:
    await post.add("chat", server)
    server.status = 410
    await post.happen("one", "two")
    async with running(post.sender()):
        async with asyncio.timeout(20):
            while not (await post.hooks())[0].disabled:
                await asyncio.sleep(0.01)
        await post.happen("three")
    async with running(post.sender()):
        await post.happen("four")
    assert reasons(server.got) == ["one"]
    assert (await post.hooks())[0].disabled == "the receiver answered 410 Gone"


# --- crashes -----------------------------------------------------------------------------------------------


async def test_a_sender_that_dies_between_sending_and_keeping_its_place_sends_again(
    post: Post, server: ReceiverServer
) -> None:
    await post.add("chat", server)
    start = await post.place("chat")
    await post.happen("one", "two")
    server.open.clear()
    async with running(post.sender()):
        await server.tried(1)
    assert await post.place("chat") == start
    server.open.set()
    async with running(post.sender()) as sender:
        await server.tried(3)
        await until_quiet(post, sender)
    assert reasons(server.got) == ["one", "one", "two"]
    first, again, _ = server.got
    assert first.headers["webhook-id"] == again.headers["webhook-id"]


async def test_a_new_sender_begins_where_the_last_one_ended(post: Post, server: ReceiverServer) -> None:
    await post.add("chat", server)
    await post.happen("one")
    async with running(post.sender()) as sender:
        await server.until(1)
        await until_quiet(post, sender)
    await post.happen("two")
    async with running(post.sender()) as sender:
        await server.until(2)
        await until_quiet(post, sender)
    assert reasons(server.got) == ["one", "two"]


async def test_entries_that_mean_nothing_are_passed_over_without_a_write_each(
    post: Post, server: ReceiverServer
) -> None:
    await post.add("chat", server)
    start = await post.place("chat")
    await post.world.report(post.delivery, *(Shifted("shop-1", (), str(n)) for n in range(30)))
    async with running(post.sender()) as sender:
        await until_quiet(post, sender)
        assert await post.place("chat") == start
        await post.world.report(post.delivery, *(Shifted("shop-1", (), str(n)) for n in range(100)))
        async with asyncio.timeout(20):
            while await post.place("chat") == start:
                await asyncio.sleep(0.01)
    assert server.got == []


# --- the list ----------------------------------------------------------------------------------------------


async def test_adding_and_removing_while_it_runs(post: Post, server: ReceiverServer) -> None:
    async with running(post.sender()) as sender:
        await post.add("chat", server)
        await post.happen("one")
        await server.until(1)
        await until_quiet(post, sender)
        async with post.world.store.transaction() as tx:
            await hooks.remove(tx, "chat")
        await post.happen("two")
        await post.add("chat", server)
        await post.happen("three")
        await server.until(2)
    assert reasons(server.got) == ["one", "three"]


async def test_a_name_is_given_once(post: Post, server: ReceiverServer) -> None:
    await post.add("chat", server)
    with pytest.raises(Conflict, match="already"):
        await post.add("chat", server)
    async with post.world.store.transaction() as tx:
        with pytest.raises(Invalid, match="known: chat"):
            await hooks.remove(tx, "mail")


@pytest.mark.parametrize(
    "url",
    ["", "chat", "ftp://x/y", "http://", "http://u:p@x/y", "http://x:99999/", "http://\x00/"],
)
def test_what_is_no_receiver(url: str) -> None:
    with pytest.raises(Invalid):
        HttpReceiver(url)
