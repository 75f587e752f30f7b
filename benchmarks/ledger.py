"""How fast the ledger appends, proves and verifies as it grows, beside the floor that nothing could be below.

    benchmarks/ledger.py [--entries N] [--json FILE]

Everything is real: SQLite with synchronous FULL in a fresh folder, ed25519, every check that an append makes.
Signing is inside: a worker signs what it says, and the log signs every tree head. Durability is the folder's:
put TMPDIR on the disk in question. One process, one core. --entries 1000000 takes about five minutes.
ABOUT entries in a row are about the same artifact, as a delivery's are; if each is about another one, its
tag goes to another page of the index: that figure is given as well.

The floor, in the same run: bare commits of one row of an entry's size; and signing and checking one message
of an entry's size, which every entry needs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from integration.ledger.world import Delivery, World, artifact
from penstock.adapters.sqlite import SqliteStore
from penstock.core.digest import digest
from penstock.core.evidence import Envelope, Statement, Subject, pre_authentication_encoding
from penstock.core.merkle import leaf_hash, root_from_inclusion
from penstock.core.predicates import TestResult
from penstock.ledger.log import attest
from penstock.ledger.signatures import signed_by

SIZES = (1_000, 10_000, 100_000, 1_000_000)
SINGLE, BATCH, PROOFS, FLOOR, DELIVERIES, ABOUT = 300, 500, 1000, 2000, 40, 5
#: The last part of the way to a size, on which batches are timed.
STRETCH = 10 * BATCH

Figures = dict[str, float]


async def ledger(folder: Path, sizes: list[int]) -> Figures:
    """One ledger that grows; every figure is measured where it stands."""
    world = await World.begin(folder, SqliteStore(folder / "ledger.db"), [])
    figures: Figures = {}
    size = 2
    for target in sizes:
        way = await grow(world, size, target - STRETCH - SINGLE)
        if target - size > 2 * STRETCH:
            figures[f"on the way to {target:,}: appends/s, {BATCH} a transaction"] = way
        size = max(size, target - STRETCH - SINGLE)
        figures |= await here(world, folder, size, target)
        size = target
    figures["appends/s in batches, each entry about another artifact"] = await grow(
        world, size, size + STRETCH, about=1
    )
    await world.store.close()  # everything is moved from the log of writes into the file
    world.store = SqliteStore(folder / "ledger.db")
    on_disk, evidence = await stored(world)
    before = peak()
    return {
        **figures,
        "bytes on disk per entry": on_disk / (size + STRETCH),
        "bytes of signed evidence per entry": evidence / (size + STRETCH),
        **await verification(world, "verified entries/s"),
        "peak memory before verifying, MB": before,
        "peak memory after verifying, MB": peak(),
    }


async def grow(world: World, start: int, end: int, about: int = ABOUT) -> float:
    """Append in batches; how many a second."""
    began = time.perf_counter()
    for first in range(start, end, BATCH):
        await keep(world, range(first, min(end, first + BATCH)), about)
    return (end - start) / (time.perf_counter() - began)


async def here(world: World, folder: Path, size: int, target: int) -> Figures:
    """What appending and proving costs at this size."""
    batched = await grow(world, size, target - SINGLE)
    bare, single = [], []
    floor = commits(folder / f"floor-{target}.db", world)
    for number in range(target - SINGLE, target):  # by turns: the disk is not equally fast at all times
        bare.append(timed(floor))
        began = time.perf_counter()
        await keep(world, range(number, number + 1))
        single.append(time.perf_counter() - began)
    found = {
        f"appends/s, {BATCH} a transaction": batched,
        "appends/s, one a transaction": 1 / statistics.fmean(single),
        "one append, µs (median)": 1e6 * statistics.median(single),
        "floor: commits/s": 1 / statistics.fmean(bare),
        "appends, one a transaction / floor": statistics.fmean(bare) / statistics.fmean(single),
        **await proofs(world, target),
    }
    return {f"at {target:,}: {name}": value for name, value in found.items()}


async def proofs(world: World, size: int) -> Figures:
    """Each is checked against the root: a proof that proves nothing costs nothing."""
    chance, taken = random.Random(1), []
    async with world.store.transaction(write=False) as tx:
        root = await world.ledger.root(tx, size)
        for _ in range(PROOFS):
            index = chance.randrange(size)
            began = time.perf_counter()
            proof = await world.ledger.inclusion(tx, index, size)
            taken.append(time.perf_counter() - began)
            leaf = leaf_hash((await world.ledger.entry(tx, index)).envelope.raw)
            assert root_from_inclusion(index, size, leaf, proof) == root
    worst = statistics.quantiles(taken, n=100)[98]
    return {
        "inclusion proof, µs (median)": 1e6 * statistics.median(taken),
        "inclusion proof, µs (99th of 100)": 1e6 * worst,
    }


async def verification(world: World, name: str) -> Figures:
    """Full verification, while somebody else on the same event loop wants a turn all the time."""
    gaps, done = [0.0], False

    async def others() -> None:
        last = time.perf_counter()
        while not done:
            await asyncio.sleep(0)
            now = time.perf_counter()
            gaps.append(max(gaps.pop(), now - last))
            last = now

    waiting = asyncio.create_task(others())
    began = time.perf_counter()
    report = await world.verify()
    seconds = time.perf_counter() - began
    done = True
    await waiting
    assert report.verified, report.problems
    figures = {name: report.entries / seconds, f"{name}: longest wait of others, ms": 1000 * gaps[0]}
    return figures | ({f"{name}: sign-offs/s": report.sign_offs / seconds} if report.sign_offs else {})


async def other_shapes(folder: Path) -> Figures:
    """Ledgers of other shapes: a tree head for each entry, and deliveries with all that belongs to them."""
    singly = await World.begin(made(folder / "singly"), SqliteStore(folder / "singly.db"), [])
    for number in range(3 * SINGLE):
        await keep(singly, [number])
    whole = await World.begin(made(folder / "whole"), SqliteStore(folder / "whole.db"))
    baseline = None
    for number in range(DELIVERIES):
        delivery = Delivery(f"d-{number}", artifact(str(number)), baseline)
        await whole.ship(delivery)
        baseline = delivery.release
    return {
        **await verification(singly, "verified entries/s, a tree head each"),
        **await verification(whole, "verified entries/s, whole deliveries"),
    }


def signatures(world: World) -> Figures:
    """One key signs an entry's bytes and checks them: what no way of appending can do without."""
    message = pre_authentication_encoding(evidence(world, 1).payload)
    made = world.worker.sign(message).value
    sign = timed(lambda: [world.worker.sign(message) for _ in range(FLOOR)]) / FLOOR
    check = timed(lambda: [signed_by(world.worker.public_key, message, made) for _ in range(FLOOR)]) / FLOOR
    return {"floor: signed and checked/s": 1 / (sign + check), "floor: checked/s": 1 / check}


def commits(path: Path, world: World) -> Callable[[], object]:
    """A bare transaction of one row of an entry's size, made durable."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE bare (id INTEGER PRIMARY KEY, row BLOB)")
    row = evidence(world, 0).raw
    return lambda: database.execute("INSERT INTO bare (row) VALUES (?)", (row,))


def evidence(world: World, number: int, about: int = ABOUT) -> Envelope:
    result = TestResult("PASSED", f"suite-{number}", (), 100, 0, 0, ())
    subject = Subject("catalog", digest(b"%d of %d" % (number // about, about)))
    return attest(world.worker, Statement((subject,), result))


async def keep(world: World, numbers: Iterable[int], about: int = ABOUT) -> None:
    await world.keep(*(evidence(world, number, about) for number in numbers))


async def stored(world: World) -> tuple[int, int]:
    async with world.store.transaction(write=False) as tx:
        ((pages,),) = await tx.execute("PRAGMA page_count")
        ((size,),) = await tx.execute("PRAGMA page_size")
        ((raw,),) = await tx.execute("SELECT sum(length(envelope)) FROM entries")
    return int(str(pages)) * int(str(size)), int(str(raw))


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def peak() -> float:
    """The most memory that this process has had, in MB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


async def measure(folder: Path, sizes: list[int]) -> Figures:
    found = await ledger(folder, sizes)
    shapes = await other_shapes(folder)
    floor = signatures(await World.begin(made(folder / "floor"), SqliteStore(folder / "floor.db"), []))
    batched = found[f"at {sizes[-1]:,}: appends/s, {BATCH} a transaction"]
    ratios = {
        f"appends/s, {BATCH} a transaction / floor": batched / floor["floor: signed and checked/s"],
        "verified entries/s / floor": found["verified entries/s"] / floor["floor: checked/s"],
    }
    return {**found, **shapes, **floor, **ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--entries", type=int, default=100_000, help="how far the ledger grows")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    sizes = [size for size in SIZES if size < given.entries]
    sizes.append(max(given.entries, 2 * (STRETCH + SINGLE)))
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(measure(Path(folder), sizes))
    for name, value in figures.items():
        print(f"{name:66} {value:12,.{2 if value < 10 else 0}f}")
    if given.json:
        given.json.write_text(json.dumps({"figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
