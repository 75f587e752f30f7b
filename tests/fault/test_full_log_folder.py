"""A disk that fills up under the folder of logs: what was to be said is lost, and nothing else.

The folder lies on a small disk in memory, mounted in a namespace of the test's own; a whole
Penstock runs there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fault.test_matrix import needs_sandbox

SCRIPT = """
import contextlib, json, sys, time
from pathlib import Path
from tests.e2e.machine import machine
from tests.fault.checks import Shape, record_wrong, world_wrong
from tests.fault.rig import CONFIG, POLICY, REPORT

disk, folder = Path("/mnt/disk"), Path(sys.argv[1])
config = CONFIG.replace("cp report.xml junit.xml", "sh say.sh")

def deliver(m, version):
    m.commit(version, penstock__yaml=config, report__xml=REPORT, say__sh="seq 20000; cp report.xml junit.xml")
    view = m.deliver()
    if version == "v1":
        return view, []
    deadline = time.monotonic() + 20
    while (wrong := world_wrong(m, view)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return view, wrong

def size_of(m, view):
    return sum(path.stat().st_size for path in (m.home.logs / "deliveries" / view["id"]).rglob("tests.log*"))

with machine(folder) as m:
    m.home.create()
    (disk / "log").mkdir()
    m.home.logs.rmdir()
    m.home.logs.symlink_to(disk / "log")
    m.up()
    (folder / "policy.yaml").write_text(POLICY)
    m.penstock("policy", "publish", str(folder / "policy.yaml"))
    deliver(m, "v1")
    usual, _ = deliver(m, "v2")
    shape = Shape.of(usual)
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"0" * 4096)
    full, wrong = deliver(m, "v3")
    wrong += record_wrong(full, shape)
    ballast.unlink()
    after, more = deliver(m, "v4")
    print(json.dumps({
        "outcomes": [view["outcome"] for view in (usual, full, after)],
        "wrong": wrong + more + record_wrong(after, shape),
        "verified": m.client.post("/v1/ledger/verify")["verified"],
        "said": [size_of(m, view) for view in (usual, full, after)],
    }))
"""


@pytest.mark.timeout(300)
@pytest.mark.long
def test_a_full_log_folder_stops_no_delivery(short_tmp: Path, on_a_small_disk: Callable[..., str]) -> None:
    needs_sandbox()
    found = json.loads(on_a_small_disk(SCRIPT, short_tmp))
    assert found["outcomes"] == ["promoted"] * 3
    assert found["wrong"] == []
    assert found["verified"]
    usual, full, after = found["said"]
    assert full == 0, "the disk was not full"
    assert usual > 0
    assert after > 0
