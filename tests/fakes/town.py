"""What an installation that delivers to a cluster needs around it, for a test: a cluster with somebody who
leads users, a registry that its nodes pull from, and a Prometheus that scrapes the gateway.

Used from other threads than its own. The cluster and its proxy are fakes that speak real HTTP; pods are
processes, and registry and Prometheus are the real ones. Penstock may do what ``deploy/kubernetes`` lists,
and no more. What is done to it, and asked of it, is its users' matter.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from penstock.adapters.registry import Registry
from penstock.testing.kubernetes import FakeCluster, Puller
from penstock.testing.kubernetes.dataplane import DataPlane
from penstock.testing.kubernetes.gateway import listen_at, use_gateway
from penstock.testing.kubernetes.istio import use_istio
from penstock.testing.kubernetes.proxy import Proxy
from tests.fakes.cluster import rules
from tests.fakes.image import ABI, put_base
from tests.fakes.prometheus import gateway_job, real_prometheus
from tests.fakes.registry import docker_registry

NAMESPACE = "shop"
GATEWAY_API, ISTIO = "gateway-api", "istio"
CALL_SECONDS = 120.0

T = TypeVar("T")


class Town:
    """Everything around one installation. *file* is what ``penstock up --cluster`` is given, *base* the image
    that its artifacts run on. *speed* is the cluster's, *router* who leads users."""

    def __init__(self, folder: Path, *, speed: float = 10.0, router: str = GATEWAY_API) -> None:
        folder.mkdir(exist_ok=True)
        self.file = folder / "cluster.yaml"
        self.base = ""
        self.cluster = FakeCluster(namespace=NAMESPACE, speed=speed)
        self._folder = folder
        self._router = router
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._stack = contextlib.AsyncExitStack()

    def open(self) -> None:
        self._thread.start()
        self.call(self._open())

    def close(self) -> None:
        if self._thread.is_alive():
            self.call(self._stack.aclose())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(CALL_SECONDS)
        self._loop.close()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Do it in the town's own thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_SECONDS)

    async def _open(self) -> None:
        enter = self._stack.enter_async_context
        cluster = await enter(self.cluster)
        cluster.kubelet.pull = Puller()
        cluster.allow([*rules("rbac.yaml"), *rules(f"rbac-{self._router}.yaml")])
        self.proxy = await enter(Proxy(self._plane(), namespace=NAMESPACE))
        gateway = {"name": "public", "host": "{service}.example.org"}
        if self._router == GATEWAY_API:
            listen_at(cluster, self.proxy.port)
            gateway["section"] = "http"
        registry = await enter(docker_registry(self._folder))
        library = Registry(self._folder / "bases", f"{registry}/library")
        self.base = await library.publish("python", put_base(self._folder / "bases"))
        prometheus = await enter(real_prometheus(self._folder, [gateway_job(self.proxy.metrics_port)]))
        said = {
            "kubeconfig": cluster.kubeconfig(self._folder).name,
            "images": {"push": f"{registry}/{NAMESPACE}"},
            "router": self._router,
            "gateway": gateway,
            "reach": self.proxy.url,
            "metrics": {"prometheus": prometheus},
            "bases": {ABI: self.base},
        }
        self.file.write_text(json.dumps(said))  # JSON is YAML

    def _plane(self) -> DataPlane:
        """Who decides where users go, installed in the cluster."""
        return use_istio(self.cluster) if self._router == ISTIO else use_gateway(self.cluster).plane
