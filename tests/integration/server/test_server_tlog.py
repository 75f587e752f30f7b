"""The ledger as outsiders read it, over a real server: tiles, entries, proofs, checkpoints with witnesses."""

from __future__ import annotations

import asyncio
import base64
import json

import httpx
import pytest
from playhouse import Playhouse, Told

from fakes.witness import WitnessServer
from penstock.core import merkle
from penstock.core.notes import VerifierKey, claimed_size, cosigners, open_note
from penstock.core.tiles import Tile, decode_bundle, tiles
from penstock.ledger.signatures import signed_by

IMMUTABLE = "private, max-age=31536000, immutable"


@pytest.fixture
def note(client: httpx.Client) -> str:
    answer = client.get("/ledger/checkpoint")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    return answer.text


@pytest.fixture
def size(note: str) -> int:
    return claimed_size(note)


def log_key(house: Playhouse) -> bytes:
    return bytes.fromhex(json.loads(house.home.trust.read_text())["log_key"])


def raw(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def test_a_stranger_with_the_logs_key_reads_every_entry(
    client: httpx.Client, house: Playhouse, note: str, size: int
) -> None:
    """Tiles and bundles alone give the root that the checkpoint's signature is over."""
    head = open_note(note, "penstock", log_key(house), signed_by)
    entries: list[bytes] = []
    hashes: list[bytes] = []
    for tile in tiles(size):
        answer = client.get(f"/ledger/{tile.path}")
        assert answer.headers["content-type"] == "application/octet-stream"
        if tile.level is None:
            entries += decode_bundle(answer.content)
        elif tile.level == 0:
            hashes += [answer.content[at : at + 32] for at in range(0, len(answer.content), 32)]
    assert [merkle.leaf_hash(entry) for entry in entries] == hashes
    nodes: dict[tuple[int, int], bytes] = {}
    for index, leaf in enumerate(hashes):
        for level, place, value in merkle.completed_by(index, leaf, lambda *at: nodes[at]):
            nodes[level, place] = value
    assert merkle.root(size, lambda *at: nodes[at]) == head.root


def test_an_entry_is_its_exact_bytes(client: httpx.Client, size: int) -> None:
    answer = client.get(f"/ledger/entry/{size - 1}")
    assert answer.headers["content-type"] == "application/vnd.dsse.envelope.v1+json"
    tile = client.get(f"/ledger/{Tile(0, (size - 1) // 256, (size - 1) % 256 + 1).path}").content
    assert merkle.leaf_hash(answer.content) == tile[-32:]


def test_proofs_lead_to_the_checkpoint(client: httpx.Client, house: Playhouse, note: str, size: int) -> None:
    root = open_note(note, "penstock", log_key(house), signed_by).root
    leaf = merkle.leaf_hash(client.get("/ledger/entry/3").content)
    given = client.get("/ledger/proof/inclusion", params={"index": 3, "size": size}).json()
    assert raw(given["root"]) == root
    assert merkle.root_from_inclusion(3, size, leaf, [raw(step) for step in given["proof"]]) == root
    given = client.get("/ledger/proof/consistency", params={"old": 5, "new": size}).json()
    old, new = map(raw, given["roots"])
    assert new == root
    assert merkle.is_consistent(5, size, old, new, [raw(step) for step in given["proof"]])


def test_only_what_never_changes_may_be_kept_by_its_reader(client: httpx.Client, size: int) -> None:
    kept = ["/ledger/tile/0/000.p/5", "/ledger/tile/entries/000.p/5", "/ledger/entry/0"]
    fresh = [
        "/ledger/checkpoint",
        "/v1/ledger/checkpoint",
        "/ledger/tile/0/999",
        "/ledger/tile/x",
        f"/ledger/entry/{size + 1000}",
        f"/ledger/proof/inclusion?index=0&size={size}",
        "/ledger/nothing",
    ]
    assert {path: client.get(path).headers.get_list("cache-control") for path in kept} == {
        path: [IMMUTABLE] for path in kept
    }
    assert {path: client.get(path).headers.get_list("cache-control") for path in fresh} == {
        path: ["no-store"] for path in fresh
    }


def test_bundles_are_compressed_for_those_who_can_read_that(client: httpx.Client) -> None:
    path = "/ledger/tile/entries/000.p/5"
    plain = client.get(path, headers={"accept-encoding": "identity"})
    packed = client.get(path, headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"])
    assert packed.content == plain.content


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/ledger/tile/0/x001/000", 404),
        ("/ledger/tile/0/999", 404),
        ("/ledger/tile/entries/x999/x999/999.p/255", 404),
        ("/ledger/tile/63/000", 404),
        ("/ledger/tile/64/000", 422),
        ("/ledger/tile/0/0", 422),
        ("/ledger/tile/0/000.p/0", 422),
        ("/ledger/tile/0/%2e%2e/%2e%2e/checkpoint", 422),
        ("/ledger/tile/", 422),
        ("/ledger/entry/99999999", 404),
        (f"/ledger/entry/{2**70}", 422),
        ("/ledger/entry/-1", 422),
        ("/ledger/entry/x", 422),
        ("/ledger/proof/inclusion", 422),
        ("/ledger/proof/inclusion?index=1&size=1", 422),
        ("/ledger/proof/inclusion?index=0&size=99999999", 422),
        (f"/ledger/proof/inclusion?index=0&size={2**70}", 422),
        ("/ledger/proof/consistency?old=2&new=1", 422),
        ("/ledger/proof/consistency?old=2&new=99999999", 422),
        ("/ledger/checkpoint?cosigned=1000", 422),
        ("/ledger/checkpoint?cosigned=-1", 422),
    ],
)
def test_what_is_not_there_is_a_problem_document(client: httpx.Client, path: str, status: int) -> None:
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["word"] == "invalid"


async def test_new_checkpoints_are_cosigned_and_served_with_the_witness_line(
    house: Playhouse, told: Told
) -> None:
    server = WitnessServer("witness.example/w1")
    server.logs["penstock"] = log_key(house)
    await server.start()
    headers = {"authorization": f"Bearer {house.token}"}
    async with httpx.AsyncClient(base_url=house.url, headers=headers, trust_env=False, timeout=30) as client:
        added = await client.post("/v1/ledger/witnesses", json={"url": server.url, "key": str(server.key)})
        assert added.json() == {"name": server.key.name}
        async with asyncio.timeout(60):
            while (
                answer := await client.get("/ledger/checkpoint", params={"cosigned": 1})
            ).status_code != 200:
                await asyncio.sleep(0.05)
        assert cosigners(answer.text, [server.key], signed_by) == (server.key.name,)
        (row,) = (await client.get("/v1/ledger/witnesses")).json()["witnesses"]
        assert (row["signed"], row["problem"]) == (claimed_size(answer.text), "")
        assert VerifierKey.cosigner(row["key"]) == server.key
        report = (await client.post("/v1/ledger/verify", json={"kept": answer.text})).json()
        assert report["problems"] == []
        gone = await client.post("/v1/ledger/witnesses/remove", json={"name": server.key.name})
        assert gone.status_code == 200
        assert (await client.get("/v1/ledger/witnesses")).json() == {"witnesses": []}
    await server.stop()
