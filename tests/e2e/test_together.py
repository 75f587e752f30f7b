"""Two services as one change set, on a real machine under load: in the order of their calls, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.machine import CONFIG, Machine, machine

CANARY = "canary: {steps: [50], seconds_per_step: 2, look_every: 1, patience: 30}"
QUICK = "\n".join(line for line in CONFIG.splitlines() if not line.startswith("canary:"))


def commit(m: Machine, service: str, version: str, calls: str = "") -> Path:
    m.repository = m.folder / service
    config = f"{QUICK.replace('service: shop', f'service: {service}')}\n{CANARY}\ncalls: [{calls}]\n"
    m.commit(version, penstock__yaml=config)
    return m.repository


def commits(m: Machine, version: str) -> list[str]:
    """The caller is named first: the order of delivery must come from who calls whom."""
    return [str(commit(m, "storefront", version, "catalog")), str(commit(m, "catalog", version))]


def together(m: Machine, *command: str) -> dict[str, dict[str, Any]]:
    """What a command over several services says, by service."""
    told = json.loads(m.penstock(*command, "--together", "-o", "json", check=False).stdout)
    return {view["service"]: view for view in told["deliveries"]}


def step(view: dict[str, Any], key: str) -> dict[str, Any]:
    return next(step for step in view["steps"] if step["key"] == key)


def live(m: Machine) -> dict[str, str]:
    """The version that users of each service meet; all of them meet the same."""
    rows = m.client.get("/v1/status")["services"]
    assert all(len(row["weights"]) == 1 and not row["drift"] for row in rows), rows
    return {row["service"]: row["live"] for row in rows}


@contextmanager
def loads(m: Machine) -> Iterator[list[Path]]:
    rows = {row["service"]: row["address"] for row in m.client.get("/v1/status")["services"]}
    with (
        m.load(60, rows["catalog"], "catalog.json") as one,
        m.load(60, rows["storefront"], "storefront.json") as other,
    ):
        yield [one, other]


@pytest.mark.long
def test_a_change_set_goes_and_comes_back_together(short_tmp: Path) -> None:
    with machine(short_tmp) as m:
        m.up()
        first = together(m, "ship", *commits(m, "v1"))
        assert {view["outcome"] for view in first.values()} == {"promoted"}
        promoted = {name: step(view, "promote/promote/0") for name, view in first.items()}
        assert promoted["catalog"]["entries"] < promoted["storefront"]["entries"]
        before = live(m)
        with loads(m) as files:
            started = m.client.post(
                "/v1/changesets", {"changes": [{"location": place} for place in commits(m, "v2")]}
            )
            catalog, storefront = started["deliveries"]
            m.await_step(storefront, "canary/shift/0")
            assert live_now(m, "catalog") != before["catalog"], (
                "it is to be promoted before its caller has users"
            )
            m.penstock("abort", storefront)
            ended = {name: m.follow(name) for name in (catalog, storefront)}
            assert {view["outcome"] for view in ended.values()} == {"rolled-back"}
            assert live(m) == before
            second = together(m, "ship", *commits(m, "v3"))
            assert {view["outcome"] for view in second.values()} == {"promoted"}, second
            assert set(live(m).values()).isdisjoint(before.values())
            back = together(m, "rollback", "catalog", "--reason", "both")
            assert {view["outcome"] for view in back.values()} == {"restored"}, back
            assert live(m) == before
        for file in files:
            counts = json.loads(file.read_text())
            assert counts["failed_by_switching"] == 0, counts["errors"]
        assert m.penstock("ledger", "verify").returncode == 0


def live_now(m: Machine, service: str) -> str:
    return next(row["live"] for row in m.client.get("/v1/status")["services"] if row["service"] == service)
