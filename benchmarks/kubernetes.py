"""What a delivery to a cluster costs: its API, its time, a controller's memory, a worker's rate.

    benchmarks/kubernetes.py [--only PART…] [--json FILE]

requests    of the API, for one delivery of a small service over another: dark, 10%, 50%, all; for one that is
            rolled back at 10%; and for a look at what is there. By stage and by verb
stages      milliseconds of each stage, and of the same Deployment, Service and route without Penstock, by
            turns; the difference is what Penstock adds to the cluster's own rollout. Both take the release
            before the last away with a promotion, and wait until it is gone
watched     a controller that has 1,000 releases and their routes in view: its memory, its first look, its
            idle CPU
throughput  deliveries a second, placed to promoted, that one worker does with its ledger and gates, and how
            much of the processors the fake takes meanwhile

The cluster is the fake that ships, in a process of its own: counts are exact, and times are not a real
cluster's. There, pods are ready at once, so of a ratio of times only the difference carries over.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import psutil
from parts.cluster import Drivers, Served, drivers, served
from parts.delivering import Bare, Lane, pair
from parts.rollouts import delivered

RELEASES = 1000
ROUNDS = 5
IDLE_SECONDS = 10.0
DELIVERIES = 12
Figures = dict[str, float]


# --- requests --------------------------------------------------------------------------------------------


class Counting:
    """Requests of one part after another."""

    def __init__(self, cluster: Served) -> None:
        self._cluster = cluster
        self._before = cluster.asked()
        self.parts: dict[str, Counter[str]] = {}

    async def part(self, name: str, work: Awaitable[object]) -> None:
        await work
        now = self._cluster.asked()
        self.parts[name] = now - self._before
        self._before = now

    def figures(self, what: str) -> Figures:
        """By part, by verb, and all."""
        verbs: Counter[str] = Counter()
        for part in self.parts.values():
            for asked, count in part.items():
                verbs[asked.split()[0]] += count
        found = {f"{what}: {name}, requests": float(part.total()) for name, part in self.parts.items()}
        found |= {f"{what}: {verb}, requests": float(count) for verb, count in sorted(verbs.items())}
        return found | {f"{what}: all of it, requests": float(verbs.total())}


async def requests(folder: Path) -> Figures:
    with served(folder) as cluster:
        async with drivers(cluster.kubeconfig) as ours:
            return await counted(cluster, ours, Lane(ours, "web", folder / "log"))


async def counted(cluster: Served, ours: Drivers, lane: Lane) -> Figures:
    figures: Figures = {}
    looking = Counting(cluster)
    await looking.part("platform", ours.platform.check())
    await looking.part("router", ours.router.check())
    figures |= looking.figures("the first look")
    first, second, third = lane.next(), lane.next(), lane.next()
    for verb in ("deploy", "promote"):
        await lane.do(verb, first)
    delivery = Counting(cluster)
    await delivery.part("dark", lane.do("deploy", second))
    for share in (100, 500):
        await delivery.part(f"{share / 10:g}%", lane.do("shift", second, share))
    await delivery.part("promote", lane.do("promote", second))
    figures |= delivery.figures("delivery")
    undone = Counting(cluster)
    await undone.part("dark", lane.do("deploy", third))
    await undone.part("10%", lane.do("shift", third, 100))
    await undone.part("roll back", lane.do("rollback", third))
    figures |= undone.figures("rolled back")
    looked = Counting(cluster)
    for _ in range(100):
        await ours.platform.observe(second.id)
    await looked.part("100 times", asyncio.sleep(0))
    figures["look at a release, 100 times, requests"] = float(looked.parts["100 times"].total())
    await looked.part("route", ours.router.read("web", "production"))
    figures["look at a route, requests"] = float(looked.parts["route"].total())
    return figures


# --- stages ----------------------------------------------------------------------------------------------


async def stages(folder: Path) -> Figures:
    with served(folder) as cluster:
        async with drivers(cluster.kubeconfig) as ours:
            lane, bare = Lane(ours, "web", folder / "log"), Bare(ours.client, "bare")
            took: dict[str, list[tuple[float, float]]] = {}
            for number in range(ROUNDS + 1):  # the first has nothing to replace
                turns = {"dark": 0, "10%": 100, "promote": 0}
                await once(lane, bare, number, took if number else {}, turns)
    figures: Figures = {}
    for name, pairs in took.items():
        with_us, alone = (statistics.median(column) * 1000 for column in zip(*pairs, strict=True))
        figures |= {
            f"stage {name}, ms": with_us,
            f"stage {name}: without Penstock, ms": alone,
            f"stage {name}: added, ms": with_us - alone,
            f"stage {name}: with / without": with_us / alone,
        }
    return figures


async def once(
    lane: Lane,
    bare: Bare,
    number: int,
    took: dict[str, list[tuple[float, float]]],
    turns: dict[str, int],
) -> None:
    """One delivery each, stage by stage in turn."""
    new = lane.next()
    theirs, old, gone = (pair("bare", number + 1 - ago) for ago in range(3))
    for name, share in turns.items():
        if share and lane.live is None:
            continue
        verb = {"dark": "deploy", "promote": "promote"}.get(name, "shift")
        ours = await timed(lane.do(verb, new, share))
        alone = {
            "deploy": lambda: bare.deploy(theirs),
            "shift": lambda share=share: bare.shift(theirs, old, share),
            "promote": lambda: bare.promote(theirs, gone),
        }[verb]
        took.setdefault(name, []).append((ours, await timed(alone())))


async def timed(work: Awaitable[object]) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


# --- watched ---------------------------------------------------------------------------------------------


async def watched(folder: Path) -> Figures:
    """In this process: what it has already is taken off."""
    me = psutil.Process()
    few, many = folder / "few", folder / "many"
    for made in (few, many):
        made.mkdir()
    with served(few, releases=1) as cluster:  # what is loaded once is no release's
        async with drivers(cluster.kubeconfig) as ours:
            await ours.platform.observe("web-0")
            await ours.router.check()
            await ours.router.read("web-0", "production")
    with served(many, releases=RELEASES) as cluster:
        async with drivers(cluster.kubeconfig) as ours:
            before = me.memory_info().rss
            first = await timed(ours.platform.check()) + await timed(ours.router.check())
            held = me.memory_info().rss
            each = await timed(look(ours))
            looked = me.memory_info().rss
            asked = cluster.asked().total()
            used = sum(me.cpu_times()[:2])
            await asyncio.sleep(IDLE_SECONDS)
            idle = sum(me.cpu_times()[:2]) - used
            new = cluster.asked().total() - asked
    return {
        f"{RELEASES:,} releases: first look, s": first,
        f"{RELEASES:,} releases: memory of a controller, MB": looked / 2**20,
        f"{RELEASES:,} releases: memory added, MB": (looked - before) / 2**20,
        "memory added by each release, KB": (looked - before) / 2**10 / RELEASES,
        "of that by its objects, KB": (held - before) / 2**10 / RELEASES,
        f"{RELEASES:,} releases: idle CPU, %": 100 * idle / IDLE_SECONDS,
        f"{RELEASES:,} releases: requests while idle": float(new),
        "look at each of them, ms": 1000 * each / RELEASES,
    }


async def look(ours: Drivers) -> None:
    for number in range(RELEASES):
        found = await ours.platform.observe(f"web-{number}")
        if found is None or not found.ready:
            raise RuntimeError(f"web-{number} is not as it was placed")


# --- throughput ------------------------------------------------------------------------------------------


async def throughput(folder: Path) -> Figures:
    with served(folder) as cluster:
        async with drivers(cluster.kubeconfig) as ours:
            asked, theirs, own = cluster.asked(), cluster.cpu, sum(psutil.Process().cpu_times()[:2])
            seconds = await delivered(folder / "home", ours, DELIVERIES)
            theirs, own = cluster.cpu - theirs, sum(psutil.Process().cpu_times()[:2]) - own
            requests = (cluster.asked() - asked).total()
    return {
        "one worker: deliveries/s": DELIVERIES / seconds,
        "one worker: requests of a delivery": requests / DELIVERIES,
        "one worker: its own CPU for a delivery, ms": 1000 * own / DELIVERIES,
        "one worker: deliveries/s if that were all": DELIVERIES / own,
        "one worker: its CPU, % of a core": 100 * own / seconds,
        "one worker: the fake's CPU, % of a core": 100 * theirs / seconds,
        "one worker: the fake's share of both, %": 100 * theirs / (own + theirs),
    }


# --- all of it -------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[Path], Coroutine[None, None, Figures]]] = {
    "requests": requests,
    "stages": stages,
    "watched": watched,
    "throughput": throughput,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    given = parser.parse_args()
    figures: Figures = {}
    for name, part in PARTS.items():
        if given.only and name not in given.only:
            continue
        with tempfile.TemporaryDirectory(prefix="ps-") as folder:
            found = asyncio.run(part(Path(folder)))
        for what, value in found.items():
            print(f"{what:58} {value:12,.{2 if value < 100 and value % 1 else 0}f}", flush=True)
        figures |= found
    if given.json:
        given.json.write_text(json.dumps({"figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
