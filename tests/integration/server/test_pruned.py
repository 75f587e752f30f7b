"""Pruning a data folder at work: what goes, what stays, and what is still told of a pruned delivery."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from playhouse import Playhouse, Told, opened

from penstock.bootstrap.control import open_store
from penstock.bootstrap.prune import Pruned, prune
from penstock.cli.main import main
from penstock.core.codec import decode
from penstock.engine import prune as journal
from penstock.engine.tables import SCHEMA
from penstock.errors import Conflict, Invalid
from penstock.ledger.bundle import check
from penstock.ledger.fsck import Trust
from penstock.ledger.live import pinned


class Scene:
    """Four deliveries that ended and one that hangs; pruned while the server runs."""

    def __init__(self, house: Playhouse, told: Told, running: str, done: Pruned) -> None:
        self.house, self.told, self.running, self.done = house, told, running, done

    def get(self, path: str) -> Any:
        with self.house.client() as client:
            return client.get(path).json()


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with opened() as house, house.client() as client:
        told = house.tell()
        house.commit("hangs")
        (running,) = client.post("/v1/ship", json={"location": str(house.repository)}).json()["deliveries"]
        await_step(client, running, "build/build/0")
        (house.home.work / told.good["id"]).mkdir(parents=True, exist_ok=True)
        would = asyncio.run(prune(house.home, 0.0, dry=True))
        assert client.get(f"/v1/deliveries/{told.good['id']}").json()["steps"]
        done = asyncio.run(prune(house.home, 0.0))
        assert done.deliveries == would.deliveries
        yield Scene(house, told, running, done)
        client.post(f"/v1/deliveries/{running}/abort")
        house.ended(client, running)


def await_step(client: httpx.Client, delivery: str, key: str) -> None:
    for _ in range(600):
        view = client.get(f"/v1/deliveries/{delivery}").json()
        if key in [step["key"] for step in view["steps"]]:
            return
        asyncio.run(asyncio.sleep(0.05))
    raise AssertionError(view)


def test_ended_deliveries_are_pruned_and_open_ones_are_not(scene: Scene) -> None:
    told = scene.told
    every = [told.first["id"], told.good["id"], told.refused["id"], told.rolled_back["id"]]
    assert list(scene.done.deliveries) == every
    assert scene.done.rows > 20
    logs, work = scene.house.home.logs / "deliveries", scene.house.home.work
    assert not [name for name in every if (logs / name).exists() or (work / name).exists()]
    view = scene.get(f"/v1/deliveries/{scene.running}")
    assert view["pruned"] is None
    assert view["steps"]
    assert (logs / scene.running).exists()


def test_a_pruned_delivery_is_told_from_the_ledger(scene: Scene) -> None:
    told = scene.told
    for before in (told.good, told.refused, told.rolled_back):
        view = scene.get(f"/v1/deliveries/{before['id']}")
        assert view["pruned"]
        assert view["steps"] == []
        for name in ("state", "outcome", "reason", "refused_by", "change", "sign_offs", "seconds"):
            assert view[name] == before[name], name
        if before is not told.refused:
            assert view["release"] == before["release"]
    listed = {d["id"]: d for d in scene.get("/v1/deliveries")["deliveries"]}
    assert listed[told.refused["id"]]["refused_by"] == ["development-lead"]


def test_its_page_says_so_and_its_logs_are_empty(scene: Scene) -> None:
    name = scene.told.good["id"]
    with scene.house.client() as client:
        page = client.get(f"/deliveries/{name}", headers={"accept": "text/html"}).text
        assert "its steps and logs were removed" in page
        assert client.get("/", headers={"accept": "text/html"}).status_code == 200
        assert client.get(f"/v1/deliveries/{name}/logs").text == ""


def test_the_ledger_and_a_bundle_verify_as_before(scene: Scene) -> None:
    assert scene.house.control
    with scene.house.client() as client:
        assert client.post("/v1/ledger/verify").json()["verified"]
        bundle = client.get(f"/v1/deliveries/{scene.told.good['id']}/bundle").content
    trust = decode(Trust, json.loads(scene.house.home.trust.read_text()))
    assert all(step.ok for step in check(bundle, trust, scene.house.control.languages))


def test_again_there_is_nothing_to_prune(scene: Scene) -> None:
    done = asyncio.run(prune(scene.house.home, 0.0))
    assert (done.deliveries, done.rows) == ((), 0)


async def test_what_may_be_asked_for_again_is_pinned(scene: Scene) -> None:
    assert scene.house.control
    store = open_store(scene.house.home)
    async with store.transaction(write=False) as tx:
        kept = await pinned(scene.house.control.ledger, tx, 2)
        in_delivery = await journal.in_delivery(tx)
    await store.close()
    live = scene.get("/v1/services/shop/why")["release"]["artifact"]
    assert live in kept
    assert len(kept) == 2  # what is live, and what it replaced
    assert live in in_delivery, "the baseline of what is being delivered"


async def test_a_delivery_that_has_not_ended_is_never_forgotten(scene: Scene) -> None:
    store = open_store(scene.house.home)
    with pytest.raises(Invalid, match="has not ended"):
        async with store.transaction() as tx:
            await journal.forget(tx, [scene.running])
    await store.close()
    assert scene.get(f"/v1/deliveries/{scene.running}")["steps"]


async def test_stale_scratch_folders_are_swept_and_no_others(scene: Scene) -> None:
    work, ended = scene.house.home.work, scene.told.good["id"]
    for name in (ended, scene.running, "somebody-elses"):
        (work / name / "tree").mkdir(parents=True, exist_ok=True)
    store = open_store(scene.house.home)
    assert await journal.sweep(store, work) == (ended,)
    await store.close()
    assert [(work / name).exists() for name in (ended, scene.running, "somebody-elses")] == [
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(("step", "words"), [(-1, "older release"), (1, "newer release")])
async def test_a_store_of_another_release_is_left_alone(scene: Scene, step: int, words: str) -> None:
    store = open_store(scene.house.home)
    change = "UPDATE schema_version SET version = ? WHERE component = 'journal'"
    try:
        async with store.transaction() as tx:
            await tx.execute(change, (len(SCHEMA) + step,))
        with pytest.raises(Conflict, match=words):
            await prune(scene.house.home, 0.0)
    finally:
        async with store.transaction() as tx:
            await tx.execute(change, (len(SCHEMA),))
        await store.close()


def test_what_is_live_and_what_it_replaced_always_stay(scene: Scene) -> None:
    with pytest.raises(Invalid, match="always stay"):
        asyncio.run(prune(scene.house.home, 0.0, pairs=1))


def test_the_commands_say_what_matters(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str) -> tuple[int, str]:
        code = main(list(words))
        said = capsys.readouterr()
        return code, said.out + said.err

    monkeypatch.setenv("PENSTOCK_HOME", str(scene.house.home.path))
    whole, bare = str(tmp_path / "whole.tar"), str(tmp_path / "bare.tar")
    code, said = run("backup", whole)
    assert (code, "it holds private keys" in said) == (0, True)
    code, said = run("backup", bare, "--without-keys")
    assert (code, "put back what is in keys/" in said) == (0, True)
    code, said = run("backup", whole)
    assert (code, "there is a file already" in said) == (1, True)
    code, said = run("restore", whole)
    assert (code, "already; it was left as it is" in said) == (1, True)
    code, said = run("prune", "--older-than", "1d", "--dry-run")
    assert (code, "would be removed: the journal of 0 deliveries" in said) == (0, True)
    assert run("prune", "--older-than", "soon")[0] == 2
    with opened_home() as elsewhere:
        monkeypatch.setenv("PENSTOCK_HOME", str(elsewhere))
        code, said = run("restore", bare)
        assert code == 0
        for words in (
            "put them back into keys/",
            "1 delivery had not ended",
            "a witness cosigned",
            "/data",
        ):
            assert words in said, words


@contextmanager
def opened_home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ps-", dir="/tmp") as folder:
        yield Path(folder) / "h"
