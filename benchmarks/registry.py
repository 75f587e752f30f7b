"""What it costs to have an image where a cluster can pull it, beside a bare loop of the same uploads.

    benchmarks/registry.py [--json FILE] [--megabytes N]

The registry is Debian's docker-registry on this machine; the loop holds each blob in memory, checks nothing,
and asks nothing before. Both push the same images in turn, a new one each time; the best time of each counts,
for the machine may have other work. Requests are counted at a registry by hand.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fakes.registry import FakeRegistry, docker_registry
from penstock.adapters.registry import Registry
from penstock.core.digest import digest, hex_of
from penstock.core.image import MANIFEST_TYPE, Blobs, File, Recipe, assemble

ROUNDS = 9


def made(store: Path, megabytes: int) -> Blobs:
    """An image that no registry has, in the artifact store."""
    recipe = Recipe(("python3", "/app/a"), {}, {}, "linux/amd64", 1_700_000_000)
    blobs = assemble([File("a", os.urandom(megabytes * 1_000_000))], recipe)
    folder = store / "blobs/sha256"
    folder.mkdir(parents=True, exist_ok=True)
    for blob in blobs.all:
        (folder / hex_of(digest(blob))).write_bytes(blob)
    return blobs


async def bare(url: str, blobs: Blobs) -> None:
    async with httpx.AsyncClient(timeout=60, verify=False) as client:
        for blob in (blobs.layer, blobs.config):
            begun = await client.post(f"{url}/v2/bare/web/blobs/uploads/")
            sent = await client.put(f"{begun.headers['location']}&digest={digest(blob)}", content=blob)
            sent.raise_for_status()
        headers = {"content-type": MANIFEST_TYPE}
        where = f"{url}/v2/bare/web/manifests/{blobs.digest}"
        (await client.put(where, content=blobs.manifest, headers=headers)).raise_for_status()


async def timed(work: Awaitable[object]) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


async def pushed(folder: Path, megabytes: int) -> dict[str, float]:
    ours, loop, again = [], [], []
    async with docker_registry(folder) as url:
        registry = Registry(folder / "store", f"{url}/shop")
        for _ in range(ROUNDS):
            blobs = made(folder / "store", megabytes)
            loop.append(await timed(bare(url, blobs)))
            ours.append(await timed(registry.publish("web", blobs.digest)))
            again.append(await timed(registry.publish("web", blobs.digest)))
    return {
        f"push of {megabytes} MB (ms)": min(ours) * 1000,
        "the bare loop (ms)": min(loop) * 1000,
        "push / bare loop": min(ours) / min(loop),
        "one that is there (ms)": min(again) * 1000,
    }


async def counted(folder: Path) -> dict[str, float]:
    fake, blobs = FakeRegistry(), made(folder / "store", 1)
    await fake.server.start()
    registry = Registry(folder / "store", f"{fake.url}/shop")
    await registry.publish("web", blobs.digest)
    first = len(fake.asked)
    await registry.publish("web", blobs.digest)
    both = len(fake.asked)
    await fake.server.stop()
    return {"requests, push": first, "requests, one that is there": both - first}


def main() -> None:
    parser = argparse.ArgumentParser(description="What it costs to push an image.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--megabytes", type=int, default=20, metavar="N", help="of the layer (default: 20)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(counted(Path(folder)))
        figures |= asyncio.run(pushed(Path(folder), given.megabytes))
    for name, value in figures.items():
        print(f"{name:<40} {value:10.2f}")
    if given.json:
        given.json.write_text(json.dumps({"figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
