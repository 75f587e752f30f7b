"""How fast Penstock answers a cluster that asks what it may let in, with many releases in the ledger.

    benchmarks/admission.py [--releases N] [--json FILE]

Real: SQLite in a fresh folder, signed entries, the whole answer from the bytes of an AdmissionReview to those
of its answer, without HTTP and TLS. The floor is the same review only read, its images named and written.
Every release is of one service and was promoted, so its history is as long as can be; each question is about
another image. *first* is the first answer of a process, which folds that history.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from integration.ledger.world import DATA, Delivery, World, artifact, built, scanned, suite_ran
from penstock.adapters.sqlite import SqliteStore
from penstock.core.evidence import Statement, Subject
from penstock.core.predicates import Deployed, Ended, Promoted
from penstock.ledger.log import attest
from penstock.server.admission import Gatekeeper
from penstock.server.podimages import images, open_review

ASKED, ROUNDS = 200, 3


async def deliver(world: World, delivery: Delivery) -> None:
    """Signed off, placed and promoted; in few transactions, because those are not measured here."""
    await world.propose(delivery)
    await world.report(delivery, built(), suite_ran(), scanned())
    await world.gate(delivery, "deploy")
    release = delivery.release
    subject = (Subject(release.id, release.digest),)
    done = (
        Deployed(delivery.id, release, DATA, "none", 1),
        Promoted(delivery.id, release, DATA, delivery.baseline),
    )
    await world.keep(*(attest(world.worker, Statement(subject, one)) for one in done))
    await world.report(delivery, Ended(delivery.id, "success", "promoted", ""))


def review(delivery: Delivery) -> bytes:
    """A Deployment of one container, as an API server sends it."""
    image = f"registry.test/shop/catalog@{delivery.artifact.digest}"
    template = {
        "spec": {"containers": [{"name": "app", "image": image, "env": [{"name": "A", "value": "b"}] * 20}]}
    }
    kind = {"group": "apps", "version": "v1", "kind": "Deployment"}
    request = {"uid": "1", "kind": kind, "operation": "CREATE", "object": {"spec": {"template": template}}}
    whole = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    return json.dumps(whole).encode()


async def timed(bodies: list[bytes], answer: Callable[[bytes], Awaitable[object]]) -> list[float]:
    """Milliseconds of each, one after another."""
    taken = []
    for body in bodies:
        began = time.perf_counter()
        await answer(body)
        taken.append((time.perf_counter() - began) * 1000)
    return taken


async def measured(folder: Path, releases: int) -> dict[str, float]:
    world = await World.begin(folder, SqliteStore(folder / "ledger.db"))
    deliveries: list[Delivery] = []
    for number in range(releases):
        before = deliveries[-1].release if deliveries else None
        deliveries.append(Delivery(f"d-{number}", artifact(f"a-{number}"), before))
        await deliver(world, deliveries[-1])
    unknown = Delivery("d-unknown", artifact("unknown"))
    gatekeeper = Gatekeeper(world.store, world.ledger)

    async def answer(body: bytes) -> None:
        json.dumps(await gatekeeper.answer(body, "production"))

    async def floor(body: bytes) -> None:
        json.dumps([one.image for one in images(open_review(body))])

    (first,) = await timed([review(deliveries[-1])], answer)
    step = max(1, releases // ASKED)
    known = [review(delivery) for delivery in deliveries[::step]][:ASKED]
    warm = [one for _ in range(ROUNDS) for one in await timed(known, answer)]
    bare = [one for _ in range(ROUNDS) for one in await timed(known, floor)]
    no = await timed([review(unknown)] * ASKED, answer)
    await world.store.close()
    return {
        "releases": releases,
        "first answer, ms": first,
        "answers/s": 1000 / statistics.mean(warm),
        "p50, ms": statistics.median(warm),
        "p99, ms": statistics.quantiles(warm, n=100)[98],
        "refusals of what is not known/s": 1000 / statistics.mean(no),
        "floor: the review alone, ms": statistics.median(bare),
        "p50 over the floor": statistics.median(warm) / statistics.median(bare),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--releases", type=int, default=1000)
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        figures = asyncio.run(measured(Path(folder), given.releases))
    for name, value in figures.items():
        print(f"{name:<36}{value:>12,.2f}")
    if given.json:
        given.json.write_text(json.dumps({"figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
