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

from penstock.adapters.bubblewrap import Bubblewrap
from penstock.adapters.registry import Registry
from penstock.errors import Unavailable
from penstock.testing.kubernetes import FakeCluster, Puller
from penstock.testing.kubernetes.gateway import listen_at, use_gateway
from penstock.testing.kubernetes.istio import use_istio
from penstock.testing.kubernetes.proxy import Proxy
from tests.fakes.cluster import rules
from tests.fakes.image import ABI, put_base
from tests.fakes.jobs import IMAGE, ready_for_jobs
from tests.fakes.prometheus import gateway_job, real_prometheus
from tests.fakes.registry import docker_registry

NAMESPACE = "shop"
GATEWAY_API, ISTIO = "gateway-api", "istio"
CALL_SECONDS = 120.0

T = TypeVar("T")


class Town:
    """Everything around one installation. *file* is what ``penstock up --cluster`` is given, *base* the image
    that its artifacts run on. *speed* is the cluster's, *router* who leads users. The environment that is
    named *elsewhere* has a cluster of its own, the *other* one. With *steps*, builds and checks are Jobs, its
    acceptance tests in its own cluster, unless containers cannot be enclosed here."""

    def __init__(
        self,
        folder: Path,
        *,
        speed: float = 10.0,
        router: str = GATEWAY_API,
        elsewhere: str = "",
        steps: bool = False,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.file = folder / "cluster.yaml"
        self.base = ""
        self.cluster = FakeCluster(namespace=NAMESPACE, speed=speed)
        self.other = FakeCluster(namespace=NAMESPACE, speed=speed) if elsewhere else self.cluster
        self._folder = folder
        self._router = router
        self._elsewhere = elsewhere
        self.runs_steps = steps
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
        self.proxy = await self._standing(self.cluster)
        registry = await enter(docker_registry(self._folder))
        library = Registry(self._folder / "bases", f"{registry}/library")
        self.base = await library.publish("python", put_base(self._folder / "bases"))
        gateway = {"name": "public", "host": "{service}.example.org"}
        said = {
            "kubeconfig": self.cluster.kubeconfig(self._folder).name,
            "images": {"push": f"{registry}/{NAMESPACE}"},
            "router": self._router,
            "gateway": {**gateway, "section": "http"} if self._router == GATEWAY_API else gateway,
            "reach": self.proxy.url,
            "bases": {ABI: self.base},
        }
        self.runs_steps = self.runs_steps and self._ready_for_jobs()
        steps = {"steps": {"image": IMAGE}} if self.runs_steps else {}
        proxies = [self.proxy]
        if self._elsewhere:
            proxies.append(await self._standing(self.other))
            folder = self._folder / self._elsewhere
            folder.mkdir()
            own = {"kubeconfig": str(self.other.kubeconfig(folder)), "reach": proxies[1].url}
            said["environments"] = {self._elsewhere: own | steps}
            self.other_proxy = proxies[1]
        job = gateway_job(*(proxy.metrics_port for proxy in proxies))
        said["metrics"] = {"prometheus": await enter(real_prometheus(self._folder, [job]))}
        self.file.write_text(json.dumps(said | steps))  # JSON is YAML

    async def _standing(self, cluster: FakeCluster) -> Proxy:
        """A cluster with who decides where users go, and its proxy."""
        await self._stack.enter_async_context(cluster)
        cluster.kubelet.pull = Puller()
        granted = (
            "rbac.yaml",
            f"rbac-{self._router}.yaml",
            *(["rbac-steps.yaml"] if self.runs_steps else ()),
        )
        cluster.allow([rule for file in granted for rule in rules(file)])
        plane = use_istio(cluster) if self._router == ISTIO else use_gateway(cluster).plane
        proxy = await self._stack.enter_async_context(Proxy(plane, namespace=NAMESPACE))
        if self._router == GATEWAY_API:
            listen_at(cluster, proxy.port)
        return proxy

    def _ready_for_jobs(self) -> bool:
        try:
            for cluster in (self.cluster, self.other):
                ready_for_jobs(cluster, Bubblewrap.detect())
        except Unavailable:
            return False
        return True
