"""A real node agent in this process, over any two drivers: its socket is real, its process is ours."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from penstock.node.agent import Agent, LocalPlatform, LocalRouter
from penstock.node.client import NodeClient
from penstock.ports import Metrics


class Proxy(LocalRouter, Metrics, Protocol):
    """A router that also counts, as ours do."""


@contextlib.asynccontextmanager
async def agent_at(folder: Path, platform: LocalPlatform, router: Proxy) -> AsyncIterator[NodeClient]:
    """Serve until the block ends. *folder* needs a short path: the socket is in it."""
    agent = Agent(folder, platform=platform, router=router, metrics=router)
    serving = asyncio.create_task(agent.serve())
    try:
        async with asyncio.timeout(10):
            while not await _accepts(folder / "agent.sock"):
                if serving.done():
                    serving.result()
                await asyncio.sleep(0.01)
        yield NodeClient(folder / "agent.sock")
    finally:
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving


async def _accepts(path: Path) -> bool:
    with contextlib.suppress(OSError):
        _, writer = await asyncio.open_unix_connection(str(path))
        writer.close()
        return True
    return False
