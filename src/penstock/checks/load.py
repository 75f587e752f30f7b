"""How does a release hold under load? Sends requests at a rate, or one after another, and measures.

Called by `acceptance`, for a load test and for the traffic of a quiet service. The loop is open: a
request is due at its time however long earlier ones take, and its latency counts from then. So a service that
stops answering for a while shows it (no coordinated omission). At most one request is under way on each
connection; waiting for a free one counts as the service's latency. Must not keep answers.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from penstock.checks.preview import RELEASE, Dark, Part, percentile
from penstock.checks.sending import REQUEST_SECONDS, UNANSWERED, Ask, Target
from penstock.core.acceptance import MOST_EXAMPLES, Bucket, Count, Sent
from penstock.core.acceptanceconfig import AcceptanceConfig, LoadConfig
from penstock.core.wording import plural

#: Upper bounds of the histogram in the evidence, milliseconds: each twice the one before.
BUCKETS = tuple(2.0**power for power in range(17))
#: Requests that are due at the end may still be answered within this.
GRACE_SECONDS = REQUEST_SECONDS
SEED = 20261127
#: A gRPC call whose message has no field set. UNKNOWN, INTERNAL, UNAVAILABLE, DATA_LOSS are what 5xx is.
GRPC_HEADERS = {"content-type": "application/grpc", "te": "trailers"}
EMPTY_MESSAGE = bytes(5)
GRPC_ERRORS = ("2", "13", "14", "15")
EMPTY_CALL = Ask("POST", "", GRPC_HEADERS, EMPTY_MESSAGE)


@dataclass(frozen=True)
class Plan:
    """*count* requests, *per_second* of them (0: one after another, on one connection), for *paths* as often
    as *weights* say; in turn if they say nothing. None is begun more than *seconds* after the first. Each is
    like *ask*."""

    count: int
    paths: tuple[str, ...]
    per_second: float = 0.0
    connections: int = 1
    weights: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 300.0
    ask: Ask = field(default_factory=Ask)

    def mix(self) -> list[str]:
        """The path of every request, in order."""
        paths = self.paths or ("/",)
        if not self.weights:
            return list(itertools.islice(itertools.cycle(paths), self.count))
        weights = [self.weights.get(path, 1.0) for path in paths]
        return random.Random(SEED).choices(paths, weights, k=self.count)


def quiet(config: AcceptanceConfig, protocol: str = "") -> Plan:
    """The traffic that stands in for users of a quiet service."""
    rate = config.requests_per_second or 0.0
    return Plan(
        count=config.requests,
        paths=config.paths,
        per_second=rate,
        connections=64 if rate else 1,
        weights=config.weights or {},
        seconds=max(config.seconds, config.requests / rate + GRACE_SECONDS if rate else 0.0),
        ask=EMPTY_CALL if protocol == "grpc" else Ask(),
    )


def heavy(config: AcceptanceConfig, load: LoadConfig) -> Plan:
    """The load test."""
    return Plan(
        count=max(1, round(load.requests_per_second * load.seconds)),
        paths=load.paths or config.paths,
        per_second=load.requests_per_second,
        connections=load.connections,
        weights={} if load.paths else config.weights or {},
        seconds=load.seconds + GRACE_SECONDS,
    )


@dataclass
class Tally:
    """What came of the requests; latencies and lateness in seconds."""

    latencies: array[float] = field(default_factory=lambda: array("d"))
    late: array[float] = field(default_factory=lambda: array("d"))
    paths: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)


async def send(plan: Plan, way: Dark) -> Sent:
    """Make the requests of *plan* to the dark release."""
    return await _Run(plan, way).run()


class _Run:
    """Those who send share one list: who is free takes what is due next, late if nobody was free before."""

    def __init__(self, plan: Plan, way: Dark) -> None:
        self._plan = plan
        self._release = way.release
        self._target = Target(way.address, headers=way.headers)
        self._waiting = iter(enumerate(plan.mix()))
        self._tally = Tally()
        self._began = time.monotonic()

    async def run(self) -> Sent:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._plan.connections, self._plan.count)):
                    group.create_task(self._send())
        finally:
            self._target.close()
        unsent = self._plan.count - self._tally.paths.total()
        if unsent:
            self._tally.problems["not sent in time: no connection was free"] += unsent
        return measured(self._plan, self._tally, time.monotonic() - self._began)

    async def _send(self) -> None:
        free = time.monotonic()
        for number, path in self._waiting:
            due = self._began + number / self._plan.per_second if self._plan.per_second else free
            if max(due, free) > self._began + self._plan.seconds:
                return
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self._tally.late.append(time.monotonic() - max(due, free))
            self._tally.paths[path] += 1
            problem = await self._once(path)
            free = time.monotonic()
            if problem:
                self._tally.problems[f"{path}: {problem}"] += 1
            else:
                self._tally.latencies.append(free - due)

    async def _once(self, path: str) -> str:
        try:
            answer = await self._target.ask(replace(self._plan.ask, path=path))
        except UNANSWERED as error:
            return type(error).__name__
        served_by = answer.headers.get(RELEASE, self._release)
        if served_by != self._release:
            return f"answered by {served_by}"[:100]
        if answer.headers.get("grpc-status") in GRPC_ERRORS:
            return f"gRPC status {answer.headers['grpc-status']}"
        return str(answer.status) if answer.status >= 500 else ""


def measured(plan: Plan, tally: Tally, seconds: float) -> Sent:
    """The tally as evidence. Who was not answered has no latency: he is an error."""
    ms = array("d", (1000 * latency for latency in tally.latencies))
    p50, p95, p99, most = (round(percentile(ms, share), 1) for share in (0.5, 0.95, 0.99, 1.0))
    counts = Counter(bisect_left(BUCKETS, latency) for latency in ms)
    return Sent(
        per_second=plan.per_second,
        seconds=round(seconds, 3),
        requests=plan.count,
        errors=tally.problems.total(),
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        max_ms=most,
        late_ms=round(1000 * percentile(tally.late, 0.99), 1),
        histogram=tuple(Bucket(_upper(bucket), counts[bucket]) for bucket in sorted(counts)),
        paths=tuple(Count(*item) for item in sorted(tally.paths.items())),
        problems=tuple(Count(*item) for item in tally.problems.most_common(MOST_EXAMPLES)),
    )


def _upper(bucket: int) -> float:
    return BUCKETS[min(bucket, len(BUCKETS) - 1)]


def judged(sent: Sent, load: LoadConfig) -> Part:
    """The load test's verdict: one test, with every threshold that it broke."""
    rate = sent.errors / sent.requests
    broken = []
    if rate > load.error_rate:
        broken.append(f"{rate:.2%} of the requests failed, at most {load.error_rate:.2%}")
    for name, took, limit in (("p95", sent.p95_ms, load.p95_ms), ("p99", sent.p99_ms, load.p99_ms)):
        # Of requests that nobody answered there is no percentile.
        if limit is not None and (took > limit or sent.errors == sent.requests):
            broken.append(f"{name} {took:g} ms above {limit:g} ms")
    words = (
        f"load of {sent.per_second:g}/s: {plural(sent.requests, 'request')}, {plural(sent.errors, 'error')}"
    )
    words += f", p95 {sent.p95_ms:g} ms, p99 {sent.p99_ms:g} ms"
    if not broken:
        return Part(passed=1, words=words)
    lateness = f" (the generator itself was up to {sent.late_ms:g} ms late)" if sent.late_ms >= 5 else ""
    return Part(failed=1, failing=(f"load: {'; '.join(broken)}{lateness}",), words=words)
