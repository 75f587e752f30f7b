"""The metric sources of a canary, each with moves: they count well, do what a test tells them to, and mend.

Each is met through its own adapter, over a real socket or a real file.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from test_canary import NEW, STABLE, Town

from fakes.answers import Answer, Answering, FakePrometheus, Question, vector
from penstock.adapters.envoy.admin import Admin
from penstock.adapters.envoy.tally import counted
from penstock.adapters.processes.counting import Counting
from penstock.adapters.processes.record import Place, Record
from penstock.adapters.prometheus import Prometheus
from penstock.core.canary import Count, Part
from penstock.core.canaryconfig import Metric
from penstock.core.traffic import Counters
from penstock.core.workload import Isolation, Phase
from penstock.errors import Unavailable
from penstock.node.client import NodeClient, NodeMeter

RELEASES = (NEW.id, STABLE.id)
SOON = 0.05
EACH = 500


@dataclass
class Source:
    """A source of the canary in *town*, with moves. *bad*, *total* are its counts by release."""

    town: Town
    folder: Path
    total: dict[str, int] = field(default_factory=lambda: dict.fromkeys(RELEASES, 100))
    bad: dict[str, int] = field(default_factory=lambda: dict.fromkeys(RELEASES, 1))

    async def open(self, stack: AsyncExitStack) -> None:
        """Count well."""

    async def spoil(self, what: str, release: str) -> None:
        """Do *what* the table says, to one release."""
        raise NotImplementedError

    async def mend(self) -> None:
        """Count well again."""

    def grow(self) -> None:
        for release in RELEASES:
            self.total[release] += EACH

    def reset(self, release: str) -> None:
        self.total[release], self.bad[release] = 3, 0


#: By what is wrong: the texts of bad and of total, where that is all.
TEXTS = {
    "NaN": ("NaN", "600"),
    "Inf": ("+Inf", "600"),
    "a negative count": ("-1", "600"),
    "a fraction of an event": ("1.5", "600"),
    "more bad events than events": ("700", "600"),
}
STATUSES = {
    "429": Answer(b"", 429, {"retry-after": "30"}),
    "503": Answer(b"", 503),
    "a body that is too large": Answer(b"x" * (1024 * 1024 + 1)),
    "no answer in time": Answer(never=True),
    "does not let us in": Answer(b"", 401),
    "does not take the query": Answer(b'{"status":"error","error":"parse error"}', 400),
    "could not work the query out": Answer(b'{"status":"error","error":"many-to-many"}', 422),
    "a redirect": Answer(b"", 302, {"location": "http://127.0.0.1:1/"}),
}
#: How far the time of a count is off, in seconds.
OFF = {"stale": -300.0, "out of order": -60.0, "another clock": 120.0}


class OfPrometheus(Source):
    async def open(self, stack: AsyncExitStack) -> None:
        self.fake, self.wrong = FakePrometheus(), Answer()
        self.whom, self.stack = "", stack
        self.town.metrics = (Metric("m", "prometheus", 'bad{r="{release}"}', 'total{r="{release}"}'),)
        await self.mend()

    async def mend(self) -> None:
        self.whom = ""
        await self.fake.server.stop()
        self.fake.server.answer = self.answer
        await self.fake.server.start()
        self.stack.push_async_callback(self.fake.server.stop)
        self.connect()

    def connect(self, **options: float) -> None:
        meter = Prometheus(self.fake.url, **options)
        self.stack.push_async_callback(meter.close)
        self.town.meters = {"prometheus": meter}

    def answer(self, question: Question) -> Answer:
        if self.whom and f'"{self.whom}"' in question.given["query"]:
            return self.wrong if self.texts is None else self.told(question)
        for kind, counts in (("bad", self.bad), ("total", self.total)):
            self.fake.values |= {f'{kind}{{r="{r}"}}': count for r, count in counts.items()}
        return self.fake.answer(question)

    def told(self, question: Question) -> Answer:
        assert self.texts is not None
        bad = question.given["query"].startswith("bad")
        return Answer(vector(float(question.given.get("time", time.time() + self.off)), self.texts[not bad]))

    async def spoil(self, what: str, release: str) -> None:
        self.texts, self.off, self.whom = TEXTS.get(what), OFF.get(what, 0.0), release
        if what in OFF:
            self.texts = str(self.bad[release]), str(self.total[release])
        elif what == "a counter reset":
            self.whom = ""
            self.reset(release)
        elif what == "nobody is there":
            await self.fake.server.stop()
        elif self.texts is None:
            at = time.time()
            self.wrong = {
                **STATUSES,
                "says nothing": Answer(vector(at)),
                "the same counter twice": Answer(vector(at, 1, 2)),
                "a malformed body": Answer(b'{"status":'),
                "a part of its data is missing": Answer(vector(at, 1, warnings=["store-2 is away"])),
            }[what]
            if what == "no answer in time":
                self.connect(seconds=SOON)


class OfCopies(Source):
    """What is the same for a release's copies, exposed or logged: one copy of each."""

    def place(self, release: str) -> Place:
        folder = self.folder / release[-6:]
        return Place(folder / "s", folder / "logs", folder / "data")

    def connect(self, counting: Counting) -> None:
        async def count(metric: Metric, service: str, environment: str, release: str) -> Count | None:
            return await counting.count(metric, release, self.place(release), self.records[release])

        self.town.meters = dict.fromkeys(("exposed", "logs"), Counts(count))

    @property
    def records(self) -> dict[str, list[Record]]:
        raise NotImplementedError


@dataclass
class Counts:
    """A meter that a function is."""

    count: Callable[[Metric, str, str, str], Awaitable[Count | None]]


class Exposed(OfCopies):
    async def open(self, stack: AsyncExitStack) -> None:
        self.servers = {release: Answering(lambda _: Answer()) for release in RELEASES}
        for server in self.servers.values():
            stack.push_async_callback(server.stop)
        self.town.metrics = (Metric("m", "exposed", "m_bad_total", "m_total"),)
        await self.mend()

    @property
    def records(self) -> dict[str, list[Record]]:
        return {
            release: [Record("0", port=int(server.address.rpartition(":")[2]), pid=7, phase=Phase.READY)]
            for release, server in self.servers.items()
        }

    async def mend(self) -> None:
        for release, server in self.servers.items():
            await server.stop()
            server.answer = lambda _, release=release: self.page(release)
            await server.start()
        self.connect(Counting(Isolation.NONE))

    def page(self, release: str, bad: str = "", total: str = "", more: str = "") -> Answer:
        bad, total = bad or str(self.bad[release]), total or str(self.total[release])
        lines = f'other{{x="y"}} NaN\nm_bad_total{{x="y"}} {bad}{more}\nm_total {total}{more}\n'
        return Answer(lines.encode())

    async def spoil(self, what: str, release: str) -> None:
        wrong = self.page(release)
        if what in OFF:
            wrong = self.page(release, more=f" {(time.time() + OFF[what]) * 1000:.0f}")
        elif what in TEXTS:
            wrong = self.page(release, *TEXTS[what])
        elif what == "a counter reset":
            self.reset(release)
            wrong = self.page(release)
        elif what == "nobody is there":
            await self.servers[release].stop()
        else:
            wrong = {
                **STATUSES,
                "says nothing": Answer(b"other 1\n"),
                "the same counter twice": Answer(wrong.body * 2),
                "a malformed body": self.page(release, bad="one"),
            }[what]
        self.servers[release].answer = lambda _: wrong
        if what == "no answer in time":
            self.connect(Counting(Isolation.NONE, SOON))


class Logs(OfCopies):
    async def open(self, stack: AsyncExitStack) -> None:
        self.gone, self.away = "", False
        self.town.metrics = (Metric("m", "logs", contains=("ERROR",)),)
        for release in RELEASES:
            self.log(release).parent.mkdir(parents=True)
            self.log(release).write_text("listening, and long enough to be told from another\n")
        self.connect(Counting(Isolation.NONE))
        self.well = self.town.meters

    def log(self, release: str) -> Path:
        return self.place(release).log(Record("0"))

    @property
    def records(self) -> dict[str, list[Record]]:
        return {release: [Record("0")] if release != self.gone else [] for release in RELEASES}

    async def mend(self) -> None:
        self.gone = ""
        if self.away:
            self.town.meters = self.well

    def grow(self) -> None:
        for release in RELEASES:
            with self.log(release).open("a") as file:
                file.write("served\n" * 3)

    async def spoil(self, what: str, release: str) -> None:
        self.away = what == "nobody is there"
        match what:
            case "says nothing":
                self.gone = release
            case "a counter reset":  # another node agent
                self.connect(Counting(Isolation.NONE))
            case "a body that is too large":
                self.log(release).write_text("of the second after\n")
            case "nobody is there":
                self.town.meters = {"logs": NodeMeter(NodeClient(self.folder / "no.sock"))}


class Adapter(Source):
    """An adapter of somebody's."""

    async def open(self, stack: AsyncExitStack) -> None:
        self.wrong: dict[str, Callable[[Count], Count | None]] = {}
        self.town.metrics = (Metric("m", "theirs", "bad", "total"),)
        self.town.meters = {"theirs": Counts(self.count)}

    async def count(self, metric: Metric, service: str, environment: str, release: str) -> Count | None:
        part = Part("", self.bad[release], self.total[release])
        return self.wrong.get(release, lambda count: count)(Count(release, time.time(), "1", (part,)))

    async def mend(self) -> None:
        if not self.lost:
            self.wrong = {}

    async def spoil(self, what: str, release: str) -> None:
        self.lost = what == "a counter reset"

        def away(count: Count) -> Count:
            raise Unavailable("it is away")

        def with_bad(bad: float) -> Callable[[Count], Count]:
            odd: int = bad  # type: ignore[assignment]
            return lambda count: replace(count, parts=(replace(count.parts[0], bad=odd),))

        odd: dict[str, Callable[[Count], Count | None]] = {
            "says nothing": lambda _: None,
            "NaN": with_bad(math.nan),
            "Inf": with_bad(math.inf),
            "a negative count": with_bad(-1),
            "a fraction of an event": with_bad(0.5),
            "more bad events than events": with_bad(10**6),
            "a counter reset": lambda count: replace(count, epoch="2"),
            "the same counter twice": lambda count: replace(count, parts=count.parts * 2),
            "nobody is there": away,
        }
        off = OFF.get(what)
        self.wrong[release] = odd[what] if off is None else lambda count: replace(count, at=count.at + off)


class Proxy(Source):
    """Envoy's own statistics, over its admin socket."""

    async def open(self, stack: AsyncExitStack) -> None:
        self.stack = stack
        self.at = dict.fromkeys(RELEASES, 100.0)
        self.epoch = dict.fromkeys(RELEASES, "1")
        self.gone = ""
        self.socket = self.folder / "admin.sock"
        self.server = Answering(self.answer)
        self.stack.push_async_callback(self.server.stop)
        await self.mend()
        self.town.counters = self.counters  # type: ignore[method-assign]

    async def mend(self) -> None:
        self.gone, self.odd, self.wrong, self.twice = "", {}, None, ""
        self.at = dict.fromkeys(RELEASES, max(self.at.values()))
        await self.server.stop()
        self.socket.unlink(missing_ok=True)
        await self.server.start(self.socket)
        self.admin = Admin(self.socket)

    async def counters(self, service: str, environment: str) -> tuple[Counters, ...]:
        numbers, latency = await self.admin.users(*RELEASES)
        known = [release for release in RELEASES if release != self.gone]
        return tuple(counted(r, self.at[r], self.epoch[r], numbers, latency.get(r, {})) for r in known)

    def answer(self, question: Question) -> Answer:
        if self.wrong is not None:
            return self.wrong
        if question.given["type"] == "Histograms":
            return Answer(b'{"stats": []}')
        stats = [
            {"name": f"cluster.{release}.external.upstream_rq_{kind}", "value": value}
            for release in RELEASES
            for kind, value in (("completed", self.total[release]), ("5xx", self.bad[release]))
        ]
        stats = [{**stat, "value": self.odd.get(str(stat["name"]), stat["value"])} for stat in stats]
        stats += [stat for stat in stats if stat["name"] == self.twice]
        return Answer(json.dumps({"stats": stats}).encode())

    def grow(self) -> None:
        super().grow()
        for release in RELEASES:
            self.at[release] += 5.0

    async def spoil(self, what: str, release: str) -> None:
        errors = f"cluster.{release}.external.upstream_rq_5xx"
        values = {"NaN": math.nan, "Inf": math.inf, "a negative count": -1, "a fraction of an event": 1.5}
        if what in values:
            self.odd = {errors.replace("5xx", "completed"): values[what]}
            return
        match what:
            case "says nothing":
                self.gone = release
            case "more bad events than events":
                self.odd = {errors: 10**6}
            case "stale":
                self.at[release] -= 5.0
            case "out of order":
                self.at[release] -= 60.0
            case "another clock":
                self.at[release] += 60.0
            case "a counter reset":
                self.epoch[release] = "2"
            case "the same counter twice":
                self.twice = errors
            case "nobody is there":
                await self.server.stop()
                self.socket.unlink(missing_ok=True)
            case "a malformed body":
                self.wrong = Answer(b'{"stats": [')
            case "a body that is too large":
                self.admin = Admin(self.socket, most=100)
            case "no answer in time":
                self.wrong, self.admin = Answer(never=True), Admin(self.socket, SOON)
            case _:
                self.wrong = STATUSES[what]


SOURCES: dict[str, type[Source]] = {
    "the proxy": Proxy,
    "prometheus": OfPrometheus,
    "exposed": Exposed,
    "logs": Logs,
    "any adapter": Adapter,
}
