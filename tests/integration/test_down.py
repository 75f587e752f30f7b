"""``penstock down`` ends what runs, what is only starting, and what a dead node agent has left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from fakes.image import put_image
from fakes.web import free_port
from penstock.bootstrap.down import down
from penstock.bootstrap.home import Home
from penstock.bootstrap.processes import answers, is_held, wait_for
from penstock.core.fence import Fence
from penstock.core.workload import Workload
from penstock.node.client import NodeClient, NodePlatform

COMMAND = ("python3", "/app/program.py", "serve")


@pytest.fixture
def home(short_tmp: Path) -> Iterator[Home]:
    found = Home(short_tmp / "h")
    found.create()
    ports = {"port": free_port(), "ingress_port": free_port()}
    found.keep(replace(found.settings, sandbox="none", **ports))
    yield found
    down(found)


def runs(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def spawned(home: Home, command: str) -> int:
    """The pid of what `up` would start, with a parent that has gone."""
    code = "import sys; from penstock.bootstrap import home, processes; "
    code += "print(processes.spawn(home.Home(__import__('pathlib').Path(sys.argv[1])), sys.argv[2]))"
    command_line = [sys.executable, "-c", code, str(home.path), command]
    return int(subprocess.run(command_line, capture_output=True, check=True, timeout=60).stdout)


def test_a_server_that_has_no_lock_yet_is_ended(home: Home) -> None:
    pid = spawned(home, "serve")
    assert not is_held(home.run / "server.lock"), "it has only begun"
    down(home)
    assert not runs(pid)


def test_a_pid_that_is_somebody_elses_by_now_is_left_alone(home: Home) -> None:
    with psutil.Popen(["sleep", "60"]) as other:
        (home.run / "serve.pid").write_text(str(other.pid))
        down(home)
        assert runs(other.pid)
        other.kill()


def test_what_a_dead_agent_had_in_its_care_is_ended(home: Home) -> None:
    pid = spawned(home, "node")
    wait_for(home, lambda: answers(home.node_socket), "node")
    mine = {"MINE": str(home.path)}
    workload = Workload("web", "production", "web-1", put_image(home.artifacts), COMMAND, env=mine)
    platform = NodePlatform(NodeClient(home.node_socket))
    asyncio.run(platform.place(workload, fence=Fence("web/production", 1, "key")))
    copies: list[psutil.Process] = []
    late = time.monotonic() + 20.0
    while not copies and time.monotonic() < late:
        running = psutil.process_iter(["environ"])
        copies = [p for p in running if mine.items() <= (p.info["environ"] or {}).items()]
    assert copies, "it runs"
    agent = psutil.Process(pid)
    agent.kill()
    agent.wait(20)
    down = [sys.executable, "-m", "penstock.cli.main", "down"]
    subprocess.run(down, check=True, timeout=100, env={**os.environ, "PENSTOCK_HOME": str(home.path)})
    assert not any(runs(copy.pid) for copy in copies)
