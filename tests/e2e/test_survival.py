"""kill -9, told as stories under load: same outcome, no request lost, the ledger whole."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.machine import CONFIG, SERVICE, Machine, machine


def counts(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text()))


@pytest.mark.long
def test_the_control_plane_is_killed_in_the_canary(short_tmp: Path) -> None:
    with machine(short_tmp) as m:
        m.up()
        m.commit("v1")
        assert m.deliver()["outcome"] == "promoted"
        m.commit("v2")
        with m.load() as file:
            delivery = m.ship()
            m.await_step(delivery, "canary/look/0")
            m.kill(m.home.run / "server.lock")
            m.up()
            view = m.follow(delivery)
        assert view["outcome"] == "promoted", view["reason"]
        keys = [step["key"] for step in view["steps"]]
        assert len(keys) == len(set(keys)), "a step was recorded twice"
        seen = counts(file)
        assert seen["failed_by_switching"] == 0, seen["errors"]
        assert len(seen["by_release"]) == 2
        verify_ledger(m)


@pytest.mark.long
def test_agent_and_control_plane_are_killed_in_turn(short_tmp: Path) -> None:
    with machine(short_tmp) as m:
        m.up()
        m.commit("v1")
        assert m.deliver()["outcome"] == "promoted"
        with m.load(50) as file:
            m.kill(m.home.node / "agent.lock")
            m.up()
            m.kill(m.home.run / "server.lock")
            m.up()
        seen = counts(file)
        assert seen["requests"] > 0
        assert seen["failed_by_switching"] == 0, seen["errors"]
        (row,) = m.client.get("/v1/status")["services"]
        assert row["live"] in [weight["release"] for weight in row["weights"]]
        assert not row["drift"]


@pytest.mark.long
def test_down_and_up_again_brings_back_what_was_live(short_tmp: Path) -> None:
    with machine(short_tmp) as m:
        m.up()
        m.commit("v1")
        m.deliver()
        m.penstock("down")
        assert m.processes() == []
        m.up()
        with m.load(20) as file:
            wait_until_ready(m)
        assert counts(file)["by_release"], "nobody answers after coming back"


def test_everything_is_killed_at_once_and_comes_back_by_itself(short_tmp: Path) -> None:
    """As after a power failure: nobody was told to stop, and nobody wrote anything down."""
    with machine(short_tmp) as m:
        m.up()
        m.commit("v1")
        live = m.deliver()["release"]
        m.kill_everything()
        assert m.processes() == []
        m.up()
        wait_until_ready(m)
        with m.load(20) as file:
            (row,) = m.client.get("/v1/status")["services"]
        assert row["live"] == live
        assert set(counts(file)["by_release"]) == {live}
        assert not row["drift"]


@pytest.mark.long
def test_what_was_live_comes_back_though_its_node_has_lost_everything(short_tmp: Path) -> None:
    """As on a new disk: from the ledger and the artifacts. Deliveries go on from there."""
    with machine(short_tmp) as m:
        m.up()
        live = {}
        for service in ("shop", "cart"):
            m.repository = m.folder / service
            m.commit("v1", penstock__yaml=CONFIG.replace("service: shop", f"service: {service}"))
            live[service] = m.deliver()["release"]
        addresses = {row["service"]: row["address"] for row in m.client.get("/v1/status")["services"]}
        m.kill_everything()
        shutil.rmtree(m.home.node)
        m.penstock("up")  # with the same ports
        rows = await_rows(m, lambda row: row["live"] in serving(row))
        assert {row["service"]: row["live"] for row in rows} == live
        assert {row["service"]: row["address"] for row in rows} == addresses
        assert not any(row["drift"] for row in rows)
        m.commit("v2", penstock__yaml=CONFIG.replace("service: shop", "service: cart"))
        with m.load(100, addresses["shop"]) as shop, m.load(100, addresses["cart"], "cart.json") as cart:
            view = m.deliver()
        assert view["outcome"] == "promoted", view["reason"]
        assert set(counts(shop)["by_release"]) == {live["shop"]}
        assert {counts(file)["failed_by_switching"] for file in (shop, cart)} == {0}
        verify_ledger(m)


@pytest.mark.long
def test_a_fix_is_delivered_though_the_stable_release_is_broken(short_tmp: Path) -> None:
    with machine(short_tmp) as m:
        m.up()
        m.commit("v1")
        assert m.deliver()["outcome"] == "promoted"
        break_what_is_live(m)
        await_nobody_answers(m)
        m.commit("v2")
        with m.load(50) as file:
            view = m.deliver()
        assert view["outcome"] == "promoted", [(step["key"], step["reason"]) for step in view["steps"]]
        assert len(counts(file)["by_release"]) >= 1
        verify_ledger(m)


@pytest.mark.long
def test_a_new_release_that_keeps_ending_fails_with_its_own_last_words(short_tmp: Path) -> None:
    """It becomes ready each time, and says why it ends: nobody has to wait for a deadline to learn it."""
    words = "print('the disk is on fire', flush=True)"
    die = f"threading.Timer(1.0, lambda: ({words}, os._exit(3))).start()\n"
    with machine(short_tmp) as m:
        m.up()
        m.commit("v1")
        live = m.deliver()["release"]
        m.commit("v2", serve__py=SERVICE.replace("server.serve_forever", f"{die}server.serve_forever"))
        with m.load(50) as file:
            view = m.deliver()
        assert view["outcome"] not in ("promoted", None)
        reasons = " ".join(step["reason"] for step in view["steps"])
        assert "keeps ending" in reasons or "ended by itself" in reasons
        assert "the disk is on fire" in reasons
        # Who is sent to an instance that has just ended has bad luck; nobody is sent to what is not there.
        assert "503 NC" not in counts(file)["errors"]
        (row,) = m.client.get("/v1/status")["services"]
        assert row["live"] == live


def break_what_is_live(m: Machine) -> None:
    """What it runs from is damaged, and it ends: it cannot start any more, however often it is tried."""
    (program,) = (m.home.node / "w" / "images").rglob("serve.py")
    program.write_text("raise SystemExit(3)")
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "serve.py" in " ".join(process.cmdline()) and str(m.home.path) in " ".join(process.cmdline()):
                process.kill()


def await_nobody_answers(m: Machine) -> None:
    for _ in range(600):
        (row,) = m.client.get("/v1/status")["services"]
        if all(release["ready"] == 0 for release in row["releases"]):
            return
        time.sleep(0.1)
    raise AssertionError(row)


def serving(row: dict[str, Any]) -> list[str]:
    """The releases with users, if all of them are ready."""
    ready = {release["release"] for release in row["releases"] if release["ready"] == release["total"] > 0}
    users = [weight["release"] for weight in row["weights"]]
    return users if ready.issuperset(users) else []


def await_rows(m: Machine, met: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for _ in range(300):
        rows = m.client.get("/v1/status")["services"]
        if all(met(row) for row in rows):
            return rows
        time.sleep(0.1)
    raise AssertionError(rows)


def wait_until_ready(m: Machine) -> None:
    for _ in range(100):
        (row,) = m.client.get("/v1/status")["services"]
        if any(release["ready"] == release["total"] > 0 for release in row["releases"]):
            return
        time.sleep(0.1)
    raise AssertionError(row)


def verify_ledger(m: Machine) -> None:
    done = m.penstock("ledger", "verify", "-o", "json")
    report = json.loads(done.stdout)
    assert report["verified"], report["problems"]
    assert report["sign_offs"] >= 5
