"""The machine's clock is set while instances run: they are the same, and nobody waits for the old time."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import psutil
import pytest
from tests.integration.processes.house import House

from penstock.adapters._birth import birth_of, is_same

HOUR = 3600


@pytest.fixture
def hour_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What psutil sees of this machine after its clock was set: the time of its start has moved along."""
    if not Path("/proc/stat").exists():
        pytest.skip("needs Linux")
    folder = tmp_path / "proc"
    folder.mkdir()
    for path in Path("/proc").iterdir():
        if path.name != "stat":
            (folder / path.name).symlink_to(path)
    stat = Path("/proc/stat").read_text()
    (folder / "stat").write_text(re.sub(r"(?<=btime )\d+", lambda it: str(int(it[0]) + HOUR), stat))
    monkeypatch.setattr(psutil, "PROCFS_PATH", "/proc")
    return folder


async def test_what_runs_is_known_again_after_the_clock_was_set(
    house: House, killed_agent: set[psutil.Process], hour_ahead: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.new_driver()
    await house.until(lambda p: p.ready)
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(hour_ahead))
    for _ in range(3):
        await house.platform.tend()
    placed = await house.until(lambda p: p.ready)
    assert placed.instances[0].restarts == 0
    assert house.processes() == killed_agent


async def test_a_restart_does_not_wait_for_a_time_that_was_taken_back(house: House) -> None:
    await house.ready()
    (outermost,) = [p for p in house.processes() if p.ppid() == os.getpid()]
    await house.platform.stop()
    record = house.folder / "w" / "releases" / "web-1.json"
    kept = json.loads(record.read_text())
    kept["instances"][0]["started"] += HOUR
    kept["instances"][0]["crashes"] = 1
    record.write_text(json.dumps(kept))
    assert not outermost.is_running()
    house.new_driver()
    await house.until(lambda p: p.ready)


def test_a_process_is_known_by_its_birth_or_by_its_time(
    hour_ahead: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = psutil.Process()
    birth, created = birth_of(process), process.create_time()
    assert is_same(process, birth, created)
    assert is_same(process, "", created)
    assert not is_same(process, birth + "0", created)
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(hour_ahead))
    assert is_same(psutil.Process(), birth, created)
    assert not is_same(psutil.Process(), "", created)
