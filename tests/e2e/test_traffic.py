"""What a service asks for under ``traffic``, on a real machine under load."""

from __future__ import annotations

import json
import time
from pathlib import Path

import httpx
import pytest

from tests.e2e.machine import CONFIG, machine

TRAFFIC = (
    'traffic: {sticky: true, mirror: 100, early: [{header: x-beta, value: "yes"}], timeout_seconds: 5}\n'
)
COUNTED = """
    def do_GET(self):
        if self.headers.get("penstock-mirror"):
            print("a copy of", self.path, flush=True)
"""


@pytest.mark.long
def test_a_canary_with_places_copies_and_early_users(short_tmp: Path) -> None:
    with machine(short_tmp) as m:
        m.up()
        m.commit("v1")
        assert m.deliver()["outcome"] == "promoted"
        serve = (m.repository / "serve.py").read_text().replace("\n    def do_GET(self):\n", COUNTED)
        m.commit(
            "v2", serve__py=serve.replace('VERSION = "v1"', 'VERSION = "v2"'), penstock__yaml=CONFIG + TRAFFIC
        )
        with m.load() as file, httpx.Client(base_url=m.address()) as user:
            delivery = m.ship()
            m.await_step(delivery, "canary/shift/0")
            early = {version(user, {"x-beta": "yes"}) for _ in range(5)}
            deadline = time.monotonic() + 30
            while version(user) != "v2":  # with all his cookies: he moves with a step, and stays there
                assert time.monotonic() < deadline
                time.sleep(0.05)
            stays = {version(user) for _ in range(50)}
            ended = m.follow(delivery)
        assert (ended["outcome"], early, stays) == ("promoted", {"v2"}, {"v2"})
        deployed = next(step for step in ended["steps"] if step["key"] == "deploy/deploy/0")
        assert "a mirror of 100% of user requests" in deployed["reason"]
        logs = list((short_tmp).rglob("*.log*"))
        assert any("a copy of /" in log.read_text(errors="replace") for log in logs if log.is_file())
        counts = json.loads(file.read_text())
        assert (counts["failed_by_switching"], counts["errors"]) == (0, {})
        assert m.penstock("ledger", "verify").returncode == 0


def version(user: httpx.Client, headers: dict[str, str] | None = None) -> str:
    return str(user.get("/", headers=headers).json()["version"])
