"""A folder with one image in its store, the drivers that look after it, and ways to look inside.

For the tests of this folder. Must not be a test itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import psutil
import pytest
from tests.integration.processes.lives import PROGRAM

from penstock.adapters.bubblewrap import INSTALL, Bubblewrap
from penstock.adapters.processes import Processes
from penstock.core.digest import digest, hex_of
from penstock.core.fence import Fence
from penstock.core.image import ABI_LABEL, File, Recipe, assemble
from penstock.core.workload import Placement, Workload
from penstock.errors import Unavailable
from penstock.ports import Sandbox

FENCE = Fence("web/production", 1, "key")
SECONDS = 30.0
ABI = f"cp{sys.version_info.major}{sys.version_info.minor}"

#: An agent in a process of its own, which is killed once everything is ready.
AGENT = """
import asyncio, pathlib, sys
from penstock.adapters.bubblewrap import Bubblewrap
from penstock.adapters.processes import Processes
from penstock.adapters.unsandboxed import Unsandboxed
from tests.integration.processes.house import FENCE, workload

async def main(folder, kind, artifact):
    sandbox = {"bubblewrap": Bubblewrap, "none": Unsandboxed}[kind].detect()
    platform = Processes(folder / "w", folder / "artifacts", sandbox)
    placed = await platform.place(workload(artifact), fence=FENCE)
    while not placed.ready:
        await platform.tend()
        await asyncio.sleep(0.02)
        placed = await platform.observe("web-1")
    print("ready", flush=True)
    await asyncio.sleep(60)

asyncio.run(main(pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
"""


class House:
    """A folder with one image in its store, and the drivers that look after it one after the other."""

    def __init__(self, folder: Path, sandbox: Sandbox) -> None:
        self.folder = folder
        self.sandbox = sandbox
        self.artifact = put_image(folder / "artifacts")
        self.platform = self.new_driver()

    def new_driver(self) -> Processes:
        self.platform = Processes(self.folder / "w", self.folder / "artifacts", self.sandbox)
        return self.platform

    async def ready(self, life: str = "serve", health_path: str = "/health") -> Placement:
        await self.platform.place(workload(self.artifact, life, health_path), fence=FENCE)
        return await self.until(lambda p: p.ready)

    async def until(self, wanted: Callable[[Placement], bool]) -> Placement:
        found = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SECONDS):
                while True:
                    await self.platform.tend()
                    found = await self.platform.observe("web-1")
                    if found is not None and wanted(found):
                        return found
                    await asyncio.sleep(0.01)
        raise AssertionError(f"not as wanted after {SECONDS} s: {found}")

    async def until_restarted(self, times: int) -> Placement:
        return await self.until(lambda p: p.ready and p.instances[0].restarts >= times)

    async def answer(self, path: str) -> str:
        found = await self.platform.observe("web-1")
        assert found is not None
        return await ask(found.instances[0].address, path)

    def processes(self) -> set[psutil.Process]:
        """Everything that runs out of this folder, and what that has started; never this process."""
        found: set[psutil.Process] = set()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid != psutil.Process().pid and str(self.folder) in " ".join(process.cmdline()):
                    found |= {process, *process.children(recursive=True)}
        return {process for process in found if lives(process)}

    async def until_gone(self, processes: set[psutil.Process]) -> None:
        async with asyncio.timeout(SECONDS):
            while any(lives(process) for process in processes):
                await self.platform.tend()
                await asyncio.sleep(0.02)


def lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def workload(artifact: str, life: str = "serve", health_path: str = "/health") -> Workload:
    command = ("python3", "/app/program.py", life)
    return Workload(
        "web", "production", "web-1", artifact, command, calls=("price-list",), health_path=health_path
    )


def put_image(layout: Path, abi: str = ABI) -> str:
    recipe = Recipe((), {"IMAGE": "yes"}, {ABI_LABEL: abi}, "linux/amd64", 1_700_000_000)
    blobs = assemble([File("program.py", PROGRAM.encode())], recipe)
    (layout / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    for blob in blobs.all:
        (layout / "blobs" / "sha256" / hex_of(digest(blob))).write_bytes(blob)
    return blobs.digest


async def ask(address: str, path: str) -> str:
    uds = address.removeprefix("unix:") if address.startswith("unix:") else None
    transport = httpx.AsyncHTTPTransport(uds=uds, verify=False)
    async with httpx.AsyncClient(transport=transport, timeout=SECONDS) as client:
        return (await client.get(f"http://{'workload' if uds else address}{path}")).text


async def dialled(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if address.startswith("unix:"):
        return await asyncio.open_unix_connection(address.removeprefix("unix:"))
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


def bubblewrap() -> Bubblewrap:
    try:
        return Bubblewrap.detect()
    except Unavailable:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"next: {INSTALL}")


@contextlib.asynccontextmanager
async def open_house(folder: Path, sandbox: Sandbox) -> AsyncIterator[House]:
    house = House(folder, sandbox)
    try:
        yield house
    finally:
        await house.platform.remove("web-1", fence=FENCE)
        await house.until_gone(house.processes())
