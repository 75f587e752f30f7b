"""What an installation that delivers to a cluster needs around it, for a test: a cluster with a gateway, a
registry that its nodes pull from, a Prometheus that scrapes the gateway, and users.

The cluster and its proxy are fakes that speak real HTTP, in a thread of their own; pods are processes, and
registry and Prometheus are the real ones. Penstock may do what ``deploy/kubernetes`` lists, and no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from fakes.cluster import rules
from fakes.image import ABI, put_base
from fakes.jobs import IMAGE, ready_for_jobs
from fakes.prometheus import gateway_job, real_prometheus
from fakes.registry import docker_registry
from penstock.adapters.bubblewrap import Bubblewrap
from penstock.adapters.registry import Registry
from penstock.checks.sending import UNANSWERED, Ask, Target
from penstock.errors import Unavailable
from penstock.testing.kubernetes import FakeCluster, Puller
from penstock.testing.kubernetes.gateway import listen_at, use_gateway
from penstock.testing.kubernetes.proxy import Proxy

T = TypeVar("T")

START_SECONDS = 90.0
CLUSTER = """\
kubeconfig: kubeconfig
images: {{push: "{registry}/shop"}}
gateway: {{name: public, section: http, host: "{{service}}.example.org"}}
reach: {gateway}
metrics: {{prometheus: "{prometheus}"}}
bases: {{{abi}: "{base}"}}
"""
#: Builds and checks as Jobs.
STEPS = f'steps: {{image: "{IMAGE}"}}\n'


class Town:
    """Everything around one installation. *file* is what ``penstock up --cluster`` is given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "cluster.yaml"
        self.runs_steps = True
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._stack = AsyncExitStack()

    def open(self) -> None:
        self._thread.start()
        self._run(self._open())

    def close(self) -> None:
        self._run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_SECONDS)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(START_SECONDS)

    async def _open(self) -> None:
        entered = self._stack.enter_async_context
        self.cluster = await entered(FakeCluster(speed=3.0))
        self.proxy = await entered(Proxy(use_gateway(self.cluster).plane))
        listen_at(self.cluster, self.proxy.port)
        files = ("rbac.yaml", "rbac-gateway-api.yaml", "rbac-steps.yaml")
        self.cluster.allow([rule for file in files for rule in rules(file)])
        registry = await entered(docker_registry(self.folder))
        library = Registry(self.folder / "bases", f"{registry}/library")
        self.base = await library.publish("python", put_base(self.folder / "bases"))
        self.cluster.kubelet.pull = Puller()
        prometheus = await entered(real_prometheus(self.folder, [gateway_job(self.proxy.metrics_port)]))
        self.cluster.kubeconfig(self.folder)
        around = {"registry": registry, "gateway": self.proxy.url, "prometheus": prometheus}
        self.file.write_text(CLUSTER.format(**around, abi=ABI, base=self.base) + self._run_steps())

    def _run_steps(self) -> str:
        """What the cluster's file says of steps: nothing where containers cannot be enclosed."""
        try:
            ready_for_jobs(self.cluster, Bubblewrap.detect())
        except Unavailable:
            self.runs_steps = False
        return STEPS if self.runs_steps else ""

    @contextmanager
    def users(self, path: str, rate: float = 60.0) -> Iterator[Counter[str]]:
        """Users of the shop, who come through the gateway; what they met, by kind. It is final once the block
        is left."""
        met: Counter[str] = Counter()
        stop = asyncio.Event()
        asking = asyncio.run_coroutine_threadsafe(self._ask(path, 1 / rate, met, stop), self._loop)
        try:
            yield met
        finally:
            self._loop.call_soon_threadsafe(stop.set)
            asking.result(START_SECONDS)

    async def _ask(self, path: str, pause: float, met: Counter[str], stop: asyncio.Event) -> None:
        target = Target(self.proxy.url, headers={"Host": "shop.example.org"})
        flying: set[asyncio.Task[None]] = set()
        while not stop.is_set():
            task = asyncio.create_task(_once(target, path, met))
            flying.add(task)
            task.add_done_callback(flying.discard)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)
        await asyncio.gather(*flying)
        target.close()


async def _once(target: Target, path: str, met: Counter[str]) -> None:
    """A status that the application gave, or that of the proxy, or that nobody answered."""
    try:
        answer = await target.ask(Ask(path=path))
    except UNANSWERED as error:
        met[f"nobody: {type(error).__name__}: {error}"] += 1
    else:
        by = "proxy: " if answer.headers.get("server") == "istio-envoy" else ""
        met[f"{by}{answer.status}"] += 1


@contextmanager
def town(folder: Path) -> Iterator[Town]:
    made = Town(folder)
    try:
        made.open()
        yield made
    finally:
        made.close()
