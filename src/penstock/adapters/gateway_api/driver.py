"""The router `gateway-api`: writes the HTTPRoute of a service, and waits until its gateway has confirmed it.

Found by entry point; what it does in which order is `Routed`'s. It must not make Services for releases: those
are the platform's.

The API can neither tell callers apart nor keep a user in his place, nor limit how many get in; a plan that
asks for that is refused by name. Counts are not its business: it is no `Metrics`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import ClassVar

from penstock.adapters._kubernetes import MANAGER, Access, Client, Kind, Object
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
#: An address is for people and tests. The Gateway is in the hands, and often the namespace, of others: to be
#: let watch what is there is more than that is worth.
ADDRESS_SECONDS = 60.0


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
        #: The listener that users come to, and when that was looked up.
        self._listener: tuple[float, Object] | None = None

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

    async def _before(self, plan: TrafficPlan, had: TrafficPlan | None, fence: Fence) -> None:
        """The Service that has no endpoints, if anybody is led there; other services may make it at the same
        moment."""
        if leads_nowhere(plan) and await self._sight.service(NOBODY) is None:
            port = {"name": "http", "port": NOBODY_PORT, "protocol": "TCP"}
            labels = {"app.kubernetes.io/managed-by": MANAGER}
            metadata = {"name": NOBODY, "namespace": self._client.namespace, "labels": labels}
            with contextlib.suppress(Conflict):
                await self._client.create(SERVICES, {"metadata": metadata, "spec": {"ports": [port]}})

    async def _address(self, service: str, environment: str) -> str:
        """By its name, at the port of the listener."""
        listener = await self._first_listener()
        if listener is None:
            return ""
        protocol, port = str(listener.get("protocol", "HTTP")).lower(), int(listener["port"])
        usual = {"http": 80, "https": 443}.get(protocol)
        hostname = self._attached.hostname(service, environment)
        return f"{protocol}://{hostname}{'' if port == usual else f':{port}'}"

    async def _first_listener(self) -> Object | None:
        """As it was `ADDRESS_SECONDS` ago at most; None if there is none."""
        at, now = self._attached, time.monotonic()
        if self._listener is None or now - self._listener[0] > ADDRESS_SECONDS:
            mine = self._listeners(await self._client.get(GATEWAYS, at.gateway, at.namespace))
            self._listener = (now, mine[0]) if mine else None
        return self._listener[1] if self._listener else None
