"""What the ledger costs on SQLite and on PostgreSQL, measured in one run, with their ratios.

    benchmarks/stores.py [--entries N] [--json FILE]

Both keep their promises about the disk (synchronous FULL, fsync), and it is the same one: put TMPDIR on the
disk in question. PostgreSQL is on this machine, on a unix socket; over a network add its round trips.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fakes.postgres import PostgresServer
from penstock.adapters.ed25519 import Ed25519
from penstock.adapters.postgres import PostgresStore
from penstock.adapters.sqlite import SqliteStore
from penstock.bootstrap.identity import ROLES
from penstock.core.digest import digest
from penstock.core.evidence import Envelope, Statement, Subject
from penstock.core.people import By, Genesis, KeyGrant
from penstock.core.predicates import TestResult
from penstock.core.saying import statement_of
from penstock.ledger.log import Ledger, attest
from penstock.ports import Store

SINGLE, BATCH, PROOFS = 300, 500, 1000
TABLES = ("entries", "nodes", "tags", "checkpoints")


class Book:
    """A ledger that grows; every figure is measured where it stands."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.store = store
        self.log, self.operator, self.worker = (
            Ed25519.create(folder / f"{name}.key") for name in ("log", "op", "worker")
        )
        self.ledger = Ledger(store, [self.log], "benchmark")
        self.size = 0

    async def begin(self) -> None:
        await self.ledger.migrate()
        keys = self.log.public_key.hex(), self.operator.public_key.hex()
        genesis = Genesis("benchmark", keys[0], "op", keys[1], tuple(ROLES))
        grant = KeyGrant(By("op"), "worker", self.worker.public_key.hex(), "worker")
        await self.keep([attest(self.operator, statement_of(said)) for said in (genesis, grant)])

    async def keep(self, envelopes: list[Envelope]) -> None:
        async with self.store.transaction() as tx:
            await self.ledger.append(tx, envelopes)
        self.size += len(envelopes)

    async def grow(self, count: int, batch: int) -> float:
        """Append *count* statements, signed as they come; how many a second."""
        began, left = time.perf_counter(), count
        while left:
            now = min(batch, left)
            await self.keep([self.evidence(self.size + place) for place in range(now)])
            left -= now
        return count / (time.perf_counter() - began)

    def evidence(self, number: int) -> Envelope:
        result = TestResult("PASSED", f"suite-{number}", (), 100, 0, 0, ())
        return attest(self.worker, Statement((Subject("catalog", digest(b"%d" % number)),), result))

    async def proofs(self) -> float:
        chance = random.Random(1)
        async with self.store.transaction(write=False) as tx:
            began = time.perf_counter()
            for _ in range(PROOFS):
                await self.ledger.inclusion(tx, chance.randrange(self.size), self.size)
            return PROOFS / (time.perf_counter() - began)

    async def reads(self) -> float:
        """Transactions that read one entry by its number."""
        chance = random.Random(1)
        began = time.perf_counter()
        for _ in range(PROOFS):
            async with self.store.transaction(write=False) as tx:
                await self.ledger.entry(tx, chance.randrange(self.size))
        return PROOFS / (time.perf_counter() - began)


async def measure(book: Book, sizes: list[int]) -> dict[str, float]:
    await book.begin()
    figures = {}
    for size in sizes:
        batched = await book.grow(size - book.size - SINGLE, BATCH)
        single = await book.grow(SINGLE, 1)
        figures |= {
            f"{size:,} entries: appends/s, one a transaction": single,
            f"{size:,} entries: appends/s, {BATCH} a transaction": batched,
            f"{size:,} entries: one append, µs": 1e6 / single,
            f"{size:,} entries: inclusion proofs/s": await book.proofs(),
            f"{size:,} entries: reading transactions/s": await book.reads(),
        }
    return figures


async def sqlite(folder: Path, sizes: list[int]) -> dict[str, float]:
    store = SqliteStore(folder / "ledger.db")
    figures = await measure(Book(folder, store), sizes)
    async with store.transaction() as tx:
        ((pages,),) = await tx.execute("PRAGMA page_count")
        ((page_size,),) = await tx.execute("PRAGMA page_size")
    await store.close()
    return {**figures, "bytes per entry": int(str(pages)) * int(str(page_size)) / sizes[-1]}


async def postgres(folder: Path, sizes: list[int], server: PostgresServer) -> dict[str, float]:
    schema = server.schema()
    store = PostgresStore(server.url(schema))
    figures = await measure(Book(folder, store), sizes)
    await store.close()
    whole = " + ".join(f"pg_total_relation_size('{schema}.{table}')" for table in TABLES)
    ((size,),) = server.run(f"SELECT {whole}")
    return {**figures, "bytes per entry": int(str(size)) / sizes[-1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=100_000, help="how far the ledgers grow")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    sizes = [size for size in (1_000, 10_000, 100_000, 1_000_000) if size <= given.entries]
    server = PostgresServer()
    try:
        server.start()
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
            first = asyncio.run(sqlite(Path(one), sizes))
            second = asyncio.run(postgres(Path(two), sizes, server))
    finally:
        server.remove()
    print(f"{'':50} {'SQLite':>10} {'PostgreSQL':>10} {'ratio':>6}")
    for name, value in first.items():
        print(f"{name:50} {value:10,.0f} {second[name]:10,.0f} {second[name] / value:6.2f}")
    if given.json:
        both = {
            f"{store}: {name}": value
            for store, found in (("SQLite", first), ("PostgreSQL", second))
            for name, value in found.items()
        }
        given.json.write_text(json.dumps({"figures": both}, indent=2) + "\n")


if __name__ == "__main__":
    main()
