"""The router `istio`: writes the VirtualService of a service, and DestinationRules for releases with limits.

Found by entry point; what it does in which order is `Routed`'s. A DestinationRule belongs to the release's
Service, and goes with it. It must not make Services: those are the platform's.

Istio does not say when its proxies have what was written. That the API has accepted it is all that is waited
for; an error that its analysis has told of the same generation is a refusal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from penstock.adapters._kubernetes import MANAGER, Access, Client, Kind, Object
from penstock.adapters._meshes import written
from penstock.adapters._meshes.routed import Routed, Said, Word
from penstock.adapters.istio.reading import said, word_of
from penstock.adapters.istio.rendering import Meshed, limits_of, spec_of
from penstock.cluster import Cluster
from penstock.core.admission import NO_BREAKERS
from penstock.core.fence import Fence
from penstock.core.powers import Power
from penstock.core.traffic import Backend, Handling, TrafficPlan
from penstock.errors import Conflict

GROUP = "networking.istio.io"
ROUTES = Kind(GROUP, "v1", "virtualservices", "VirtualService")
#: The gateway of every sidecar.
MESH = "mesh"
LIMITS = Kind(GROUP, "v1", "destinationrules", "DestinationRule")


class Istio(Routed):
    """*meshed* says through which gateways users come, and by which name."""

    kind = ROUTES
    called = "Istio"
    powers: ClassVar[frozenset[Power]] = frozenset({"mirror", "retries", "breakers"})

    def __init__(self, client: Client, meshed: Meshed, *, seconds: float = 30.0, reach: str = "") -> None:
        super().__init__(client, seconds, reach)
        self._meshed = meshed

    @classmethod
    def of(cls, cluster: Cluster) -> Istio:
        client, at = Client(Access.of(cluster)), cluster.gateway
        name = at.name if at.name == MESH else f"{at.namespace or client.namespace}/{at.name}"
        return cls(client, Meshed((name,), at.host), reach=cluster.reach)

    def _spec(self, plan: TrafficPlan, token: str, ports: Mapping[str, int]) -> Object:
        return spec_of(plan, token, ports, self._meshed, self._client.namespace)

    def _said(self, spec: Object, usual: Handling) -> Said:
        return said(spec, usual)

    def _word(self, object: Object, generation: int) -> Word:
        return word_of(object, generation)

    async def _before(self, plan: TrafficPlan, had: TrafficPlan | None, fence: Fence) -> None:
        """A release's limits hold from when it is known. All are looked at before any is written; there are
        none of a release that has none now, and had none."""
        limited: list[tuple[Backend, Object | None]] = []
        was = {b.release for b in had.backends if b.breakers != NO_BREAKERS} if had else set()
        for backend in plan.backends:
            if backend.breakers == NO_BREAKERS and backend.release not in was:
                continue
            live = await self._client.get(LIMITS, backend.release)
            ours = live is None or bool(written.annotation(live, written.FENCE))
            where = f"{LIMITS.full} {backend.release}"
            if ours:
                written.check_fence(live, fence, where)
                limited.append((backend, live))
            elif backend.breakers != NO_BREAKERS:
                what = "there is one that Penstock did not write"
                raise Conflict(what, where=where, next_move="take it away, or leave the limits to it")
        for backend, live in limited:
            await self._limit(plan, backend, live, fence)

    async def _limit(self, plan: TrafficPlan, backend: Backend, live: Object | None, fence: Fence) -> None:
        if backend.breakers == NO_BREAKERS:
            if live is not None:
                await self._client.delete(LIMITS, backend.release, uid=live["metadata"]["uid"])
            return
        metadata: Object = {
            "name": backend.release,
            "namespace": self._client.namespace,
            "labels": {"app.kubernetes.io/managed-by": MANAGER, written.SERVICE: plan.service},
            "annotations": {written.FENCE: str(fence.number)},
            "ownerReferences": await self._owners(backend.release),
        }
        spec = limits_of(backend.release, backend.breakers, self._client.namespace)
        if live is None:
            await self._client.create(LIMITS, {"metadata": metadata, "spec": spec})
        else:
            metadata["resourceVersion"] = live["metadata"]["resourceVersion"]
            await self._client.apply(LIMITS, {"metadata": metadata, "spec": spec})

    async def _owners(self, release: str) -> list[Object]:
        """The release's Service: what is owned goes with it."""
        service = await self._sight.service(release)
        if service is None:
            return []
        owner = {"apiVersion": "v1", "kind": "Service", "name": release}
        return [{**owner, "uid": service["metadata"]["uid"]}]

    async def _address(self, service: str, environment: str) -> str:
        host = self._meshed.hostname(service, environment, self._client.namespace)
        return self._meshed.address.replace("{host}", host)
