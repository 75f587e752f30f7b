"""A canary beside a fresh baseline, on a real machine under load: killed in the middle, nobody notices, and
nothing of it stays."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from penstock.node.client import NodeClient, NodePlatform
from tests.e2e.machine import CONFIG, Machine, machine

AFRESH = CONFIG.replace("canary: {", "canary: {baseline: fresh, ")


@pytest.mark.long
def test_a_canary_beside_a_fresh_baseline_is_killed_and_leaves_nothing(short_tmp: Path) -> None:
    with machine(short_tmp) as m:
        m.up()
        m.commit("v1")
        stable = m.deliver()["release"]
        m.commit("v2", penstock__yaml=AFRESH)
        with m.load(100) as file:
            delivery = m.ship()
            m.await_step(delivery, "canary/shift/0")
            new = m.client.get(f"/v1/deliveries/{delivery}")["release"]
            seen = weights(m)  # at whichever step it is by now
            assert seen[new] == seen[f"{stable}-fresh"] == (100 - seen.get(stable, 0.0)) / 2
            for lock in (m.home.run / "server.lock", m.home.node / "agent.lock"):
                m.kill(lock)
            m.up()
            view = m.follow(delivery)
            assert view["outcome"] == "promoted", view
            assert (weights(m), left(m, f"{stable}-fresh")) == ({new: 100.0}, [])
            said = {step["key"]: step for step in view["steps"]}
            assert said["canary/baseline/0"]["name"] == "canary: fresh baseline"
            looks = [step["reason"] for key, step in said.items() if key.startswith("canary/look")]
            assert "no worse than the fresh baseline" in looks[-1]
        counts = json.loads(file.read_text())
        assert counts["requests"] > 0
        assert (counts["failed_by_switching"], counts["errors"]) == (0, {}), counts
        assert m.penstock("ledger", "verify").returncode == 0


def weights(m: Machine) -> dict[str, float]:
    (row,) = m.client.get("/v1/status")["services"]
    return {weight["release"]: weight["per_cent"] for weight in row["weights"]}


def left(m: Machine, release: str) -> list[str]:
    """Where a release is still known: at the proxy, or at the node."""
    (row,) = m.client.get("/v1/status")["services"]
    at_proxy = [release for known in row["releases"] if known["release"] == release]
    node = NodePlatform(NodeClient(m.home.node / "agent.sock"))
    return at_proxy + [release] * (asyncio.run(node.observe(release)) is not None)
