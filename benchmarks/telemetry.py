"""What Penstock's own telemetry costs when the history is long: reading the metrics, and counting a step.

    benchmarks/telemetry.py [--deliveries N] [--json FILE]

The history is made by SQL, with fifteen records to a delivery; the ledger stays small, because nothing that
is measured here reads more than its last entries.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from penstock.adapters.ed25519 import Ed25519
from penstock.adapters.sqlite import SqliteStore
from penstock.config import ServiceConfig
from penstock.core.codec import encode
from penstock.core.people import Genesis
from penstock.core.pipeline import Intent, Record, State
from penstock.core.release import Change
from penstock.core.saying import statement_of
from penstock.engine import moments, numbers
from penstock.engine.journal import Header, Journal
from penstock.ledger.log import Ledger, attest
from penstock.ports import Store

RECORDS, ROUNDS = 15, 200
VERBS = ("begin", "build", "suite", "scan", "gate", "deploy", "acceptance", "shift", "look", "promote")


async def history(store: Store, deliveries: int) -> None:
    """As many deliveries that have ended, with their records."""
    change = Change("code", "shop", "production", "/repo", "1" * 40, "Dana", "A change")
    header = json.dumps(encode(Header(change, ServiceConfig("shop"))))
    for start in range(0, deliveries, 500):
        async with store.transaction() as tx:
            for number in range(start, min(start + 500, deliveries)):
                name = f"shop-{number:08x}"
                await tx.execute(
                    "INSERT INTO deliveries (id, scope, urgent, header, state, created, ended) "
                    "VALUES (?, 'shop/production', 0, ?, 'success', ?, ?)",
                    (name, header, float(number), number + 60.0),
                )
                for step in range(RECORDS):
                    intent = Intent(f"stage{step}", VERBS[step % len(VERBS)])
                    record = Record(intent, State.SUCCESS, float(number), number + step / 7, "x" * 200)
                    await tx.execute(
                        "INSERT INTO records (delivery, seq, key, body) VALUES (?, ?, ?, ?)",
                        (name, step, intent.key, json.dumps(encode(record))),
                    )
                    await numbers.steps_done(tx, [record])


async def milliseconds(rounds: int, call: Callable[[], Awaitable[object]]) -> float:
    """The median of so many calls."""
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        await call()
        took.append(time.perf_counter() - began)
    return statistics.median(took) * 1000


async def measure(folder: Path, deliveries: int) -> dict[str, float]:
    store = SqliteStore(folder / "penstock.db")
    log, operator = Ed25519.create(folder / "log"), Ed25519.create(folder / "operator")
    ledger, journal = Ledger(store, [log], "penstock"), Journal(store)
    await ledger.migrate()
    await journal.migrate()
    first = Genesis("penstock", log.public_key.hex(), "op", operator.public_key.hex(), ("administrator",))
    async with store.transaction() as tx:
        await ledger.append(tx, [attest(operator, statement_of(first))])
    await history(store, deliveries)

    async def read() -> None:
        async with store.transaction(write=False) as tx:
            await numbers.read(tx, journal.lease_seconds)
            await moments.newest(ledger, journal, tx)

    async def find() -> None:
        async with store.transaction(write=False) as tx:
            await journal.find(tx, f"shop-{deliveries // 2:08x}")

    record = Record(Intent("build", "build"), State.SUCCESS, 1.0, 2.0)

    async def write(count: int) -> None:
        async with store.transaction() as tx:
            for _ in range(count):
                await numbers.steps_done(tx, [record])

    many = await milliseconds(ROUNDS // 10, lambda: write(2000))
    none = await milliseconds(ROUNDS // 10, lambda: write(0))
    figures = {
        "metrics_read_ms": await milliseconds(ROUNDS, read),
        "find_delivery_ms": await milliseconds(ROUNDS, find),
        "count_step_us": (many - none) * 1000 / 2000,
    }
    await store.close()
    return figures


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--deliveries", type=int, default=10_000)
    given.add_argument("--json", type=Path, metavar="FILE")
    options = given.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(measure(Path(folder), options.deliveries))
    print(f"{options.deliveries} deliveries, {options.deliveries * RECORDS} records")
    for name, value in figures.items():
        print(f"  {name:<20} {value:8.2f}")
    if options.json:
        options.json.write_text(json.dumps({"figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
