"""A real Prometheus, which scrapes what a test names every 200 ms; and readings of it that are not of before.

A test that needs one is skipped where there is none, but never in CI.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock.core.traffic import Counters
from penstock.errors import Unavailable
from penstock.ports import Metrics

from .web import free_port

INSTALL = "apt install prometheus (no root: put its binary on PATH)"


@asynccontextmanager
async def real_prometheus(folder: Path, jobs: Sequence[dict[str, Any]]) -> AsyncIterator[str]:
    """Its URL; *jobs* are its ``scrape_configs``."""
    binary = shutil.which("prometheus")
    if binary is None:
        if os.environ.get("CI") == "true":
            raise FileNotFoundError(INSTALL)
        pytest.skip(f"no prometheus here; next: {INSTALL}")
    often = {"scrape_interval": "200ms", "scrape_timeout": "200ms"}
    config = {"global": often, "scrape_configs": list(jobs)}
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        binary,
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await ready(f"http://127.0.0.1:{port}/-/ready")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()


def gateway_job(*ports: int) -> dict[str, Any]:
    """What scrapes proxies at these ports of loopback."""
    targets = [f"127.0.0.1:{port}" for port in ports]
    return {
        "job_name": "gateways",
        "metrics_path": "/stats/prometheus",
        "static_configs": [{"targets": targets}],
    }


class Scraped:
    """Counters once everything that happened before the call has been scraped."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def counters(self, service: str, environment: str) -> tuple[Counters, ...]:
        asked = time.time()
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(Unavailable):  # it has not been scraped at all yet, or not again
                    found = await self._metrics.counters(service, environment)
                    if all(one.at >= asked for one in found):
                        return found
                await asyncio.sleep(0.05)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._metrics, name)


async def ready(url: str, seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds), httpx.AsyncClient(verify=False) as client:
        while True:
            try:
                if (await client.get(url)).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.05)
