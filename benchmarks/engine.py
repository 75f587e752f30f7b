"""What the delivery engine costs: ten trivial steps, queues, take-overs, a long history; beside the floor.

    benchmarks/engine.py [--only PART…] [--deliveries N] [--json FILE] [--profile FILE]

steps     a pipeline of ten steps, each `true` with its log, its signed evidence and its gate, from trigger to
          finished, without a sandbox and with bubblewrap. The floor, by turns with it: ten `true` under the
          same isolation by posix_spawn, each waited for, and ten durable commits of one row
queue     100 such deliveries by 1, 2 and 4 worker processes, on SQLite and on PostgreSQL
takeover  kill -9 of a worker process that holds a delivery, until another performs its next step
history   memory, idle CPU and step rate with N finished deliveries in journal and ledger, and with none

How the pipeline is plugged into the engine: `parts.tensteps`. Durability is the folder's: put TMPDIR on the
disk in question, its path short. Processes run on the machine's cores, the measuring one among them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import cProfile
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import psutil
from parts.history import fill, promote, template
from parts.running import processes, running
from parts.tensteps import STEPS, TRUE, Enclosing, World, bare

from fakes.postgres import PostgresServer
from fakes.web import free_port
from penstock.bootstrap.home import Home
from penstock.bootstrap.loop import run
from penstock.bootstrap.plugins import open_sandbox
from penstock.core.workload import Step

ROUNDS = 20
QUEUED = 100
WORKERS = (1, 2, 4)
SERVICES = 1500
SETTLE_SECONDS, IDLE_SECONDS = 3.0, 10.0
#: Seconds, and how often.
LEASES = ((2.0, 5), (10.0, 3))
#: A step that is in the middle of something when its worker dies.
SLOW = ("/bin/sleep", "0.3")
Figures = dict[str, float]


# --- ten steps -------------------------------------------------------------------------------------------


async def steps(folder: Path, profile: Path | None) -> Figures:
    sandbox = open_sandbox("bubblewrap")
    figures: Figures = {}
    cases: dict[str, Enclosing] = {"no sandbox": bare, "bubblewrap": sandbox.enclose}
    for number, (name, enclosing) in enumerate(cases.items()):
        home = Home(folder / str(number))
        figures |= {f"ten steps, {name}: {k}": v for k, v in (await ten(home, enclosing, profile)).items()}
        profile = None
    return figures


async def ten(home: Home, enclosing: Enclosing, profile: Path | None) -> Figures:
    world = await World.open(home)
    floor = Floor(home.path / "floor.db", enclosing(Step(argv=TRUE, cwd="/")))
    whole: list[float] = []
    spawned: list[float] = []
    committed: list[float] = []
    async with running(world.worker(enclosing)):
        await world.deliver("warm")
        for number in range(ROUNDS):  # by turns: the machine is not equally fast at all times
            spawned.append(floor.spawns())
            committed.append(floor.commits())
            whole.append(await world.deliver(f"ten-{number}"))
        if profile:
            await profiled(world, profile)
    await world.store.close()
    ours, spawns, commits = map(statistics.median, (whole, spawned, committed))
    return {
        "ms": 1000 * ours,
        "floor, ms": 1000 * (spawns + commits),
        "floor: ten spawns, ms": 1000 * spawns,
        "floor: ten commits, ms": 1000 * commits,
        "ratio": ours / (spawns + commits),
    }


async def profiled(world: World, file: Path) -> None:
    profiler = cProfile.Profile()
    profiler.enable()
    for number in range(ROUNDS):
        await world.deliver(f"profiled-{number}")
    profiler.disable()
    profiler.dump_stats(file)


class Floor:
    """What no engine could do without: ten processes, ten durable commits."""

    def __init__(self, path: Path, command: tuple[str, ...]) -> None:
        self._command = command
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute("CREATE TABLE bare (id INTEGER PRIMARY KEY, row BLOB)")

    def spawns(self) -> float:
        began = time.perf_counter()
        for _ in range(STEPS):
            pid = os.posix_spawn(self._command[0], self._command, {})
            assert os.waitpid(pid, 0)[1] == 0
        return time.perf_counter() - began

    def commits(self) -> float:
        began = time.perf_counter()
        for _ in range(STEPS):
            self._database.execute("INSERT INTO bare (row) VALUES (?)", (b"x" * 100,))
        return time.perf_counter() - began


# --- many deliveries, many workers -----------------------------------------------------------------------


async def queue(folder: Path) -> Figures:
    server = PostgresServer()
    try:
        server.start()
        figures: Figures = {}
        for workers in WORKERS:
            for name, url in (("SQLite", ""), ("PostgreSQL", server.url(server.schema()))):
                with store_at(url):
                    rate = await drained(Home(folder / f"{name}-{workers}"), workers)
                figures[f"queue of {QUEUED}, {name}, {workers} workers: steps/s"] = rate
        return figures
    finally:
        server.remove()


@contextlib.contextmanager
def store_at(url: str) -> Iterator[None]:
    """Whatever opens a store meanwhile, worker processes too, opens this; without a URL, a file."""
    os.environ["PENSTOCK_STORE"] = url
    try:
        yield
    finally:
        del os.environ["PENSTOCK_STORE"]


async def drained(home: Home, workers: int) -> float:
    """Steps a second, from the transaction that queues everything to the end of the last delivery."""
    world = await World.open(home)
    with processes(home, workers):
        await world.queue(f"q-{number}" for number in range(QUEUED))
        ended, seconds = 0, 0.0
        while ended < QUEUED:
            await asyncio.sleep(0.2)
            async with world.store.transaction(write=False) as tx:
                ((count, span),) = await tx.execute(
                    "SELECT count(*), max(ended) - min(created) FROM deliveries WHERE state = 'success'"
                )
            ended, seconds = int(str(count)), float(str(span or 0.0))
    await world.store.close()
    return QUEUED * STEPS / seconds


# --- a worker dies ---------------------------------------------------------------------------------------


async def takeover(folder: Path) -> Figures:
    figures: Figures = {}
    for lease, rounds in LEASES:
        home = Home(folder / f"lease-{lease:.0f}")
        world = await World.open(home, lease=lease)
        took = [await taken_over(world, f"t-{number}", lease) for number in range(rounds)]
        await world.store.close()
        figures |= {
            f"lease of {lease:.0f} s: take-over, s (median of {rounds})": statistics.median(took),
            f"lease of {lease:.0f} s: take-over, s (longest)": max(took),
        }
    return figures


async def taken_over(world: World, name: str, lease: float) -> float:
    """Seconds from kill -9 of the worker that holds a delivery to another's beginning of its next step."""
    with processes(world.home, 2, "--lease", str(lease), "--command", *SLOW) as both:
        await world.queue([name])
        while len((await world.find(name)).records) < 4:
            await asyncio.sleep(0.02)
        async with world.store.transaction(write=False) as tx:
            ((owner,),) = await tx.execute("SELECT owner FROM deliveries WHERE id = ?", (name,))
        holder = next(one.process for one in both if one.keyid == owner)
        holder.kill()
        holder.wait()
        killed = time.time()
        while not (found := await world.find(name)).ended:
            await asyncio.sleep(0.1)
        assert found.state == "success", found.reason
        return min(record.began for record in found.records if record.began > killed) - killed


# --- a long history --------------------------------------------------------------------------------------


async def history(folder: Path, deliveries: int) -> Figures:
    """Two data folders alike but for what has happened in them."""
    empty, full = Home(folder / "empty"), Home(folder / "full")
    figures = {f"no history: {name}": value for name, value in idle(empty).items()}
    world, other = await World.open(full), await World.open(empty)
    async with running(world.worker()):
        await world.deliver("h-template")
    began = time.perf_counter()
    await fill(world, await template(world, "h-template"), deliveries)
    figures["history: seconds to make it"] = time.perf_counter() - began
    figures |= await beside(f"{deliveries:,} deliveries", world, other, figures)
    await promote(world, SERVICES)
    figures |= await beside(f"{SERVICES:,} live services too", world, other, figures)
    for each in (world, other):
        await each.store.close()
    return figures


async def beside(what: str, world: World, other: World, nothing: Figures) -> Figures:
    """A folder with *what* in it: memory, idle CPU and step rate, and how often those of the *other*, which
    has no history and whose figures are *nothing*."""
    found = idle(world.home)
    ratios = {name: value / nothing[f"no history: {name}"] for name, value in found.items()}
    without, with_it = await by_turns(other, world)
    found |= {"steps/s": with_it, "steps/s of no history, by turns with it": without}
    ratios["steps/s"] = with_it / without
    said = {f"{what}: {name}": value for name, value in found.items()}
    return said | {f"{what} / no history: {name.split(',')[0]}": value for name, value in ratios.items()}


def idle(home: Home) -> Figures:
    """The control plane's process, started for this, when nobody asks it for anything."""
    penstock(home, "up", "--port", str(free_port()), "--ingress-port", str(free_port()))
    try:
        process = psutil.Process(int((home.run / "server.lock").read_text()))
        time.sleep(SETTLE_SECONDS)
        before = process.cpu_times()
        time.sleep(IDLE_SECONDS)
        after = process.cpu_times()
        memory = process.memory_info().rss
        penstock(home, "status")
        return {
            "memory, MB": memory / 2**20,
            "memory after a status, MB": process.memory_info().rss / 2**20,
            "idle CPU, %": 100 * (after.user + after.system - before.user - before.system) / IDLE_SECONDS,
        }
    finally:
        penstock(home, "down")


def penstock(home: Home, *words: str) -> None:
    environment = {**os.environ, "PENSTOCK_HOME": str(home.path)}
    command = [sys.executable, "-m", "penstock.cli.main", *words]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


async def by_turns(empty: World, full: World) -> tuple[float, float]:
    """Steps a second, one delivery at a time, without a history and with it."""
    took: list[list[float]] = [[], []]
    async with running(empty.worker()), running(full.worker()):
        for number in range(2 * ROUNDS):
            for world, seconds in zip((empty, full), took, strict=True):
                seconds.append(await world.deliver(f"b-{time.time_ns()}-{number}"))
    without, with_it = (STEPS / statistics.median(seconds) for seconds in took)
    return without, with_it


# --- all of it -------------------------------------------------------------------------------------------


def parts(given: argparse.Namespace) -> dict[str, Callable[[Path], Coroutine[None, None, Figures]]]:
    return {
        "steps": lambda folder: steps(folder, given.profile),
        "queue": queue,
        "takeover": takeover,
        "history": lambda folder: history(folder, given.deliveries),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=["steps", "queue", "takeover", "history"])
    parser.add_argument("--deliveries", type=int, default=10_000, help="how long the history is")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--profile", type=Path, help="write a profile of the ten steps here")
    given = parser.parse_args()
    figures: Figures = {}
    for name, part in parts(given).items():
        if given.only and name not in given.only:
            continue
        with tempfile.TemporaryDirectory(prefix="ps-") as folder:
            found = run(part(Path(folder)))
        for what, value in found.items():
            print(f"{what:66} {value:12,.{2 if value < 100 else 0}f}", flush=True)
        figures |= found
    if given.json:
        given.json.write_text(json.dumps({"figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
