"""Traces of real deliveries to a real collector: one for each, whoever worked and whatever was down."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.receiver import Message, ReceiverServer
from integration.engine.stage import FakeEngine, Stage, running, stage
from penstock.adapters.receiver import HttpReceiver
from penstock.core.digest import digest
from penstock.core.evidence import Statement, Subject
from penstock.core.otlp import trace_id
from penstock.core.pipeline import Intent, Pipeline
from penstock.core.predicates import Shifted
from penstock.engine.journal import Delivery
from penstock.engine.traces import Collector, Traces
from penstock.ports import Outcome, Store

Spans = list[dict[str, Any]]


class TellingEngine(FakeEngine):
    """Leaves evidence that names its delivery, as most verbs do."""

    async def perform(self, delivery: Delivery, pipeline: Pipeline, intent: Intent) -> Outcome:
        outcome = await super().perform(delivery, pipeline, intent)
        subject = Subject("shop", digest(delivery.id.encode()))
        shifted = Statement((subject,), Shifted(delivery.id, (), intent.key))
        return replace(outcome, statements=(shifted,))


@pytest.fixture
async def play(short_tmp: Path, store: Store) -> Stage:
    async with stage(short_tmp, store) as made:
        return made


@pytest.fixture
async def server() -> AsyncIterator[ReceiverServer]:
    made = ReceiverServer()
    await made.start()
    yield made
    await made.stop()


def exporter(play: Stage, server: ReceiverServer) -> Traces:
    collector = Collector(lambda: HttpReceiver(server.url), "http://localhost:7070", "1", {"x-key": "k"})
    return Traces(play.store, play.ledger, play.journal, collector, pause=0.01)


@asynccontextmanager
async def exporting(traces: Traces) -> AsyncIterator[Traces]:
    task = asyncio.create_task(traces.run())
    try:
        yield traces
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def behind(play: Stage, traces: Traces) -> int | None:
    async with play.store.transaction(write=False) as tx:
        return await traces.behind(tx)


async def caught_up(play: Stage, traces: Traces) -> None:
    async with asyncio.timeout(20):
        while await behind(play, traces):
            await asyncio.sleep(0.01)


async def begun(play: Stage, server: ReceiverServer) -> None:
    """Have a follower from here on."""
    async with exporting(exporter(play, server)) as traces:
        await caught_up(play, traces)


async def deliver(play: Stage, *deliveries: str) -> None:
    for delivery in deliveries:
        await play.queue(delivery, delivery.partition("-")[0])
    async with running(await play.worker(f"for-{deliveries[0]}", TellingEngine())):
        await play.ended(*deliveries)


def spans(messages: list[Message]) -> Spans:
    return [
        span
        for message in messages
        for resource in json.loads(message.body)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


def attribute(span: dict[str, Any], key: str) -> str | None:
    found = {pair["key"]: pair["value"]["stringValue"] for pair in span["attributes"]}
    return found.get(key)


def runs(found: Spans) -> Spans:
    return [span for span in found if not span["parentSpanId"]]


async def test_a_delivery_is_one_trace_with_a_span_for_every_record(
    play: Stage, server: ReceiverServer
) -> None:
    await begun(play, server)
    async with exporting(exporter(play, server)) as traces:
        await deliver(play, "shop-1")
        await caught_up(play, traces)
    found = spans(server.accepted)
    records = (await play.find("shop-1")).records
    (run,) = runs(found)
    assert {span["traceId"] for span in found} == {trace_id("shop-1")}
    assert [attribute(span, "cicd.pipeline.task.run.id") for span in found[1:-1]] == [
        record.intent.key for record in records
    ]
    assert found[0]["name"] == "pending"
    assert attribute(run, "cicd.pipeline.result") == "success"
    assert {span["parentSpanId"] for span in found} == {"", run["spanId"]}
    assert len({span["spanId"] for span in found}) == len(found)
    assert server.got[0].headers["x-key"] == "k"
    assert server.got[0].headers["content-type"] == "application/json"


async def test_what_happened_before_there_was_a_collector_is_history(
    play: Stage, server: ReceiverServer
) -> None:
    await deliver(play, "shop-1")
    async with exporting(exporter(play, server)) as traces:
        await caught_up(play, traces)
        await deliver(play, "cart-1")
        await caught_up(play, traces)
    assert {span["traceId"] for span in spans(server.accepted)} == {trace_id("cart-1")}


async def test_a_collector_that_is_down_stops_nothing_and_gets_all_of_it_later(
    play: Stage, server: ReceiverServer
) -> None:
    await begun(play, server)
    await server.stop()
    async with exporting(exporter(play, server)) as traces:
        await deliver(play, "shop-1", "cart-1")
        async with asyncio.timeout(20):
            while traces.failures < 2:
                await asyncio.sleep(0.01)
        await server.start()
        await caught_up(play, traces)
    found = spans(server.accepted)
    assert {span["traceId"] for span in runs(found)} == {trace_id("shop-1"), trace_id("cart-1")}


@pytest.mark.parametrize("status", [429, 503, 500, 401])
async def test_a_batch_is_sent_again_until_it_is_taken(
    play: Stage, server: ReceiverServer, status: int
) -> None:
    await begun(play, server)
    await deliver(play, "shop-1")
    server.statuses = [status, status]
    async with exporting(exporter(play, server)) as traces:
        await caught_up(play, traces)
    assert server.got[0].body == server.got[1].body == server.accepted[0].body
    assert len(runs(spans(server.accepted))) == 1


async def test_what_a_collector_can_never_take_does_not_hold_up_the_rest(
    play: Stage, server: ReceiverServer
) -> None:
    await begun(play, server)
    await deliver(play, "shop-1")
    server.statuses = [400]
    async with exporting(exporter(play, server)) as traces:
        await caught_up(play, traces)
        assert traces.failures == 1
        await deliver(play, "cart-1")
        await caught_up(play, traces)
    assert {span["traceId"] for span in spans(server.accepted)} == {trace_id("cart-1")}


async def test_an_exporter_that_dies_before_it_keeps_its_place_sends_the_same_spans_again(
    play: Stage, server: ReceiverServer
) -> None:
    await begun(play, server)
    await deliver(play, "shop-1")
    server.open.clear()
    async with exporting(exporter(play, server)):
        await server.tried(1)
    server.open.set()
    async with exporting(exporter(play, server)) as traces:
        await caught_up(play, traces)
    first, again = server.got
    assert first.body == again.body


async def test_a_take_over_and_a_restart_continue_the_trace(play: Stage, server: ReceiverServer) -> None:
    await begun(play, server)
    engine = TellingEngine(holds={"suite": asyncio.Event()})
    await play.queue("shop-1")
    async with exporting(exporter(play, server)) as traces, running(await play.worker("one", engine)):
        await play.until(lambda: "tests/suite/0" in engine.keys("shop-1"))
        await caught_up(play, traces)
    early = spans(server.accepted)
    assert {attribute(span, "cicd.pipeline.task.name") for span in early} >= {"begin", "build"}
    assert runs(early) == []
    async with play.store.transaction() as tx:
        await tx.execute("UPDATE deliveries SET lease = 1")
    async with (
        exporting(exporter(play, server)) as traces,
        running(await play.worker("two", TellingEngine())),
    ):
        await play.ended("shop-1")
        await caught_up(play, traces)
    found = spans(server.accepted)
    assert {span["traceId"] for span in found} == {trace_id("shop-1")}
    assert len(runs(found)) == 1
    # What the first exporter sent, the second may send again: under the same ids, saying the same.
    assert {span["spanId"] for span in early} <= {span["spanId"] for span in found}
    assert all(span in found for span in early)


async def test_without_a_collector_it_has_nothing_to_do(play: Stage) -> None:
    traces = Traces(play.store, play.ledger, play.journal, None)
    await traces.run()
    assert await behind(play, traces) is None
