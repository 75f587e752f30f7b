"""A disk that fills up under the node: users keep what they have, and a delivery goes on once there is room.

The node's workloads lie on a small disk in memory, mounted in a namespace of the test's own; a whole
Penstock runs there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fault.test_matrix import needs_sandbox

SCRIPT = """
import contextlib, json, sqlite3, sys, threading, time
from pathlib import Path
from tests.e2e.machine import machine
from tests.fault.checks import world_wrong
from tests.fault.rig import CONFIG, POLICY, REPORT

disk, folder = Path("/mnt/disk"), Path(sys.argv[1])

def deliver(m, version):
    m.commit(version, penstock__yaml=CONFIG, report__xml=REPORT)
    return m.deliver()

def attempts(m):
    with contextlib.closing(sqlite3.connect(m.home.store)) as store:
        return [error for (error,) in store.execute("SELECT error FROM attempts")]

def make_room(m, ballast, told):
    # Somebody who does what they are told, once they are told.
    deadline = time.monotonic() + 60
    while not (found := attempts(m)) and time.monotonic() < deadline:
        time.sleep(0.1)
    told += found
    told.append(m.client.get("/v1/status")["services"][0]["live"])
    ballast.unlink()

def wrong(m, view):
    deadline = time.monotonic() + 20
    while (found := world_wrong(m, view)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found

with machine(folder) as m:
    m.home.create()
    (disk / "w").mkdir(mode=0o700)
    (m.home.node / "w").symlink_to(disk / "w")
    m.up()
    (folder / "policy.yaml").write_text(POLICY)
    m.penstock("policy", "publish", str(folder / "policy.yaml"))
    deliver(m, "v1")
    usual = deliver(m, "v2")
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"0" * 4096)
    told = []
    somebody = threading.Thread(target=make_room, args=(m, ballast, told))
    somebody.start()
    full = deliver(m, "v3")
    somebody.join()
    print(json.dumps({
        "outcomes": [view["outcome"] for view in (usual, full)],
        "told": told[0],
        "kept": told[-1] == usual["release"],
        "wrong": wrong(m, full),
        "verified": m.client.post("/v1/ledger/verify")["verified"],
    }))
"""


@pytest.mark.timeout(300)
@pytest.mark.long
def test_a_full_node_is_waited_for(short_tmp: Path, on_a_small_disk: Callable[..., str]) -> None:
    needs_sandbox()
    found = json.loads(on_a_small_disk(SCRIPT, short_tmp))
    assert found["outcomes"] == ["promoted", "promoted"]
    assert "No space left on device" in found["told"]
    assert "free some space on the node's disk" in found["told"]
    assert found["kept"]
    assert found["wrong"] == []
    assert found["verified"]
