"""What every `Meter` must do: Prometheus (a fake one and, where it is installed, a real one), the copies'
own counters and logs over a real node agent, and what the fakes of other tests do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from fakes.answers import Answer, Answering, FakePrometheus
from fakes.node import agent_at
from fakes.platform import FakePlatform
from fakes.prometheus import real_prometheus
from fakes.router import FakeRouter
from penstock.adapters.processes.counting import Counting
from penstock.adapters.processes.record import Place, Record
from penstock.adapters.prometheus import Prometheus
from penstock.core.canary import Count
from penstock.core.canaryconfig import Metric
from penstock.core.workload import Isolation, Phase
from penstock.errors import Invalid, Unavailable
from penstock.node.client import NodeMeter
from penstock.ports import Meter

RELEASE, OTHER = "shop-0123456789ab", "shop-ba9876543210"


class Subject:
    """A meter, and a way to make what it counts happen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bad = {RELEASE: 0, OTHER: 0}
        self.total = {RELEASE: 0, OTHER: 0}
        self.metric = Metric("m", "exposed", "m_bad_total", "m_total")
        self.meter: Meter

    async def open(self, stack: AsyncExitStack) -> None:
        raise NotImplementedError

    async def serve(self, release: str, requests: int, bad: int = 0) -> None:
        self.total[release] += requests
        self.bad[release] += bad

    async def count(self, release: str = RELEASE) -> Count | None:
        return await self.meter.count(self.metric, "shop", "production", release)

    def page(self, release: str) -> Answer:
        return Answer(f"m_bad_total {self.bad[release]}\nm_total {self.total[release]}\n".encode())


class OfFakePrometheus(Subject):
    async def open(self, stack: AsyncExitStack) -> None:
        self.metric = Metric("m", "prometheus", 'bad{r="{release}"}', 'total{r="{release}"}')
        self.fake = FakePrometheus()
        await self.fake.server.start()
        stack.push_async_callback(self.fake.server.stop)
        self.meter = meter = Prometheus(self.fake.url + "/")
        stack.push_async_callback(meter.close)

    async def serve(self, release: str, requests: int, bad: int = 0) -> None:
        await super().serve(release, requests, bad)
        self.fake.values |= {
            f'bad{{r="{release}"}}': self.bad[release],
            f'total{{r="{release}"}}': self.total[release],
        }


class OfPrometheus(Subject):
    """A real one, that asks two releases for what they expose every 200 ms."""

    async def open(self, stack: AsyncExitStack) -> None:
        self.servers = {r: Answering(lambda _, r=r: self.page(r)) for r in (RELEASE, OTHER)}
        for server in self.servers.values():
            await server.start()
            stack.push_async_callback(server.stop)
        jobs = [
            {"targets": [server.address], "labels": {"release": release}}
            for release, server in self.servers.items()
        ]
        job = {"job_name": "shop", "static_configs": jobs}
        url = await stack.enter_async_context(real_prometheus(self.folder, [job]))
        selector = '{release="{release}"}'
        self.metric = Metric("m", "prometheus", f"sum(m_bad_total{selector})", f"sum(m_total{selector})")
        self.meter = meter = Prometheus(url)
        stack.push_async_callback(meter.close)

    async def serve(self, release: str, requests: int, bad: int = 0) -> None:
        await super().serve(release, requests, bad)
        async with asyncio.timeout(30):
            while (found := await self.count(release)) is None or found.total < self.total[release]:
                await asyncio.sleep(0.05)


class Copies(FakePlatform):
    """A platform whose releases have one copy each, counted by the real thing."""

    def __init__(self, subject: OfCopies) -> None:
        super().__init__()
        self.subject = subject
        self.counting = Counting(Isolation.NONE)

    async def count(self, metric: Metric, release: str) -> Count | None:
        place, records = self.subject.copies(release)
        return await self.counting.count(metric, release, place, records)


class OfCopies(Subject):
    async def open(self, stack: AsyncExitStack) -> None:
        self.servers = {r: Answering(lambda _, r=r: self.page(r)) for r in (RELEASE, OTHER)}
        for server in self.servers.values():
            await server.start()
            stack.push_async_callback(server.stop)
        node = await stack.enter_async_context(agent_at(self.folder, Copies(self), FakeRouter()))
        self.meter = NodeMeter(node)

    def copies(self, release: str) -> tuple[Place, list[Record]]:
        folder = self.folder / release[-4:]
        place = Place(folder / "s", folder / "logs", folder / "data")
        if release not in self.servers:
            return place, []
        port = int(self.servers[release].address.rpartition(":")[2])
        return place, [Record("0", port=port, pid=1, phase=Phase.READY)]


class OfLogs(OfCopies):
    async def open(self, stack: AsyncExitStack) -> None:
        await super().open(stack)
        self.metric = Metric("m", "logs", level="error")
        for release in (RELEASE, OTHER):
            self.copies(release)[0].logs.mkdir(parents=True)
            await self.count(release)

    async def serve(self, release: str, requests: int, bad: int = 0) -> None:
        await super().serve(release, requests, bad)
        with self.copies(release)[0].log(Record("0")).open("a") as log:
            log.write('{"level": "info"}\n' * requests + '{"level": "error"}\n' * bad)


SUBJECTS = (OfFakePrometheus, OfPrometheus, OfCopies, OfLogs)


@pytest.fixture(params=SUBJECTS)
async def subject(request: pytest.FixtureRequest, short_tmp: Path) -> AsyncIterator[Subject]:
    async with AsyncExitStack() as stack:
        made: Subject = request.param(short_tmp)
        await made.open(stack)
        yield made


async def test_counts_are_cumulative_and_of_one_release(subject: Subject) -> None:
    await subject.serve(RELEASE, 10, 1)
    await subject.serve(OTHER, 7)
    first = await subject.count()
    await subject.serve(RELEASE, 5, 2)
    second, other = await subject.count(), await subject.count(OTHER)
    assert first is not None
    assert second is not None
    assert other is not None
    assert (second.release, second.bad - first.bad, other.bad) == (RELEASE, 2, 0)
    if not subject.metric.among_requests:
        assert (second.total - first.total, other.total) == (5, 7)
    assert first.epoch == second.epoch
    assert [part.name for part in first.parts] == [part.name for part in second.parts]
    assert first.at <= second.at
    assert abs(second.at - time.time()) < 60


async def test_of_a_release_that_nobody_knows_nothing_is_said(subject: Subject) -> None:
    await subject.serve(RELEASE, 1)
    assert await subject.count("shop-000000000000") is None


# --- what only a Prometheus does ---------------------------------------------------------------------------


@pytest.fixture(params=SUBJECTS[:2])
async def prometheus(request: pytest.FixtureRequest, short_tmp: Path) -> AsyncIterator[Subject]:
    async with AsyncExitStack() as stack:
        made: Subject = request.param(short_tmp)
        await made.open(stack)
        yield made


async def test_a_query_that_is_none_is_refused_in_its_words(prometheus: Subject) -> None:
    prometheus.metric = Metric("m", "prometheus", "sum((", "sum((")
    with pytest.raises(Invalid, match=r"does not take the query: .*parse error"):
        await prometheus.count()


async def test_what_is_not_fresh_is_not_said(short_tmp: Path) -> None:
    """A real Prometheus looks back five minutes, unless it is told otherwise; so it is."""
    async with AsyncExitStack() as stack:
        made = OfPrometheus(short_tmp)
        await made.open(stack)
        await made.serve(RELEASE, 3)
        old = int(time.time() * 1000) - 90_000
        page = Answer(b"m_total 3 %d\nm_bad_total 0 %d\n" % (old, old))
        made.servers[RELEASE].answer = lambda _: page
        made.metric = Metric("m", "prometheus", made.metric.bad, made.metric.total, fresh_seconds=1.0)
        async with asyncio.timeout(30):
            while await made.count() is not None:
                await asyncio.sleep(0.1)


async def test_a_token_is_sent_and_read_each_time(short_tmp: Path) -> None:
    fake, file = FakePrometheus(), short_tmp / "token"
    fake.values = {"b": 1, "t": 2}
    await fake.server.start()
    file.write_text("first\n")
    meter = Prometheus(fake.url, file)
    metric = Metric("m", "prometheus", "b", "t")
    await meter.count(metric, "shop", "production", RELEASE)
    file.write_text("second\n")
    await meter.count(metric, "shop", "production", RELEASE)
    sent = [question.headers["authorization"] for question in fake.server.asked]
    assert sent == ["Bearer first"] * 2 + ["Bearer second"] * 2
    file.unlink()
    with pytest.raises(Unavailable, match="its token cannot be read"):
        await meter.count(metric, "shop", "production", RELEASE)
    await meter.close()
    await fake.server.stop()


@pytest.mark.parametrize("retry_after", ["30", "Fri, 31 Dec 2100 23:59:59 GMT"])
async def test_who_asks_to_be_left_alone_is(retry_after: str) -> None:
    server = Answering(lambda _: Answer(b"", 429, {"retry-after": retry_after}))
    await server.start()
    meter = Prometheus(f"http://{server.address}")
    for words in ("answered 429, and asks to be left alone for", "asked to be left alone for"):
        with pytest.raises(Unavailable, match=words):
            await meter.count(Metric("m", "prometheus", "b", "t"), "shop", "production", RELEASE)
    assert len(server.asked) == 1
    await meter.close()
    await server.stop()


@pytest.mark.parametrize("retry_after", ["-5", "soon", "1.5", "", "9" * 400, "Fri, 31 Dec 1999 23:59:59 GMT"])
async def test_who_asks_for_nothing_that_can_be_read_is_asked_again(retry_after: str) -> None:
    server = Answering(lambda _: Answer(b"", 503, {"retry-after": retry_after}))
    await server.start()
    meter = Prometheus(f"http://{server.address}")
    with pytest.raises(Unavailable, match="answered 503"):
        await meter.count(Metric("m", "prometheus", "b", "t"), "shop", "production", RELEASE)
    await meter.close()
    await server.stop()


@pytest.mark.parametrize(
    "url", ["", "prometheus:9090", "http://", "ftp://x", "http://u:p@x", "http://x?a=b", "http://x:99999"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(Invalid, match="URL") as caught:
        Prometheus(url)
    assert ":p@" not in str(caught.value)
