"""A source for `test_bad_metric_sources`: Istio's standard metrics, in the proxy's place."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from typing import Any, cast

from metric_sources import RELEASES, SOON, STATUSES, TEXTS, Source

from fakes.answers import Answer, Answering, Question
from fakes.istio import Sample, body, told
from penstock.adapters.istio_metrics import IstioMetrics
from penstock.core.traffic import Backend, BackendState, TrafficState
from penstock.ports import Router


class Known:
    """A router that only knows which releases there are."""

    def __init__(self, *releases: str) -> None:
        self._releases = releases

    async def read(self, service: str, environment: str) -> TrafficState:
        backends = (Backend(release, ("10.0.0.1:80",), "/health") for release in self._releases)
        return TrafficState(service, environment, backends=tuple(BackendState(b, 1, 1) for b in backends))


class Istio(Source):
    """What is wrong with one release's counts, or with all that is said."""

    async def open(self, stack: AsyncExitStack) -> None:
        self.stack = stack
        self.at = self.start = time.time() - 50.0
        self.server = Answering(self.answer)
        stack.push_async_callback(self.server.stop)
        await self.mend()

    async def mend(self) -> None:
        self.wrong: Answer | None = None
        self.what = self.whom = ""
        await self.server.stop()
        await self.server.start()
        self.connect()

    def connect(self, **options: Any) -> None:
        router = cast(Router, Known(*RELEASES))
        metrics = IstioMetrics(f"http://{self.server.address}", router, "shop", **options)
        self.stack.push_async_callback(metrics.close)
        self.town.counters = metrics.counters  # type: ignore[method-assign]

    def grow(self) -> None:
        super().grow()
        if self.what != "stale":
            self.at += 1.0

    def answer(self, question: Question) -> Answer:
        if self.wrong is not None:
            return self.wrong
        self.at += 0.01  # scraped again
        return Answer(body(self.samples()))

    def samples(self) -> list[Sample]:
        counts: dict[str, tuple[object, object]] = {r: (self.total[r], self.bad[r]) for r in RELEASES}
        off = {"out of order": -60.0, "an old scrape": -300.0}.get(self.what, 0.0)
        if self.what in TEXTS:
            bad, _ = TEXTS[self.what]
            counts[self.whom] = (self.total[self.whom], bad)
        at = self.at + off
        now = max(self.at, time.time()) if self.what == "an old scrape" else self.at
        found = told(counts, at=at, start=self.start, now=now)
        proxy, _, started, *rest = found
        mine = [one for one in rest if one["metric"]["destination_service_name"] == self.whom]
        match self.what:
            case "says nothing":
                return [one for one in found if one not in mine]
            case "the same counter twice":
                return [*found, mine[0]]
            case "a histogram is missing":
                return [one for one in found if one not in mine or "le" not in one["metric"]]
            case "a scrape that fails":
                return [*found, {**proxy, "metric": {**proxy["metric"], "is": "missed"}}]
            case "nobody says since when":
                return [one for one in found if one is not started]
            case "a proxy that is scraped twice":
                other = {"job": "again", "instance": "10.0.0.5:15090"}
                return [*found, *({**one, "metric": {**one["metric"], **other}} for one in found[:3])]
            case "a counter that nobody asked for":
                strange = {**mine[0]["metric"], "destination_service_name": "shop-none"}
                return [*found, {**mine[0], "metric": strange}]
        return found

    async def spoil(self, what: str, release: str) -> None:
        self.what, self.whom = what, release
        match what:
            case "stale":
                self.wrong = Answer(body(self.samples()))
            case "a counter reset":
                self.start += 10.0
                self.reset(release)
            case "nobody is there":
                await self.server.stop()
            case "a malformed body":
                self.wrong = Answer(b'{"status":')
            case "a part of its data is missing":
                self.wrong = Answer(body(self.samples(), ["store-2 is away"]))
            case _:
                self.wrong = STATUSES.get(what)
        if what == "no answer in time":
            self.connect(seconds=SOON)
