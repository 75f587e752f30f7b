"""How fast the ledger appends, proves and verifies, and how fast policies decide.

    benchmarks/ledger.py [--json FILE]

Everything is real: SQLite with synchronous FULL in a fresh folder, ed25519, CEL. Durability is the
folder's: put TMPDIR on the disk in question.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from penstock.adapters.cel import Cel
from penstock.adapters.ed25519 import Ed25519
from penstock.adapters.sqlite import SqliteStore
from penstock.bootstrap.identity import ROLES, shipped_policies
from penstock.config import parse_policy
from penstock.core.digest import digest
from penstock.core.evidence import Envelope, Statement, Subject
from penstock.core.facts import Fact
from penstock.core.people import By, Genesis, KeyGrant
from penstock.core.predicates import TestResult
from penstock.core.saying import statement_of
from penstock.ledger import fsck
from penstock.ledger.log import Ledger, attest

SINGLE, BATCH, BATCHES, PROOFS, DECISIONS = 300, 500, 6, 300, 2000
FACTS: dict[str, Fact] = {
    "artifact.name": "catalog",
    "evidence.tests.passed": 100,
    "evidence.tests.failed": 0,
    "evidence.tests.failing": (),
}


async def measure(folder: Path) -> dict[str, float]:
    log, operator, worker = (Ed25519.create(folder / f"{name}.key") for name in ("log", "operator", "worker"))
    store = SqliteStore(folder / "ledger.db")
    ledger = Ledger(store, [log], "benchmark")
    await ledger.migrate()
    genesis = Genesis("benchmark", log.public_key.hex(), "op", operator.public_key.hex(), tuple(ROLES))
    grant = KeyGrant(By("op", 1.0), "worker", worker.public_key.hex(), "worker")
    first = attest(operator, statement_of(genesis))
    await keep(store, ledger, [first, attest(operator, statement_of(grant))])
    figures = await appends(store, ledger, worker)
    figures |= await reads(store, ledger)
    began = time.perf_counter()
    report = await fsck.verify(store, fsck.Trust("benchmark", log.public_key.hex(), first.digest), {})
    assert report.verified, report.problems
    figures["verified entries/s"] = report.entries / (time.perf_counter() - began)
    await store.close()
    return figures


async def appends(store: SqliteStore, ledger: Ledger, worker: Ed25519) -> dict[str, float]:
    """Signing is inside: a worker signs what it says, and the log signs every tree head."""
    began = time.perf_counter()
    for number in range(SINGLE):
        await keep(store, ledger, [evidence(worker, number)])
    single = SINGLE / (time.perf_counter() - began)
    began = time.perf_counter()
    for number in range(BATCHES):
        await keep(
            store, ledger, [evidence(worker, SINGLE + number * BATCH + place) for place in range(BATCH)]
        )
    batched = BATCHES * BATCH / (time.perf_counter() - began)
    return {"appends/s, one a transaction": single, f"appends/s, {BATCH} a transaction": batched}


async def reads(store: SqliteStore, ledger: Ledger) -> dict[str, float]:
    async with store.transaction(write=False) as tx:
        size = await ledger.size(tx)
        began = time.perf_counter()
        for number in range(PROOFS):
            await ledger.inclusion(tx, number * size // PROOFS, size)
        return {"inclusion proofs/s": PROOFS / (time.perf_counter() - began)}


def decisions() -> dict[str, float]:
    """One decision is both rules of the shipped development-lead policy, with their words."""
    policy = parse_policy(shipped_policies()[0].encode(), "policy")
    language = Cel()
    rules = language.compile(policy)
    return {
        "policy decisions/s": rate(lambda: rules.decide(FACTS), DECISIONS),
        "policies compiled/s": rate(lambda: language.compile(policy), DECISIONS // 10),
    }


def rate(work: Callable[[], object], times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        work()
    return times / (time.perf_counter() - began)


def evidence(worker: Ed25519, number: int) -> Envelope:
    result = TestResult("PASSED", f"suite-{number}", (), 100, 0, 0, ())
    subject = Subject("catalog", digest(b"%d" % number))
    return attest(worker, Statement((subject,), result))


async def keep(store: SqliteStore, ledger: Ledger, envelopes: list[Envelope]) -> None:
    async with store.transaction() as tx:
        await ledger.append(tx, envelopes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = {**asyncio.run(measure(Path(folder))), **decisions()}
    for name, value in figures.items():
        print(f"{name:34} {value:10,.0f}")
    if given.json:
        given.json.write_text(json.dumps({"figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
