"""Deliveries to a cluster by Penstock's own actions, and the same rollout without Penstock.

Used by `benchmarks/kubernetes.py`. The actions are called as the engine calls them, with the real drivers; no
policy is asked and no user is counted. What is bare applies the same Deployment, Service and route with the
same client, and waits for the same: ready endpoints, and the gateway's word.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from parts.cluster import ATTACHED, Drivers
from penstock.actions import deploy, promote, rollback, shift
from penstock.actions._placing import workload
from penstock.adapters._kubernetes import Client, Kind, Listed, Object
from penstock.adapters._kubernetes.kinds import DEPLOYMENTS, ENDPOINT_SLICES, PODS, SERVICES
from penstock.adapters.gateway_api.driver import ROUTES
from penstock.adapters.gateway_api.reading import word_of
from penstock.adapters.gateway_api.rendering import spec_of
from penstock.adapters.kubernetes import Settings, manifests
from penstock.adapters.kubernetes.bases import Pulled
from penstock.config import ServiceConfig
from penstock.core.digest import digest
from penstock.core.fence import Fence
from penstock.core.pipeline import Intent, State
from penstock.core.release import Change, EnvironmentData, Release
from penstock.core.traffic import WHOLE, Backend, BackendState, Counters, TrafficPlan, TrafficState, Weight
from penstock.ports import Image, Task

ENVIRONMENT = "production"
COPIES = 2
#: Whoever is not there by then will not come.
SECONDS = 60.0
VERBS = {
    "deploy": deploy.perform,
    "shift": shift.perform,
    "promote": promote.perform,
    "rollback": rollback.undo,
}


def config(service: str) -> ServiceConfig:
    """Nobody is waited for when copies go: nothing is in flight here."""
    return ServiceConfig(service, replicas=COPIES, drain_seconds=1.0)


def pair(service: str, number: int) -> Release:
    data = EnvironmentData(service, ENVIRONMENT)
    return Release(service, ENVIRONMENT, digest(f"{service} {number}".encode()), data.digest)


class Images:
    """Artifacts that are all alike."""

    async def describe(self, artifact: str) -> Image:
        return Image(("serve",), config("web"))


class Uncounted:
    """Metrics, where there are no users."""

    async def counters(self, service: str, environment: str) -> tuple[Counters, ...]:
        return ()


class Lane:
    """One service, delivered again and again: *live* is what users have, if they have any."""

    def __init__(self, ours: Drivers, service: str, log: Path) -> None:
        self.live: Release | None = None
        self._service = service
        self._log = log
        self._number = 0
        self._powers = {
            "platform": ours.platform,
            "router": ours.router,
            "artifacts": Images(),
            "metrics": Uncounted(),
        }

    def next(self) -> Release:
        """A release that nobody has seen."""
        self._number += 1
        return pair(self._service, self._number)

    async def do(self, verb: str, new: Release, share: int = 0) -> None:
        action = VERBS[verb]
        names = inspect.signature(action).parameters.keys() & self._powers.keys()
        outcome = await action(self._task(verb, new, share), **{name: self._powers[name] for name in names})  # type: ignore[operator]
        if outcome.state is not State.SUCCESS:
            raise RuntimeError(f"{verb}: {outcome.reason}")
        if verb == "promote":
            self.live = new

    def _task(self, verb: str, new: Release, share: int) -> Task:
        return Task(
            delivery=f"{self._service}-{self._number}",
            intent=Intent(verb, verb, share=share),
            change=Change("code", self._service, ENVIRONMENT, "/repo", "1" * 40, "ada", "A change"),
            config=config(self._service),
            fence=Fence(f"{self._service}/{ENVIRONMENT}", self._number, "key"),
            work=self._log.parent,
            log=self._log,
            data=EnvironmentData(self._service, ENVIRONMENT),
            release=new,
            baseline=self.live,
        )


class Bare:
    """The same with the client alone. Weights are written over whatever is there."""

    def __init__(self, client: Client, service: str) -> None:
        self._client = client
        self._service = service
        self._state = TrafficState(service, ENVIRONMENT)

    async def deploy(self, new: Release) -> None:
        await self._placed(new, 1)
        backend = Backend(new.id, ("10.0.0.1:8080",))
        await self._led(self._state.exposing(backend))

    async def shift(self, new: Release, old: Release, share: int) -> None:
        await self._led(self._state.shifting(Weight(old.id, WHOLE - share), Weight(new.id, share)))

    async def promote(self, new: Release, gone: Release) -> None:
        """*gone* is the one before the last, if there is one by now; it is waited for."""
        await self._placed(new, COPIES)
        known = tuple(one for one in self._state.backends if one.release != gone.id)
        await self._led(replace(self._state, backends=known).settling(new.id))
        await self._client.delete(SERVICES, gone.id)
        if await self._client.delete(DEPLOYMENTS, gone.id):
            await self._ended(gone.id)

    async def _ended(self, release: str) -> None:
        there: set[str] = set()
        async with asyncio.timeout(SECONDS):
            async for seen in self._client.watch(PODS, labels=f"{manifests.RELEASE}={release}"):
                if isinstance(seen, Listed):
                    there = {pod["metadata"]["uid"] for pod in seen.items}
                elif seen.gone:
                    there.discard(seen.object["metadata"]["uid"])
                if not there:
                    return

    async def _placed(self, new: Release, copies: int) -> None:
        asked = workload(new, EnvironmentData(self._service, ENVIRONMENT), Image(("serve",), config("web")))
        fence = Fence(f"{self._service}/{ENVIRONMENT}", 1, "key")
        pulled, settings = Pulled(f"registry.test/web@{new.artifact}"), Settings("registry.test")
        wanted = manifests.deployment(asked, pulled, settings, self._client.namespace, fence)
        wanted["spec"] |= {"paused": False, "replicas": copies}
        wanted["spec"]["template"]["spec"]["containers"][0]["env"] = []
        made = await self._client.apply(DEPLOYMENTS, wanted)
        _, users = (value for kind, value in manifests.children(asked, made) if kind == SERVICES)
        await self._client.apply(SERVICES, users)  # it needs none for previews
        await self._until(ENDPOINT_SLICES, new.id, lambda piece: _ready(piece) == copies)

    async def _led(self, plan: TrafficPlan) -> None:
        ports = {backend.release: manifests.SERVICE_PORT for backend in plan.backends}
        spec = spec_of(plan, "token", ports, ATTACHED)
        metadata = {"name": self._service, "namespace": self._client.namespace}
        made = await self._client.apply(ROUTES, {"metadata": metadata, "spec": spec})
        generation = made["metadata"]["generation"]
        await self._until(ROUTES, self._service, lambda route: word_of(route, ATTACHED, generation).sure)
        self._state = TrafficState(
            self._service,
            ENVIRONMENT,
            plan.weights,
            tuple(BackendState(backend, 1, 1) for backend in plan.backends),
        )

    async def _until(self, kind: Kind, name: str, holds: Callable[[Object], bool]) -> None:
        async with asyncio.timeout(SECONDS):
            async for seen in self._client.watch(kind):
                for found in seen.items if isinstance(seen, Listed) else (seen.object,):
                    labels = found["metadata"].get("labels") or {}
                    named = name in (found["metadata"]["name"], labels.get("kubernetes.io/service-name"))
                    if named and holds(found):
                        return


def _ready(piece: Object) -> int:
    return sum((endpoint.get("conditions") or {}).get("ready") is True for endpoint in piece["endpoints"])
