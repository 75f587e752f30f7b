"""Both kinds of sandbox, and a house in each."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from tests.integration.processes.house import (
    AGENT,
    House,
    bubblewrap,
    open_house,
)

from penstock.adapters.unsandboxed import Unsandboxed
from penstock.core.workload import Isolation
from penstock.ports import Sandbox


@pytest.fixture(params=list(Isolation))
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    return Unsandboxed() if request.param is Isolation.NONE else bubblewrap()


@pytest.fixture
async def house(short_tmp: Path, sandbox: Sandbox) -> AsyncIterator[House]:
    async with open_house(short_tmp, sandbox) as house:
        yield house


@pytest.fixture
async def sandboxed(short_tmp: Path) -> AsyncIterator[House]:
    """What only a sandbox has: a bridge, and something to keep out."""
    async with open_house(short_tmp, bubblewrap()) as house:
        yield house


@pytest.fixture
def killed_agent(house: House) -> set[psutil.Process]:
    """A workload that is ready, whose agent has been killed with SIGKILL; its processes."""
    command = [sys.executable, "-c", AGENT, str(house.folder), house.sandbox.isolation, house.artifact]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]) as agent:
        assert agent.stdout is not None
        try:
            assert agent.stdout.readline() == b"ready\n"
            return {process for process in house.processes() if process.pid != agent.pid}
        finally:
            agent.kill()
