"""A disk that fills up during a backup or a restore: no half file under the final name, no half folder.

The disk is a small one in memory, mounted in a namespace of the test's own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.adapters.bubblewrap import Bubblewrap
from penstock.core.workload import Step
from penstock.errors import Unavailable

SCRIPT = """
import asyncio, hashlib, os, sys
from pathlib import Path
from penstock.bootstrap import identity
from penstock.bootstrap.backup import back_up
from penstock.bootstrap.restore import restore
from penstock.bootstrap.control import open_store
from penstock.bootstrap.home import Home
from penstock.engine import prune
from penstock.engine.journal import Journal
from penstock.errors import Unavailable
from penstock.ledger.log import Ledger

disk, folder = Path("/mnt/disk"), Path(sys.argv[1])
home = Home(folder / "home")

def left():
    return sorted(str(path.relative_to(disk)) for path in disk.rglob("*") if path.is_file())

async def main():
    home.create()
    store, keys = open_store(home), identity.load_keys(home)
    ledger = Ledger(store, keys.logs, identity.ORIGIN)
    await ledger.migrate()
    await Journal(store).migrate()
    await prune.migrate(store)
    await identity.found(store, ledger, keys, home)
    await store.close()
    blobs = home.artifacts / "blobs/sha256"
    blobs.mkdir(parents=True)
    data = os.urandom(6 * 1024 * 1024)
    (blobs / hashlib.sha256(data).hexdigest()).write_bytes(data)
    try:
        await back_up(home, disk / "backup.tar")
    except Unavailable as error:
        print("backup:", error)
    print("after backup:", left())
    await back_up(home, folder / "backup.tar")
    try:
        await restore(Home(disk / "home"), folder / "backup.tar")
    except Unavailable as error:
        print("restore:", error)
    print("after restore:", [name for name in left() if not name.endswith(".lock")])

asyncio.run(main())
"""


def test_a_full_disk_leaves_nothing_half_done(short_tmp: Path) -> None:
    try:
        sandbox = Bubblewrap.detect()
    except Unavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"needs a disk of its own: {error.next_move}")
    binary = sandbox.enclose(Step(("true",), "/"))[0]
    disk = ["--tmpfs", "/mnt", "--size", str(4 * 1024 * 1024), "--tmpfs", "/mnt/disk"]
    command = [binary, "--dev-bind", "/", "/", *disk, sys.executable, "-c", SCRIPT, str(short_tmp)]
    env = {name: value for name, value in os.environ.items() if name != "PENSTOCK_STORE"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert "no backup was made: No space left on device" in said
    assert "after backup: []" in said
    assert "MiB, and 3 MiB are free" in said
    assert "after restore: []" in said
