"""An independent library reads the ledger as an outsider would: proofs, tiles, notes and cosignatures."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fakes.witness import WitnessServer, verified
from integration.ledger.world import Delivery, World, artifact
from oracle import Oracle, open_oracle
from penstock.adapters.sqlite import SqliteStore
from penstock.core.notes import ED25519, VerifierKey, cosigned_at, cosigners, split
from penstock.core.predicates import Ended
from penstock.core.tiles import tiles
from penstock.ledger import tiles as stored
from penstock.ports import Transaction

SIZE = 600
#: Around what matters to tiles, and a few others.
SOME = (1, 2, 3, 7, 8, 100, 255, 256, 257, 511, 512, 513, 599, 600)


@dataclass
class Served:
    """What a ledger of `SIZE` real entries gives to outsiders, in base64."""

    log: VerifierKey
    checkpoint: str
    leaves: list[str] = field(default_factory=list)
    roots: list[str] = field(default_factory=list)
    inclusions: list[Any] = field(default_factory=list)
    consistencies: list[Any] = field(default_factory=list)
    resources: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return asyncio.run(serve(tmp_path_factory.mktemp("ledger")))


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    return open_oracle(tmp_path_factory.mktemp("oracle"))


async def serve(folder: Path) -> Served:
    world = await World.begin(folder, SqliteStore(folder / "ledger.db"))
    one = Delivery("d-1", artifact("a"))
    async with world.store.transaction(write=False) as tx:
        missing = SIZE - await world.ledger.size(tx)
    await world.report(one, *(Ended("d-1", "success", "promoted", str(number)) for number in range(missing)))
    async with world.store.transaction(write=False) as tx:
        log = VerifierKey("penstock", bytes.fromhex(world.trust.log_key), ED25519)
        found = Served(log, await world.ledger.checkpoint(tx))
        found.leaves = [text(entry.envelope.raw) for entry in await world.ledger.entries(tx, 0, SIZE)]
        for size in range(SIZE + 1):
            found.roots.append(text(await world.ledger.root(tx, size)))
            await prove(world, tx, size, found)
            await read(world, tx, size, found)
    await world.store.close()
    return found


async def prove(world: World, tx: Transaction, size: int, found: Served) -> None:
    """A few proofs in the tree of this size; for some sizes, of many leaves and with many earlier trees."""
    chosen = SOME if size in SOME else (size // 3, size)
    for place in (place for place in chosen if 0 < place <= size):
        path = await world.ledger.inclusion(tx, place - 1, size)
        found.inclusions.append((place - 1, size, [text(step) for step in path]))
        proof = await world.ledger.consistency(tx, place, size)
        found.consistencies.append((place, size, [text(step) for step in proof]))


async def read(world: World, tx: Transaction, size: int, found: Served) -> None:
    for tile in tiles(size):
        if tile.path not in found.resources:
            data = await stored.read(world.ledger, tx, tile)
            assert data is not None
            found.resources[tile.path] = text(data)


def text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def test_every_root_and_proof_is_right(oracle: Oracle, served: Served) -> None:
    assert len(served.leaves) == SIZE
    assert len(served.inclusions) == len(served.consistencies) > 2 * SIZE - len(SOME)
    wrong = oracle.ask(
        "trees",
        leaves=served.leaves,
        roots=served.roots,
        inclusions=served.inclusions,
        consistencies=served.consistencies,
    )
    assert wrong == []


def test_a_false_proof_is_told(oracle: Oracle, served: Served) -> None:
    """An oracle that says yes to everything would say nothing."""
    (index, size, proof), (old, new, steps) = served.inclusions[-1], served.consistencies[-2]
    wrong = oracle.ask(
        "trees",
        leaves=served.leaves,
        roots=[*served.roots[:5], served.roots[6], *served.roots[6:]],
        inclusions=[(index, size, proof[:-1])],
        consistencies=[(old, new, steps[1:])],
    )
    assert wrong[0] == "root 5"
    assert len(wrong) == 5


def test_the_tiles_of_every_size_give_its_root_and_hold_its_entries(oracle: Oracle, served: Served) -> None:
    assert oracle.ask("tiles", resources=served.resources, roots=served.roots, audited=SOME) == []


def test_a_tree_has_the_tiles_that_others_make_of_it(oracle: Oracle) -> None:
    for size in (1, 255, 256, 257, 600, 65_536):
        assert sorted(tile.path for tile in tiles(size)) == oracle.ask("paths", size=size)


def test_checkpoints_and_cosignatures_are_what_others_expect(oracle: Oracle, served: Served) -> None:
    witnesses = [WitnessServer(f"witness.example/w{number}") for number in range(3)]
    note = served.checkpoint + "".join(witness.signed(served.checkpoint) for witness in witnesses[:2])
    keys = [str(witness.key) for witness in witnesses]
    for quorum, enough in ((0, True), (2, True), (3, False)):
        said = oracle.ask("note", text=note, log=str(served.log), witnesses=keys, quorum=quorum)
        assert (said["log"], said["ok"], said["size"]) == (True, enough, SIZE), said
        assert said["keys"] == [str(served.log), *keys]


def test_cosignatures_that_others_make_are_what_we_expect(oracle: Oracle, served: Served) -> None:
    made = oracle.ask(
        "cosign", text=served.checkpoint, name="w.example/ü", seed=text(bytes(range(32))), time=1_700_000_000
    )
    key = VerifierKey.cosigner(made["key"])
    assert str(key) == made["key"]
    body, (_, line) = split(served.checkpoint + made["line"])
    assert cosigned_at(body, line, key, verified) == 1_700_000_000
    assert cosigners(served.checkpoint + made["line"], [key], verified) == ("w.example/ü",)
