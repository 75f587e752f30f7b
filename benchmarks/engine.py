"""What the delivery engine costs: ten trivial steps, queues, take-overs, and a long history, beside the floor.

    benchmarks/engine.py [--only PART…] [--deliveries N] [--json FILE] [--profile FILE]

Parts: ``steps`` (a pipeline of ten steps, each `true` with its log, its evidence and its gate, from trigger to
finished, without and with bubblewrap), ``queue`` (100 such deliveries by 1, 2 and 4 worker processes, on SQLite
and on PostgreSQL), ``takeover`` (kill -9 of a worker that holds a delivery), ``history`` (memory, idle CPU and
step rate of a control plane with N finished deliveries, and with none).

The floor of ``steps``, in the same run and by turns: ten `true` under the same isolation by posix_spawn, each
waited for, and ten durable commits of one row. How the pipeline is plugged in: `parts.tensteps`. Durability is
the folder's: put TMPDIR on the disk in question, its path short.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "tests")]

from parts.running import running
from parts.tensteps import STEPS, TRUE, Enclosing, World, bare
from penstock.bootstrap.home import Home
from penstock.bootstrap.plugins import open_sandbox
from penstock.core.workload import Step

ROUNDS = 20
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


# --- all of it -------------------------------------------------------------------------------------------


def parts(given: argparse.Namespace) -> dict[str, Callable[[Path], Coroutine[None, None, Figures]]]:
    return {"steps": lambda folder: steps(folder, given.profile)}


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
            found = asyncio.run(part(Path(folder)))
        for what, value in found.items():
            print(f"{what:66} {value:12,.{2 if value < 100 else 0}f}", flush=True)
        figures |= found
    if given.json:
        given.json.write_text(json.dumps({"figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
