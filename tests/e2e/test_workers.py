"""Workers as processes: they join with keys of their own, are killed, come back, and leave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.machine import Machine, machine


def workers(m: Machine) -> dict[str, int]:
    """The workers' processes by their locks."""
    return {path.stem: int(path.read_text()) for path in m.home.run.glob("worker-*.lock")}


@pytest.mark.long
def test_workers_join_are_killed_and_come_back(short_tmp: Path) -> None:
    with machine(short_tmp) as m:
        m.up("--workers", "3")
        first = workers(m)
        assert set(first) == {"worker-2", "worker-3"}
        assert "workers; from 1 to 32" in m.penstock("up", "--workers", "0", check=False).stderr
        taken = m.penstock("worker", "--name", "2", check=False)
        assert (taken.returncode, "at work here already" in taken.stderr) == (1, True)
        assert m.penstock("worker", "--name", "../x", check=False).returncode == 2

        m.kill(m.home.worker_lock("2"))
        m.penstock("up")  # what is missing, as many as before
        second = workers(m)
        assert second["worker-3"] == first["worker-3"]
        assert second["worker-2"] != first["worker-2"]

        m.commit("v1")
        assert m.deliver()["outcome"] == "promoted"
        listed = json.loads(m.penstock("identity", "list", "-o", "json").stdout)["identities"]
        keys = {known["identity"]: len(known["keys"]) for known in listed}
        assert keys == {"operator": 1, "worker": 1, "worker-2": 1, "worker-3": 1}
        assert json.loads(m.penstock("ledger", "verify", "-o", "json").stdout)["verified"]
    assert m.processes() == []


def test_a_worker_needs_a_control_plane_to_have_been_started(short_tmp: Path) -> None:
    with machine(short_tmp) as m:
        done = m.penstock("worker", "--name", "2", check=False)
        assert done.returncode == 1
        assert "penstock up" in done.stderr
        assert not m.home.trust.exists()
