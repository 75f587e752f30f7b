"""A small disk in memory, mounted in a namespace of the test's own at /mnt/disk; and a whole Penstock
for those tests in which nobody dies for good."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from penstock.adapters.bubblewrap import Bubblewrap
from penstock.core.workload import Step
from penstock.errors import Unavailable
from tests.fault.place import Place
from tests.fault.proxy import FarPostgres
from tests.fault.test_matrix import needs_sandbox

BYTES = 4 * 1024 * 1024


@pytest.fixture
def on_a_small_disk() -> Callable[..., str]:
    """Runs a script of Python there, with these arguments, and gives what it printed."""
    try:
        sandbox = Bubblewrap.detect()
    except Unavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"needs a disk of its own: {error.next_move}")
    binary = sandbox.enclose(Step(("true",), "/"))[0]
    disk = ["--tmpfs", "/mnt", "--size", str(BYTES), "--tmpfs", "/mnt/disk"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}

    def run(script: str, *arguments: object) -> str:
        command = [binary, "--dev-bind", "/", "/", *disk, sys.executable, "-c", script, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="package", params=["sqlite", "postgres"])
def running(request: pytest.FixtureRequest) -> Iterator[Place]:
    """One for each store: starting it takes longer than most of its tests."""
    needs_sandbox()
    with contextlib.ExitStack() as stack:
        far = FarPostgres() if request.param == "postgres" else None
        if far is not None:
            stack.callback(far.remove)
            far.start()
        made = Place(request.param, far)
        stack.callback(made.close)
        made.open()
        yield made


@pytest.fixture
def place(running: Place) -> Iterator[Place]:
    yield running
    running.calm()
