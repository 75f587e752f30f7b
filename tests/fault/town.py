"""A fake cluster in a thread of its own, and what an installation that delivers to it needs beside it: a real
registry, the gateway's proxy and a real Prometheus.

Used by `clustered`, from other threads. Pods are processes of this machine. It says what is there and takes
things away; it must not know what should be there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from penstock.adapters.kubernetes.manifests import FENCE
from penstock.adapters.registry import Registry
from penstock.testing.kubernetes import FakeCluster, Fault, Puller
from penstock.testing.kubernetes.gateway import ROUTES, use_gateway
from penstock.testing.kubernetes.kinds import DEPLOYMENTS, PODS, Object
from penstock.testing.kubernetes.problems import Problem
from penstock.testing.kubernetes.proxy import Proxy
from tests.fakes.image import ABI, put_base
from tests.fakes.prometheus import gateway_job, real_prometheus
from tests.fakes.registry import docker_registry

NAMESPACE = "shop"
#: How long the API is away, and how many requests it then has no time for.
AWAY_SECONDS = 1.5
BUSY = 3
CALL_SECONDS = 120.0

T = TypeVar("T")


class Town:
    """*file* is the cluster as `penstock up --cluster` takes it, *gateway* the URL at which users come in.
    *come_by* is told of each write, before and after it (``api.patch deployments before``)."""

    def __init__(self, folder: Path, come_by: Callable[[str], None]) -> None:
        folder.mkdir()
        self.file = folder / "cluster.yaml"
        self.gateway = ""
        self._folder = folder
        self._come_by = come_by
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._stack = contextlib.AsyncExitStack()
        self._away: asyncio.Task[None] | None = None
        self._checked = 0
        self._cluster = FakeCluster(namespace=NAMESPACE)

    def open(self) -> None:
        self._thread.start()
        self._call(self._open())

    def close(self) -> None:
        if self._thread.is_alive():
            self._call(self._stack.aclose())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    async def _open(self) -> None:
        enter = self._stack.enter_async_context
        registry = await enter(docker_registry(self._folder))
        library = Registry(self._folder / "bases", f"{registry}/library")
        base = await library.publish("python", put_base(self._folder / "bases"))
        cluster = await enter(self._cluster)
        cluster.kubelet.pull = Puller()
        cluster.at_write(self._at_write)
        proxy = await enter(Proxy(use_gateway(cluster).plane, namespace=NAMESPACE))
        prometheus = await enter(real_prometheus(self._folder, [gateway_job(proxy.metrics_port)]))
        self.gateway = proxy.url
        said = {
            "kubeconfig": str(cluster.kubeconfig(self._folder)),
            "images": {"push": f"{registry}/{NAMESPACE}"},
            "gateway": {"name": "public", "host": "{service}.example.org"},
            "reach": proxy.url,
            "metrics": {"prometheus": prometheus},
            "bases": {ABI: base},
        }
        self.file.write_text(json.dumps(said))  # JSON is YAML

    async def _at_write(self, what: str, moment: str) -> None:
        # In a thread: whoever is killed there may be this cluster's API, which has to go on for that.
        await asyncio.to_thread(self._come_by, f"api.{what} {moment}")

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_SECONDS)

    # --- what is taken away ---------------------------------------------------------------------------

    def cut_off(self) -> None:
        """Nobody reaches the API for a while, and its watches break; once it is back it is busy at first."""

        async def come_back() -> None:
            await asyncio.sleep(AWAY_SECONDS)
            self._cluster.fail(Fault(times=BUSY))
            await self._cluster.reconnect()

        async def go() -> None:
            if self._away is None or self._away.done():
                await self._cluster.disconnect()
                self._away = asyncio.ensure_future(come_back())

        self._call(go())

    def end_pods(self) -> None:
        """Every pod, without notice; the cluster makes others, at other addresses."""

        async def end() -> None:
            for pod in self._cluster.api.all(PODS, NAMESPACE):
                with contextlib.suppress(Problem):  # it has just gone by itself
                    self._cluster.api.delete(PODS, NAMESPACE, pod["metadata"]["name"], grace=0)

        self._call(end())

    def come_back(self) -> None:
        """Return once the API is there again; what it was still to refuse, it does not."""

        async def wait() -> None:
            if self._away is not None:
                await self._away
            self._cluster.heal()

        if self._thread.is_alive():
            self._call(wait())

    # --- what is there --------------------------------------------------------------------------------

    def objects(self) -> list[tuple[str, Object]]:
        """Everything in the namespace, with its kind (``plural.group``). What is told to end is not there."""

        async def look() -> list[tuple[str, Object]]:
            return [
                (kind, found)
                for kind, found in self._cluster.api.storage.kinds()
                if found["metadata"].get("namespace") == NAMESPACE
                and "deletionTimestamp" not in found["metadata"]
            ]

        return self._call(look())

    def fences_fell(self) -> list[str]:
        """Each change since this was last asked in which an object got a lower fence than it had."""

        async def look() -> list[str]:
            storage = self._cluster.api.storage
            since, self._checked = self._checked, storage.version
            kinds = (DEPLOYMENTS.full, ROUTES.full)
            changes = (event for event in storage.since(since) if event.full in kinds)
            return [
                f"{event.full} {event.object['metadata']['name']}: fence {after} after {before}"
                for event in changes
                for before, after in _fences(event.before, event.after)
                if after < before
            ]

        return self._call(look())


def _fences(before: Object | None, after: Object | None) -> Iterator[tuple[int, int]]:
    if before is not None and after is not None:
        numbers = [int(one["metadata"].get("annotations", {}).get(FENCE, "0")) for one in (before, after)]
        yield numbers[0], numbers[1]
