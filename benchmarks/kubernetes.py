"""What a delivery asks of a cluster's API, and what it costs to keep 1,000 releases in view.

    benchmarks/kubernetes.py [--json FILE]

Requests are counted at the fake cluster, where pods come up at once: counts are exact, times are not a real
cluster's. The first look at everything (a list and a watch for each of three kinds) is counted by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from penstock.adapters._kubernetes import Access, Client
from penstock.adapters._kubernetes.kinds import DEPLOYMENTS, ENDPOINT_SLICES, PODS
from penstock.adapters._kubernetes.mirror import Mirror
from penstock.adapters.kubernetes import Kubernetes, Settings
from penstock.core.fence import Fence
from penstock.core.workload import Placement, Workload
from penstock.testing.kubernetes import Behaviour, FakeCluster

RELEASES = 1000
ARTIFACT = "sha256:" + "1" * 64
FENCE = Fence("web/production", 1, "key")
WORKLOAD = Workload(
    service="web",
    environment="production",
    release="web-1",
    artifact=ARTIFACT,
    command=("serve",),
    env={"COLOUR": "blue", "TOKEN": "sesame-open"},
    secrets=("sesame-open",),
    health_path="/health",
    replicas=2,
)


async def until(platform: Kubernetes, wanted: Callable[[Placement], bool]) -> None:
    async with asyncio.timeout(60):
        while (found := await platform.observe("web-1")) is None or not wanted(found):
            await asyncio.sleep(0.01)


async def delivery(cluster: FakeCluster, platform: Kubernetes) -> dict[str, float]:
    """Requests of each part of a release's life."""
    figures: dict[str, float] = {}
    seen = 0

    def count(name: str) -> None:
        nonlocal seen
        figures[f"requests, {name}"] = len(cluster.asked) - seen
        seen = len(cluster.asked)

    await platform.observe("web-1")
    count("first look")
    await platform.place(WORKLOAD, fence=FENCE)
    await until(platform, lambda found: found.ready)
    count("place 2 copies, until ready")
    began = time.perf_counter()
    for _ in range(1000):
        await platform.observe("web-1")
    figures["observe (1/s)"] = 1000 / (time.perf_counter() - began)
    count("observe 1,000 times")
    await platform.scale("web-1", 4, fence=FENCE)
    await until(platform, lambda found: found.able == 4)
    count("2 to 4 copies, until ready")
    await platform.scale("web-1", 2, fence=FENCE)
    count("4 to 2 copies, until gone")
    await platform.remove("web-1", fence=FENCE)
    count("remove, until gone")
    return figures


async def delivered() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        async with FakeCluster(speed=50.0) as cluster:
            cluster.kubelet.behaviours[f"registry.test/web@{ARTIFACT}"] = Behaviour()
            access = Access.of_files([cluster.kubeconfig(Path(folder))])
            platform = Kubernetes(Settings("registry.test"), access)
            try:
                figures = await delivery(cluster, platform)
                return figures | await picture(cluster, access)
            finally:
                await platform.close()


async def picture(cluster: FakeCluster, access: Access) -> dict[str, float]:
    """Memory of a mirror of `RELEASES`, each as large as one that the cluster holds, with one pod."""
    platform = Kubernetes(Settings("registry.test"), access)
    await platform.place(replace(WORKLOAD, replicas=1), fence=FENCE)
    await until(platform, lambda found: found.ready)
    await platform.close()
    whole = {kind: cluster.api.named(kind.full) for kind in (DEPLOYMENTS, PODS, ENDPOINT_SLICES)}
    texts = {kind: json.dumps(cluster.api.all(held)[0]) for kind, held in whole.items() if held}
    client = Client(access)
    mirror = Mirror(client, tuple(texts), "")
    tracemalloc.start()
    for number in range(RELEASES):
        for kind, text in texts.items():
            value = json.loads(text)
            value["metadata"] |= {"name": f"release-{number}", "uid": str(number)}
            mirror.put(kind, value)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    await client.close()
    return {f"memory of {RELEASES:,} releases in view (MB)": held / 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description="What a delivery asks of a Kubernetes API.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    given = parser.parse_args()
    figures = asyncio.run(delivered())
    for name, value in figures.items():
        print(f"{name:<48} {value:10.1f}")
    if given.json:
        given.json.write_text(json.dumps({"figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
