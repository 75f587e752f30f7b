"""What moving traffic costs, and that it costs no request: real load tools, a real node agent, real actions.

    benchmarks/switching.py [--only PART…] [--changes N] [--cycles N] [--services N…] [--json FILE]

changes   N changes of weights by the action `shift` under constant load: `hey` (HTTP/1.1, requests of a
          millisecond and of 0.3 s), `curl` (HTTP/2) and an observer on a kept connection, which says when
          the last answer of a release came that has no weight any more
cycles    N releases from dark to live to removed under the same load: deploy, shift twice, promote; every
          fourth is rolled back in mid-canary instead, while users wait for its answers
overhead  what a request through our Envoy costs beside a bare one with a static file, by turns (`wrk`)
services  what one switch costs, and Envoy's memory, with 1, 50 and 200 services of two releases, by turns

A failed request is printed with its reason, and the benchmark then ends with 1. What runs is described in
`parts.street` and `parts.load`. The folder's path must be short (TMPDIR).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import psutil
from parts.load import Load, explained, load, missing
from parts.proxies import Cost, bare, measured, site
from parts.street import ENVIRONMENT, SERVICE, Street, street, succeeded

from fakes.web import free_port
from penstock.actions import deploy, promote, rollback, shift
from penstock.adapters.envoy import Envoy
from penstock.adapters.envoy.watches import check_room
from penstock.bootstrap.home import Home
from penstock.bootstrap.loop import run
from penstock.core.fence import Fence
from penstock.core.release import Release
from penstock.core.traffic import WHOLE, Backend, TrafficPlan, TrafficState, Weight
from penstock.errors import Unavailable
from penstock.ports import Outcome, Task

Figures = dict[str, float]
#: Shares of the new release, over and over; it is timed where one of the two has everybody afterwards.
SHARES = (1, 100, 500, WHOLE, 0, WHOLE, 900, 0)
CANARY = (100, 500)
ROLLED_BACK = 4
#: Requests a second, but slow ones at any time; a small machine runs clients, proxy and workloads.
QUICK, SLOW, SECOND = 80, 5, 20
ROUNDS, WRK_SECONDS, CONNECTIONS = 5, 3, (1, 16)
SWITCHES = 40
SHOWN = 20


@dataclass
class Moves:
    """When traffic was moved, and when that was confirmed: name, began, ended, who has no users after it."""

    made: list[tuple[str, float, float, frozenset[str]]] = field(default_factory=list)

    async def timed(self, name: str, doing: Coroutine[None, None, Outcome], *out: str) -> None:
        began = time.monotonic()
        succeeded(await doing)
        self.made.append((name, began, time.monotonic(), frozenset(out)))
        await asyncio.sleep(0.05)  # so that the observer sees each state


# --- many changes, many releases -------------------------------------------------------------------------


async def changes(folder: Path, count: int) -> Figures:
    moves = Moves()
    async with street(Home(folder / "h"), free_port()) as world:
        stable = await first(world)
        given = world.task(stable)
        succeeded(await deployed(world, given))
        assert given.release
        address = (await world.state()).address
        async with load(address, folder, quick=QUICK, slow=SLOW, second=SECOND) as seen:
            for number in range(count):
                share = SHARES[number % len(SHARES)]
                out = {0: (given.release.id,), WHOLE: (stable.id,)}.get(share, ())
                told = world.told(given, "shift", share)
                shifting = shift.perform(told, router=world.router, platform=world.platform)
                await moves.timed("shift", shifting, *out)
        return {"weight changes": count, **lost(seen, world), **timings(moves, seen, "shift")}


async def cycles(folder: Path, count: int) -> Figures:
    moves = Moves()
    async with street(Home(folder / "h"), free_port()) as world:
        stable = await first(world)
        address = (await world.state()).address
        async with load(address, folder, quick=QUICK, slow=SLOW, second=SECOND) as seen:
            began = time.monotonic()
            for number in range(1, count + 1):
                stable = await cycle(world, moves, stable, undo=number % ROLLED_BACK == 0)
            seconds = (time.monotonic() - began) / count
        rolled = timings(moves, seen, "rollback")
        return {"cycles": count, "seconds for one": seconds, **lost(seen, world), **rolled} | timings(
            moves, seen, "promote"
        )


async def first(world: Street) -> Release:
    """The first release takes all traffic."""
    task = world.task(None)
    succeeded(await deployed(world, task))
    told = world.told(task, "promote")
    succeeded(await promote.perform(told, router=world.router, platform=world.platform))
    assert task.release
    return task.release


async def cycle(world: Street, moves: Moves, stable: Release, *, undo: bool) -> Release:
    """One more release, live or rolled back; returns which is stable now."""
    task = world.task(stable)
    assert task.release
    succeeded(await deployed(world, task))
    for share in CANARY:
        told = world.told(task, "shift", share)
        await moves.timed("shift", shift.perform(told, router=world.router, platform=world.platform))
    if undo:
        told = world.told(task, "undo")
        undoing = rollback.undo(told, router=world.router, platform=world.platform, metrics=world.metrics)
        await moves.timed("rollback", undoing, task.release.id)
        return stable
    told = world.told(task, "promote")
    promoting = promote.perform(told, router=world.router, platform=world.platform)
    await moves.timed("promote", promoting, stable.id)
    return task.release


def deployed(world: Street, task: Task) -> Coroutine[None, None, Outcome]:
    told = world.told(task, "deploy")
    return deploy.perform(told, platform=world.platform, router=world.router, artifacts=world.artifacts)


def timings(moves: Moves, seen: Load, name: str) -> Figures:
    """From the decision to the last answer of whoever was taken out; and to the action's end."""
    last, confirmed, late = [], [], 0
    ends = [began for _, began, _, _ in moves.made[1:]] + [float("inf")]
    for (kind, began, ended, out), until in zip(moves.made, ends, strict=True):
        if kind != name or not out:
            continue
        answers = [one for one in seen.seen if began <= one.answered and one.asked < until]
        old = [one for one in answers if one.release in out]
        last.append(old[-1].answered - began if old else 0.0)
        confirmed.append(ended - began)
        late += sum(one.asked > ended for one in old)
    if not last:
        return {}
    return {
        f"{name}: decision to last answer of the old, ms, p50": 1000 * statistics.median(last),
        f"{name}: decision to last answer of the old, ms, p99": 1000 * p99(last),
        f"{name}: decision to last answer of the old, ms, longest": 1000 * max(last),
        f"{name}: decision to action ended, ms, p50": 1000 * statistics.median(confirmed),
        f"{name}: decision to action ended, ms, p99": 1000 * p99(confirmed),
        f"{name}: sent to the old after that": late,
    }


def lost(seen: Load, world: Street) -> Figures:
    reasons = explained(world.access_log)
    for words in [f"{times} × {reason}" for reason, times in seen.failed.items()] + reasons[:SHOWN]:
        print("FAILED", words, flush=True)
    print("requests:", ", ".join(f"{name} {count:,}" for name, count in seen.requests.items()), flush=True)
    return {
        "requests": seen.total,
        "failed requests": sum(seen.failed.values()),
        "failed requests, as the proxy has it": len(reasons),
    }


def p99(values: Iterable[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]


# --- what a request costs --------------------------------------------------------------------------------


async def overhead(folder: Path) -> Figures:
    envoy = Envoy(folder / "e", free_port())
    costs: dict[tuple[str, int], list[Cost]] = {}
    try:
        with site(folder) as behind, bare(folder, behind.address) as static:
            state = await envoy.apply(both("web", behind.address), fence=FENCE)
            ours = {
                "ours": (state.address, running(folder / "e")),
                "bare": (f"http://{static.address}", static.process),
            }
            for _ in range(ROUNDS):
                for connections in CONNECTIONS:
                    for name, (url, process) in ours.items():
                        found = await asyncio.to_thread(measured, url, process, connections, WRK_SECONDS)
                        costs.setdefault((name, connections), []).append(found)
    finally:
        await envoy.stop()
    return compared(costs)


def compared(costs: dict[tuple[str, int], list[Cost]]) -> Figures:
    figures: Figures = {"failed requests": sum(one.failed for runs in costs.values() for one in runs)}
    for connections in CONNECTIONS:
        latency, cpu = {}, {}
        for name in ("bare", "ours"):
            runs = costs[name, connections]
            latency[name] = statistics.median(one.p50_ms for one in runs)
            cpu[name] = statistics.median(one.cpu_us for one in runs)
            figures[f"{connections} connections, {name}: p50, ms"] = latency[name]
            figures[f"{connections} connections, {name}: CPU, µs a request"] = cpu[name]
        figures[f"{connections} connections: added to p50, ms"] = latency["ours"] - latency["bare"]
        figures[f"{connections} connections: CPU, ours / bare"] = cpu["ours"] / cpu["bare"]
    return figures


# --- many services ---------------------------------------------------------------------------------------

FENCE = Fence(f"{SERVICE}/{ENVIRONMENT}", 1, "benchmark")


def both(service: str, address: str) -> TrafficPlan:
    """Two releases of a service, users on the first."""
    one, two = (Backend(f"{service}-{number}", (address,), "/health") for number in (1, 2))
    return TrafficPlan(service, ENVIRONMENT, (one, two), (Weight(one.release, WHOLE),))


def running(folder: Path) -> psutil.Process:
    return psutil.Process(json.loads((folder / "envoy.pid").read_text())["pid"])


def fitting(counts: list[int]) -> list[int]:
    """Those that the machine lets Envoy watch, all at once; the others are told of."""
    found: list[int] = []
    for count in sorted(counts):
        try:
            check_room(sum(found) + count + 2 * (len(found) + 1))
        except Unavailable as error:
            print(f"{count} services are not measured: {error}", flush=True)
        else:
            found.append(count)
    return found


async def services(folder: Path, wanted: list[int]) -> Figures:
    figures: Figures = {}
    if not (counts := fitting(wanted)):
        return figures
    async with contextlib.AsyncExitStack() as stack:
        behind = stack.enter_context(site(folder))
        worlds: dict[int, tuple[Envoy, TrafficState]] = {}
        for count in counts:
            envoy = Envoy(folder / f"e{count}", 20_000 + 1000 * len(worlds))
            stack.push_async_callback(envoy.stop)
            began = time.perf_counter()
            for number in range(count):
                state = await envoy.apply(both(f"s-{number}", behind.address), fence=FENCE)
            figures[f"{count} services: seconds to make them"] = time.perf_counter() - began
            worlds[count] = envoy, state
        for count in counts:
            figures[f"{count} services: Envoy's memory, MB"] = (
                running(folder / f"e{count}").memory_info().rss / 2**20
            )
        took = await by_turns(worlds)
    for count in counts:
        figures[f"{count} services: a switch, ms, p50"] = 1000 * statistics.median(took[count])
        figures[f"{count} services: a switch, ms, p99"] = 1000 * p99(took[count])
    first, last = (statistics.median(took[count]) for count in (min(counts), max(counts)))
    figures[f"a switch: with {max(counts)} services / with {min(counts)}"] = last / first
    return figures


async def by_turns(worlds: dict[int, tuple[Envoy, TrafficState]]) -> dict[int, list[float]]:
    """Seconds of each switch of one service, and its confirmation."""
    took: dict[int, list[float]] = {count: [] for count in worlds}
    for turn in range(SWITCHES):
        for count, (envoy, state) in worlds.items():
            weight = Weight(state.backends[(turn + 1) % 2].release, WHOLE)
            began = time.perf_counter()
            after = await envoy.apply(state.shifting(weight), fence=FENCE)
            took[count].append(time.perf_counter() - began)
            assert after.weights == (weight,)
    return took


# --- all of it -------------------------------------------------------------------------------------------


def parts(given: argparse.Namespace) -> dict[str, Callable[[Path], Coroutine[None, None, Figures]]]:
    return {
        "changes": lambda folder: changes(folder, given.changes),
        "cycles": lambda folder: cycles(folder, given.cycles),
        "overhead": overhead,
        "services": lambda folder: services(folder, given.services),
    }


NEEDS = {"changes": ("hey", "curl"), "cycles": ("hey", "curl"), "overhead": ("wrk",), "services": ()}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(NEEDS), default=list(NEEDS))
    parser.add_argument("--changes", type=int, default=1000)
    parser.add_argument("--cycles", type=int, default=100)
    parser.add_argument("--services", type=int, nargs="+", default=[1, 50, 200])
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    if absent := missing(*sorted({tool for part in given.only for tool in NEEDS[part]})):
        sys.exit(absent)
    # A shell in the background hands it on as ignored, and hey ends by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    figures: Figures = {}
    for name, part in parts(given).items():
        if name not in given.only:
            continue
        with tempfile.TemporaryDirectory(prefix="ps-") as folder:
            found = run(part(Path(folder)))
        for what, value in found.items():
            print(f"{name}: {what:66} {value:12,.{2 if value < 100 else 0}f}", flush=True)
        figures |= {f"{name}: {what}": value for what, value in found.items()}
    if given.json:
        given.json.write_text(json.dumps({"figures": figures}, indent=2) + "\n")
    if any(value for name, value in figures.items() if "failed" in name):
        sys.exit("requests were lost")


if __name__ == "__main__":
    main()
