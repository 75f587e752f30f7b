"""The router `gateway-api`: writes the HTTPRoute of a service, and waits until its gateway has confirmed it.

Found by entry point; what it does in which order is `Routed`'s. It must not make Services for releases: those
are the platform's.

The API can neither tell callers apart nor keep a user in his place, nor limit how many get in; a plan that
asks for that is refused by name. Counts are not its business: it is no `Metrics`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import ClassVar

from penstock.adapters._kubernetes import Access, Client, Kind, Object
from penstock.adapters._kubernetes.kinds import SERVICES
from penstock.adapters._meshes.routed import Routed, Said, Word
from penstock.adapters.gateway_api.reading import said, word_of
from penstock.adapters.gateway_api.rendering import (
    GROUP,
    NOBODY,
    NOBODY_PORT,
    Attached,
    leads_nowhere,
    spec_of,
)
from penstock.cluster import Cluster
from penstock.core.fence import Fence
from penstock.core.powers import Power
from penstock.core.traffic import Handling, TrafficPlan
from penstock.errors import Conflict, Invalid

ROUTES = Kind(GROUP, "v1", "httproutes", "HTTPRoute")
GATEWAYS = Kind(GROUP, "v1", "gateways", "Gateway")
#: A gateway confirms in well under a second; one that does not in this time is not there.
SECONDS = 30.0


class GatewayApi(Routed):
    """*attached* says on which Gateway routes hang."""

    kind = ROUTES
    called = "the Gateway API"
    powers: ClassVar[frozenset[Power]] = frozenset({"mirror"})

    def __init__(
        self, client: Client, attached: Attached, *, seconds: float = SECONDS, reach: str = ""
    ) -> None:
        super().__init__(client, seconds, reach)
        self._attached = attached

    @classmethod
    def of(cls, cluster: Cluster) -> GatewayApi:
        client, at = Client(Access.of(cluster)), cluster.gateway
        attached = Attached(at.name, at.namespace or client.namespace, at.section, at.host)
        return cls(client, attached, reach=cluster.reach)

    async def check(self) -> None:
        await super().check()
        at = self._attached
        gateway = await self._client.get(GATEWAYS, at.gateway, at.namespace)
        where = f"{GATEWAYS.full} {at.namespace}/{at.gateway}"
        if gateway is None:
            move = f"kubectl get {GATEWAYS.plural} -A; then name one: gateway in the cluster's file"
            raise Invalid("there is no such Gateway", where=where, next_move=move)
        if not self._listeners(gateway):
            raise Invalid(f"it has no listener {at.section!r}", where=where, next_move="gateway.section")

    def _listeners(self, gateway: Object | None) -> list[Object]:
        """Those that routes hang on."""
        section = self._attached.section
        listeners = (gateway or {}).get("spec", {}).get("listeners") or ()
        return [listener for listener in listeners if section in ("", listener.get("name"))]

    def _spec(self, plan: TrafficPlan, token: str, ports: Mapping[str, int]) -> Object:
        return spec_of(plan, token, ports, self._attached)

    def _said(self, spec: Object, usual: Handling) -> Said:
        return said(spec, usual)

    def _word(self, object: Object, generation: int) -> Word:
        return word_of(object, self._attached, generation)

    async def _before(self, plan: TrafficPlan, fence: Fence) -> None:
        """The Service that has no endpoints, if anybody is led there; other services may make it at the same
        moment."""
        if leads_nowhere(plan) and await self._client.get(SERVICES, NOBODY) is None:
            port = {"name": "http", "port": NOBODY_PORT, "protocol": "TCP"}
            metadata = {"name": NOBODY, "namespace": self._client.namespace}
            with contextlib.suppress(Conflict):
                await self._client.create(SERVICES, {"metadata": metadata, "spec": {"ports": [port]}})

    async def _address(self, service: str, environment: str) -> str:
        """By its name, at the port of the listener."""
        at = self._attached
        gateway = await self._client.get(GATEWAYS, at.gateway, at.namespace)
        mine = self._listeners(gateway)
        if not mine:
            return ""
        protocol, port = str(mine[0].get("protocol", "HTTP")).lower(), int(mine[0]["port"])
        usual = {"http": 80, "https": 443}.get(protocol)
        return f"{protocol}://{at.hostname(service, environment)}{'' if port == usual else f':{port}'}"
