"""Copies that follow load and share, on a real machine under load: nobody notices, whatever goes or dies."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.core.workload import Placement
from penstock.node.client import NodeClient, NodePlatform
from tests.e2e.machine import CONFIG, SERVICE, Machine, machine

SECONDS = 60.0
#: Each answer takes a tenth of a second, and one copy is to have four at once.
SLOW = SERVICE.replace("def do_GET(self):\n", "def do_GET(self):\n        time.sleep(0.1)\n").replace(
    "import json,", "import time, json,"
)
SCALING = "scaling: {most: 4, in_flight: 4, idle_seconds: 4}\ndrain_seconds: 5\n"
PATIENT = CONFIG.replace("seconds_per_step: 3", "seconds_per_step: 200")


@pytest.mark.long
def test_a_burst_brings_copies_and_its_end_takes_them_away(short_tmp: Path) -> None:
    with machine(short_tmp) as m:
        m.up()
        m.commit("v1", serve__py=SLOW, penstock__yaml=CONFIG + SCALING)
        release = m.deliver()["release"]
        address = m.address()
        m.kill(m.home.run / "server.lock")  # the agent does it by itself, and the next one goes on
        with m.load(10, address, "always.json") as always:
            with m.load(100, address, "burst.json") as burst:
                until(m, release, lambda found: found.able >= 2)
                m.kill(m.home.node / "agent.lock")
                m.up()
                until(m, release, lambda found: found.able >= 3)
            one = until(m, release, lambda found: len(found.instances) == 1)
        assert one.asked == 1
        for file in (always, burst):
            nothing_failed(file)


@pytest.mark.long
def test_stable_that_load_has_shrunk_is_full_again_before_an_abort_gives_it_everybody(
    short_tmp: Path,
) -> None:
    with machine(short_tmp) as m:
        m.up()
        m.commit("v1", serve__py=SLOW, penstock__yaml=CONFIG + SCALING)
        stable = m.deliver()["release"]
        config = PATIENT.replace("steps: [20, 50]", "steps: [90]") + SCALING
        m.commit("v2", serve__py=SLOW.replace('"v1"', '"v2"'), penstock__yaml=config)
        with m.load(80) as file:
            grown = len(until(m, stable, lambda found: found.able >= 3).instances)
            delivery = m.ship()
            m.await_step(delivery, "canary/shift/0")
            new = m.client.get(f"/v1/deliveries/{delivery}")["release"]
            until(m, stable, lambda found: len(found.instances) == 1)
            both = len(placement(m, new).instances) + 1
            m.client.post(f"/v1/deliveries/{delivery}/abort", {})
            view = m.follow(delivery)
            assert len(placement(m, stable).instances) >= min(grown, both)
        assert view["outcome"] == "aborted", view
        nothing_failed(file)


@pytest.mark.long
def test_copies_follow_the_share_and_what_is_replaced_rests(short_tmp: Path) -> None:
    """Agent and control plane die while the replaced release waits to be let go."""
    with machine(short_tmp) as m:
        m.up()
        three = CONFIG + "replicas: 3\nwarm: {bake_seconds: 8, replicas: 1}\n"
        m.commit("v1", penstock__yaml=three)
        stable = m.deliver()["release"]
        assert len(placement(m, stable).instances) == 3
        m.commit("v2", penstock__yaml=three)
        with m.load(80) as file:
            view = m.deliver()
            new = view["release"]
            said = {step["key"]: step["reason"] for step in view["steps"]}
            assert "1 copy ready" in said["canary/shift/0"]
            assert "2 copies ready" in said["canary/shift/1"]
            assert f"3 copies ready; {stable} keeps 3 copies, 1 after 8 s" in said["promote/promote/0"]
            assert len(placement(m, stable).instances) == 3, "not before its time"
            m.kill(m.home.node / "agent.lock")
            m.kill(m.home.run / "server.lock")
            m.up()
            until(m, stable, lambda found: len(found.instances) == 1)
            m.penstock("rollback", "shop")
            assert placement(m, stable).able == 3
            assert placement(m, new).later
        nothing_failed(file)
        assert m.penstock("ledger", "verify").returncode == 0


def placement(m: Machine, release: str) -> Placement:
    node = NodePlatform(NodeClient(m.home.node / "agent.sock"))
    found = asyncio.run(node.observe(release))
    assert found is not None
    return found


def until(m: Machine, release: str, wanted: Callable[[Placement], bool]) -> Placement:
    deadline = time.monotonic() + SECONDS
    while not wanted(found := placement(m, release)):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found


def nothing_failed(file: Path) -> None:
    counts: dict[str, Any] = json.loads(file.read_text())
    assert counts["requests"] > 0
    assert (counts["failed_by_switching"], counts["errors"]) == (0, {}), counts
    assert all(released["errors"] == 0 for released in counts["by_release"].values()), counts
