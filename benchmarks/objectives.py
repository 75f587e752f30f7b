"""What counting for objectives costs: a round of readings, the rows that it leaves, folding them, and asking.

    benchmarks/objectives.py [--services N] [--envoy N] [--json FILE]

In the first part the data plane is a function that counts at once, so that what is measured is ours: the
loop, and the store. Every service is busy in every minute, which is the most rows that there can be. In the
second part a real Envoy with so many services (--envoy, 0: none) of two releases is read, one after another
and as the sampler does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

import psutil

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from parts.proxies import site

from penstock.adapters.envoy import Envoy
from penstock.adapters.sqlite import SqliteStore
from penstock.core.fence import Fence
from penstock.core.objectives import ENVIRONMENT, Objective
from penstock.core.traffic import WHOLE, Backend, Counters, TrafficPlan, Weight
from penstock.ports import Store, Transaction
from penstock.telemetry import rollups
from penstock.telemetry.rollups import Place
from penstock.telemetry.sampler import AT_ONCE, EVERY, Sampler
from penstock.telemetry.standing import stand

BOUNDS = (1, 2, 3, 5, 7.5, 10, 15, 20, 30, 40, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 2000, 5000, 10000)
DAY, WINDOW = 86400, 28 * 86400.0


class Instant:
    """Every service has two releases; both have answered more at each reading."""

    def __init__(self) -> None:
        self.round = 0

    async def counters(self, service: str, environment: str) -> tuple[Counters, ...]:
        self.round += 1
        latency = {f"{bound:g}": self.round * (10 + number) for number, bound in enumerate(BOUNDS)}
        return tuple(
            Counters(f"{service}-{n}", 0.0, "epoch", self.round * 40, self.round, latency) for n in range(2)
        )


async def seconds(call: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """Wall clock, and processor time of this process."""
    began, used = time.perf_counter(), time.process_time()
    await call()
    return time.perf_counter() - began, time.process_time() - used


async def fill(store: Store, places: Collection[Place]) -> int:
    """An hour of full minutes that is old enough to be folded; returns its rows."""
    async with store.transaction() as tx:
        hour = int(await tx.now() - rollups.MINUTES_FOR) // 3600 * 3600 - 3600
        latency = json.dumps({f"{bound:g}": number + 1 for number, bound in enumerate(BOUNDS)})
        for service, environment in places:
            for minute in range(60):
                row = (service, environment, hour + 60 * minute, 60, 100, 1, latency)
                await tx.execute("INSERT INTO traffic VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    return 60 * len(places)


async def history(store: Store, service: str) -> None:
    """What 28 days of one busy service leave: two of minutes, the others of hours."""
    latency = json.dumps({f"{bound:g}": number + 1 for number, bound in enumerate(BOUNDS)})
    async with store.transaction() as tx:
        now = int(await tx.now()) // 3600 * 3600
        spans = [(now - 2 * DAY, 60, 2 * DAY // 60), (now - 28 * DAY, 3600, 26 * 24)]
        for start, width, rows in spans:
            for number in range(rows):
                row = (service, ENVIRONMENT, start + number * width, width, 100, 0, latency)
                await tx.execute("INSERT INTO traffic VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        counters = (Counters("a", 0.0, "e", 1, 0),)
        await rollups.add(tx, (service, ENVIRONMENT), 0.0, await tx.now(), counters)


async def ticks(store: Store, places: Collection[Place], rounds: int) -> tuple[float, float]:
    """The median of a round of readings: wall clock and processor time, seconds."""

    async def watched(_: Transaction) -> Collection[Place]:
        return places

    sampler, took = Sampler(store, Instant(), watched, every=0.0), []
    await sampler.tick()
    for _ in range(rounds):
        took.append(await seconds(sampler.tick))
    return statistics.median(wall for wall, _ in took), statistics.median(used for _, used in took)


def plan(service: str, address: str) -> TrafficPlan:
    """Two releases of a service, users on the first."""
    one, two = (Backend(f"{service}-{number}", (address,)) for number in (1, 2))
    return TrafficPlan(service, ENVIRONMENT, (one, two), (Weight(one.release, WHOLE),))


async def read_envoy(folder: Path, services: int) -> dict[str, float]:
    """What one service's reading takes, and what Envoy itself works for it."""
    envoy = Envoy(folder / "envoy", 21_000)
    with site(folder) as behind:
        try:
            for number in range(services):
                await envoy.apply(plan(f"s-{number}", behind.address), fence=Fence("bench", 1, "bench"))
            process = psutil.Process(json.loads((folder / "envoy" / "envoy.pid").read_text())["pid"])
            before, took = sum(process.cpu_times()[:2]), []
            for number in range(services):
                took.append((await seconds(lambda n=number: envoy.counters(f"s-{n}", ENVIRONMENT)))[0])
            alone = sum(process.cpu_times()[:2]) - before

            async def together() -> None:
                for start in range(0, services, AT_ONCE):
                    names = [f"s-{n}" for n in range(start, min(start + AT_ONCE, services))]
                    await asyncio.gather(*(envoy.counters(name, ENVIRONMENT) for name in names))

            before = sum(process.cpu_times()[:2])
            shared = await seconds(together)
            used = sum(process.cpu_times()[:2]) - before
        finally:
            await envoy.stop()
    return {
        "envoy_services": services,
        "envoy_alone_round_s": sum(took),
        "envoy_alone_cpu_s": alone,
        "envoy_together_round_s": shared[0],
        "envoy_together_cpu_s": used,
    }


async def measure(folder: Path, services: int) -> dict[str, float]:
    store = SqliteStore(folder / "penstock.db")
    await rollups.migrate(store)
    places = [(f"service-{number:04}", ENVIRONMENT) for number in range(services)]
    idle = await ticks(store, (), 200)
    busy = await ticks(store, places, 10)
    rows = await fill(store, places)

    async def fold() -> None:
        async with store.transaction(write=False) as tx:
            now = await tx.now() + 3600
        sampler = Sampler(store, Instant(), lambda _: asyncio.sleep(0, ()))
        await sampler._keep_up(places, now)

    folding = await seconds(fold)
    await history(store, "shop")

    async def ask(within_ms: float) -> None:
        objective = Objective("shop", "of-users", "", 0.999, WINDOW, within_ms)
        async with store.transaction(write=False) as tx:
            assert (await stand(tx, objective, 0)).total

    errors = [await seconds(lambda: ask(0.0)) for _ in range(20)]
    latency = [await seconds(lambda: ask(300.0)) for _ in range(20)]
    await store.close()
    size = (folder / "penstock.db").stat().st_size
    return {
        "services": services,
        "round_idle_ms": idle[0] * 1000,
        "round_ms": busy[0] * 1000,
        "round_cpu_ms": busy[1] * 1000,
        "per_service_us": busy[0] * 1e6 / services,
        "processor_share_%": 100 * busy[1] / EVERY,
        "processor_share_idle_%": 100 * idle[1] * 3 / EVERY,
        "rows_folded": rows,
        "fold_an_hour_ms": folding[0] * 1000,
        "ask_28_days_errors_ms": statistics.median(wall for wall, _ in errors) * 1000,
        "ask_28_days_latency_ms": statistics.median(wall for wall, _ in latency) * 1000,
        "most_rows_per_service": 2 * DAY // 60 + int(rollups.HOURS_FOR - rollups.MINUTES_FOR) // 3600,
        "bytes_per_row": size / rows,
    }


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--services", type=int, default=1500)
    given.add_argument("--envoy", type=int, default=50)
    given.add_argument("--json", type=Path, metavar="FILE")
    options = given.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(measure(Path(folder), options.services))
        if options.envoy:
            figures |= asyncio.run(read_envoy(Path(folder), options.envoy))
    for name, value in figures.items():
        print(f"  {name:<24} {value:12,.2f}")
    if options.json:
        options.json.write_text(json.dumps({"figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
