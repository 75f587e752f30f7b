"""What a call to a service of a peer costs beside a call to one of this machine, by turns.

    benchmarks/mesh.py [--rounds N] [--seconds N] [--json FILE]

Two machines are two Envoys on loopback, so that there is no network in it: the first calls a catalog of its
own through its egress listener, and one of the second through mutual TLS. Besides: what issuing a certificate
costs, and how long the first call on a new connection takes. Needs `wrk`; the folder's path must be short.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import psutil
from parts.proxies import Cost, measured, site

from fakes.machines import ENVIRONMENT, STOREFRONT, Machine, dial
from fakes.web import Website, free_port
from penstock.core.traffic import Backend, Egress, TrafficPlan, Weight

Figures = dict[str, float]
CONNECTIONS = (1, 16)
ISSUED = 200
DIALLED = 50


async def calls(folder: Path, rounds: int, seconds: int) -> Figures:
    west, east = Machine(folder, "west", 3600.0), Machine(folder, "east", 3600.0)
    front = Website("storefront-1")
    await front.start()
    costs: dict[tuple[str, int], list[tuple[Cost, float]]] = {}
    try:
        with site(folder) as behind:
            await export(east, behind.address, west)
            ways = {
                "local": await local(west, behind.address, front),
                "peer": await west.caller("storefront", front, east.remote("west")),
            }
            proxies = [running(machine) for machine in (west, east)]
            for _ in range(rounds):
                for connections in CONNECTIONS:
                    for name, url in ways.items():
                        before = spent(proxies[1])
                        found = await asyncio.to_thread(measured, url, proxies[0], connections, seconds)
                        there = 1e6 * (spent(proxies[1]) - before) / (found.per_second * seconds)
                        costs.setdefault((name, connections), []).append((found, there))
            figures = compared(costs)
            return figures | await connecting(west, east, folder) | issuing(west)
    finally:
        await front.stop()
        for machine in (west, east):
            await machine.stop()


async def export(east: Machine, address: str, west: Machine) -> None:
    backend = Backend("catalog-1", (address,), "/", export=east.exporting(west.admitted("storefront")))
    await east.apply(TrafficPlan("catalog", ENVIRONMENT, (backend,), (Weight("catalog-1", 1000),)))


async def local(west: Machine, address: str, front: Website) -> str:
    """Where a service of *west* calls a catalog that is there too."""
    backend = Backend("catalog-9", (address,), "/")
    await west.apply(TrafficPlan("catalog", ENVIRONMENT, (backend,), (Weight("catalog-9", 1000),)))
    where = f"127.0.0.1:{free_port()}"
    shop = Backend("shop-1", (front.address,), "/health", (Egress("catalog", where),))
    await west.apply(TrafficPlan("shop", ENVIRONMENT, (shop,), (Weight("shop-1", 1000),)))
    return f"http://{where}"


def running(machine: Machine) -> psutil.Process:
    return psutil.Process(json.loads((machine.folder / "envoy" / "envoy.pid").read_text())["pid"])


def spent(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def compared(costs: dict[tuple[str, int], list[tuple[Cost, float]]]) -> Figures:
    figures: Figures = {}
    for connections in CONNECTIONS:
        for what, of in {
            "p50 ms": lambda cost, _: cost.p50_ms,
            "CPU us": lambda cost, there: cost.cpu_us + there,
            "per second": lambda cost, _: cost.per_second,
        }.items():
            found = {
                name: statistics.median(of(*cost) for cost in costs[name, connections])
                for name in ("local", "peer")
            }
            for name, value in found.items():
                figures[f"{what}, {connections} connections, {name}"] = value
            figures[f"{what}, {connections} connections, peer/local"] = found["peer"] / found["local"]
    figures["failed"] = float(sum(cost.failed for every in costs.values() for cost, _ in every))
    return figures


async def connecting(west: Machine, east: Machine, folder: Path) -> Figures:
    shown, taken = west.issuer.issue(STOREFRONT), []
    for _ in range(DIALLED):
        began = time.monotonic()
        assert (await dial(east, folder, shown)).status == 200
        taken.append(1000 * (time.monotonic() - began))
    return {"first request on a new connection (a Python client), p50 ms": statistics.median(taken)}


def issuing(machine: Machine) -> Figures:
    began = time.monotonic()
    for _ in range(ISSUED):
        machine.issuer.issue(STOREFRONT)
    return {"a certificate issued, ms": 1000 * (time.monotonic() - began) / ISSUED}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if shutil.which("wrk") is None:
        print("wrk is not installed: apt install wrk", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="ps-", dir="/tmp") as folder:
        figures = asyncio.run(calls(Path(folder), given.rounds, given.seconds))
    for name, value in figures.items():
        print(f"{name:60} {value:10.3f}")
    if given.json:
        given.json.write_text(json.dumps({"figures": figures}, indent=2) + "\n")
    return 1 if figures["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
