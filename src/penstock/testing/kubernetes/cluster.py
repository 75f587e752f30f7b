"""Puts a cluster together: its API on a port of loopback, its controllers, its nodes; and what a test does to
it.

Called by tests. What a test wants of the inside (an object as another tool would write it, a history that is
forgotten) goes through `api`, which asks for no rights.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from penstock.testing.kubernetes.api import Api
from penstock.testing.kubernetes.autoscalers import Autoscalers
from penstock.testing.kubernetes.controllers import Controllers
from penstock.testing.kubernetes.faults import Fault
from penstock.testing.kubernetes.finite import Enclose, Finite, use_finite
from penstock.testing.kubernetes.jobs import Jobs
from penstock.testing.kubernetes.kinds import SERVED, FakeKind, Object
from penstock.testing.kubernetes.kubelet import Kubelet
from penstock.testing.kubernetes.problems import Problem
from penstock.testing.kubernetes.rights import Rights
from penstock.testing.kubernetes.server import AtWrite, Server
from penstock.testing.kubernetes.webhooks import Webhooks
from penstock.testing.kubernetes.wire import Answering, Request, Wire

#: Controllers look again this often although nothing changed: deadlines pass.
LOOK_SECONDS = 0.25


class FakeCluster:
    """Serves within its ``async with``. *speed* is how much faster than a real one's its clock runs: probes,
    backoff, deadlines; times that a workload gets to end are not touched."""

    def __init__(self, *, token: str = "the-token", namespace: str = "default", speed: float = 10.0) -> None:
        self.api = Api(SERVED)
        self.api.namespaces.add(namespace)
        self.token = token
        self.namespace = namespace
        self._folder = tempfile.TemporaryDirectory(prefix="penstock-cluster-")
        self.kubelet = Kubelet(self.api, Path(self._folder.name), speed)
        self.webhooks = Webhooks(self.api)
        self._server = Server(self.api, self.kubelet.log, self.webhooks, token)
        self._wire = Wire(self._server.handle)
        self._controllers = Controllers(self.api, self.webhooks.demand, speed)
        self._jobs = Jobs(self.api, self._controllers, speed)
        self._autoscalers = Autoscalers(self.api, self._controllers, speed)
        self._more: list[Callable[[Api], None]] = []
        self._controlling: asyncio.Task[None] | None = None
        #: The version at which every controller found nothing to do.
        self._looked_at = 0

    async def __aenter__(self) -> FakeCluster:
        await self._wire.start()
        # Nobody else of this machine has the port, so nobody else has these.
        self.kubelet.network = f"127.{self._wire.port >> 8}.{self._wire.port & 255}"
        self._controlling = asyncio.ensure_future(self._control())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._wire.stop()
        if self._controlling is not None:
            self._controlling.cancel()
            await asyncio.wait([self._controlling])
        await self.kubelet.stop()
        self._folder.cleanup()

    # --- the way in ----------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._wire.port}"

    def kubeconfig(self, folder: Path) -> Path:
        """Write one, as its only user."""
        context = {"cluster": "fake", "user": "penstock", "namespace": self.namespace}
        value = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "contexts": [{"name": "fake", "context": context}],
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "penstock", "user": {"token": self.token}}],
        }
        path = folder / "kubeconfig"
        path.write_text(yaml.safe_dump(value))
        return path

    # --- what a test does to it ----------------------------------------------------------------------

    def serve(self, kind: FakeKind) -> None:
        """Add a kind, as a CRD does; `api.unserve` takes one away."""
        self.api.serve(kind)

    def run_jobs(self, enclose: Enclose) -> None:
        """Pods that end are run from now on, each container enclosed so; `finite` says what is imitated."""
        from penstock.testing.kubernetes.execs import serve  # it needs a library that not every user has

        def pod(namespace: str, name: str) -> Finite:
            found = self.kubelet.named(namespace, name)
            if not isinstance(found, Finite):
                raise Problem(400, f"pod {name} is none that ends")
            return found

        async def execute(namespace: str, name: str, request: Request, answering: Answering) -> None:
            argv = tuple(request.words("command"))
            command = pod(namespace, name).command(request.query.get("container", ""), argv)
            await serve(request.path, dict(request.headers), command, answering)

        use_finite(self.kubelet, enclose)
        self._server.follow = lambda namespace, name, container: pod(namespace, name).follow(container)
        self._server.execute = execute

    def give_work(self, deployment: str, copies: float) -> None:
        """From now on, and measured from now on, it has as much to do as so many copies of it do with all the
        processor time that they ask for."""
        self._autoscalers.work[deployment] = copies

    def control(self, reconcile: Callable[[Api], None]) -> None:
        """Add a controller: called after each change, it looks at what is there and writes where that
        differs."""
        self._more.append(reconcile)

    def edit(
        self, full: str, name: str, change: Object, *, manager: str = "kubectl", part: str = ""
    ) -> Object:
        """A merge patch, as another tool or controller writes it. *full* is ``plural.group``; *part* may be
        ``status``."""
        kind = self.api.named(full)
        if kind is None:
            raise LookupError(f"{full} is not served; call `serve` first")
        return self.api.patch(kind, self.namespace, name, change, manager=manager, subresource=part)

    def allow(self, rules: Sequence[Mapping[str, Any]]) -> None:
        """From now on only what *rules* (those of a Role) list may be done."""
        self._server.rights = Rights(rules)

    @property
    def rights(self) -> Rights:
        return self._server.rights

    def fail(self, fault: Fault) -> None:
        """Let requests to come end otherwise than asked. `break` also ends watches that are open."""
        self._server.faults.append(fault)

    def heal(self) -> None:
        self._server.faults.clear()

    @property
    def asked(self) -> list[str]:
        """Each request so far, as "verb resource"."""
        return self._server.asked

    def at_write(self, told: AtWrite) -> None:
        """Have *told* called ("verb resource", "before" or "after") around each write that comes over the
        wire. It goes on once that returns; if the API is cut off meanwhile, it does not. A `Problem` that it
        raises is the answer."""
        self._server.at_write = told

    def compact(self) -> None:
        """Forget the history: open watches end with 410, and a version from before is too old."""
        self.api.storage.compact()

    async def disconnect(self) -> None:
        """Nobody can reach the API any more; the cluster goes on."""
        await self._wire.stop()

    async def reconnect(self) -> None:
        await self._wire.start()

    async def settled(self) -> None:
        """Return once no controller has anything left to do."""
        async with asyncio.timeout(10):
            while self._looked_at != self.api.storage.version:
                await asyncio.sleep(0)

    # --- what it does by itself ----------------------------------------------------------------------

    async def _control(self) -> None:
        while True:
            seen = self.api.storage.version
            self.kubelet.sync()
            self._controllers.reconcile()
            self._jobs.reconcile()
            self._autoscalers.reconcile()
            for reconcile in self._more:
                reconcile(self.api)
            if await self.webhooks.settle():
                continue  # what waited for an answer is looked at again
            if self.api.storage.version == seen:
                self._looked_at = seen
                await self.api.storage.wait(seen, LOOK_SECONDS)
            else:
                await asyncio.sleep(0)  # what was just written is looked at next
