"""What an installation that delivers to a cluster needs around it, for a test: a cluster with a gateway, a
registry that its nodes pull from, a Prometheus that scrapes the gateway, and users.

The cluster and its proxy are fakes that speak real HTTP, in a thread of their own; pods are processes, and
registry and Prometheus are the real ones. Penstock may do what ``deploy/kubernetes`` lists, and no more.

``PYTHONPATH=tests python -m tests.e2e.clustered FOLDER`` has it stand until it is interrupted, for whoever
wants to try (docs/guides/kubernetes.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

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
    """Everything around one installation. *file* is what ``penstock up --cluster`` is given. The environment
    named *elsewhere* has a cluster of its own."""

    def __init__(self, folder: Path, elsewhere: str = "") -> None:
        self.folder = folder
        self._elsewhere = elsewhere
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
        registry = await entered(docker_registry(self.folder))
        library = Registry(self.folder / "bases", f"{registry}/library")
        self.base = await library.publish("python", put_base(self.folder / "bases"))
        self.cluster, self.proxy = await self._cluster(self.folder)
        ports, more = [self.proxy.metrics_port], ""
        if self._elsewhere:
            folder = self.folder / self._elsewhere
            folder.mkdir()
            self.other, self.other_proxy = await self._cluster(folder)
            ports.append(self.other_proxy.metrics_port)
            own = f"kubeconfig: {folder.name}/kubeconfig, reach: {self.other_proxy.url}"
            more = f"environments: {{{self._elsewhere}: {{{own}}}}}\n"
        prometheus = await entered(real_prometheus(self.folder, [gateway_job(*ports)]))
        around = {"registry": registry, "gateway": self.proxy.url, "prometheus": prometheus}
        self.file.write_text(CLUSTER.format(**around, abi=ABI, base=self.base) + more + self._run_steps())

    async def _cluster(self, folder: Path) -> tuple[FakeCluster, Proxy]:
        """One with a gateway; its kubeconfig is in *folder*."""
        entered = self._stack.enter_async_context
        cluster = await entered(FakeCluster(speed=3.0))
        proxy = await entered(Proxy(use_gateway(cluster).plane))
        listen_at(cluster, proxy.port)
        granted = ("rbac.yaml", "rbac-gateway-api.yaml", "rbac-steps.yaml")
        cluster.allow([rule for file in granted for rule in rules(file)])
        cluster.kubelet.pull = Puller()
        cluster.kubeconfig(folder)
        return cluster, proxy

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
def town(folder: Path, elsewhere: str = "") -> Iterator[Town]:
    made = Town(folder, elsewhere)
    try:
        made.open()
        yield made
    finally:
        made.close()


def main(folder: Path) -> int:
    """Have a town stand in *folder* until SIGINT or SIGTERM."""
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # before there is a second thread: it would get them
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with town(folder.absolute()) as stands:
            sys.stdout.write(
                f"penstock up --cluster {stands.file}\n"
                f"curl -H 'Host: SERVICE.example.org' {stands.proxy.url}/\n"
            )
            sys.stdout.flush()
            signal.sigwait(signals)
    except pytest.skip.Exception as absent:
        sys.stderr.write(f"{absent}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
