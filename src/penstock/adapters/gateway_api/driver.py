"""Writes the HTTPRoute of a service, waits until its gateway has confirmed it, and reads it back.

Found by entry point; called like any router. A route is changed whole and at once, so no order can lose a
request; what is checked first is that every release has all its copies ready. Each write says which version
it was made of and carries our fence; a field that somebody else has changed is never taken back by force. It
must not make Services: those are the platform's.

The API can neither tell callers apart nor keep a user in his place, nor limit how many get in; a plan that
asks for that is refused by name. Counts are not its business: it is no `Metrics`.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Mapping
from dataclasses import replace

from penstock.adapters._kubernetes import Client, Kind, Listed, Object
from penstock.adapters._kubernetes.kinds import SERVICES
from penstock.adapters._meshes import backends, written
from penstock.adapters.gateway_api.reading import Word, state_of, word_of
from penstock.adapters.gateway_api.rendering import GROUP, NOBODY, NOBODY_PORT, Attached, spec_of
from penstock.core.fence import Fence
from penstock.core.powers import Power, refuse_beyond
from penstock.core.traffic import TrafficPlan, TrafficState
from penstock.errors import Conflict, Invalid, Unavailable

ROUTES = Kind(GROUP, "v1", "httproutes", "HTTPRoute")
GATEWAYS = Kind(GROUP, "v1", "gateways", "Gateway")
POWERS: frozenset[Power] = frozenset({"mirror"})
#: A gateway confirms in well under a second; one that does not in this time is not there.
SECONDS = 30.0


class GatewayApi:
    """*attached* says on which Gateway routes hang. A change that is not confirmed within *seconds* is
    `Unavailable`."""

    def __init__(self, client: Client, attached: Attached, *, seconds: float = SECONDS) -> None:
        self._client = client
        self._attached = attached
        self._seconds = seconds

    async def read(self, service: str, environment: str) -> TrafficState:
        """As the route has it, with what differs from what was asked."""
        route = await self._client.get(ROUTES, written.object_name(service, environment))
        if route is None:
            return TrafficState(service, environment)
        asked = written.asked(route, _where(service, environment))
        known = await backends.look_up(self._client, tuple(b.release for b in asked.backends))
        return await self._state(route, asked, known)

    async def apply(self, plan: TrafficPlan, *, fence: Fence) -> TrafficState:
        """Write, have it confirmed, read back; where the gateway refuses it, put back what was there."""
        refuse_beyond(plan, POWERS, "the Gateway API")
        backends.check_addresses(plan)
        where = _where(plan.service, plan.environment)
        route = await self._client.get(ROUTES, written.object_name(plan.service, plan.environment))
        written.check_fence(route, fence, where)
        before = written.asked(route, where) if route else None
        known = await backends.look_up(self._client, tuple(b.release for b in plan.backends))
        backends.check_reachable(plan, before.serving if before else frozenset(), known)
        await self._nobody()
        new = await self._write(plan, fence, route, known)
        await self._confirm(new, route, where)
        return await self.read(plan.service, plan.environment)

    # --- writing -------------------------------------------------------------------------------------

    async def _write(
        self, plan: TrafficPlan, fence: Fence, route: Object | None, known: Mapping[str, backends.Reached]
    ) -> Object:
        token = written.annotation(route, written.TOKEN) if route else secrets.token_urlsafe(24)
        metadata = written.metadata(plan, fence.number, token, self._client.namespace)
        ports = {release: reached.port or backends.USUAL_PORT for release, reached in known.items()}
        object = {"metadata": metadata, "spec": spec_of(plan, token, ports, self._attached)}
        if route is None:
            return await self._client.create(ROUTES, object)
        metadata["resourceVersion"] = route["metadata"]["resourceVersion"]
        metadata["uid"] = route["metadata"]["uid"]
        return await self._client.apply(ROUTES, object)

    async def _confirm(self, new: Object, before: Object | None, where: str) -> None:
        word = word_of(new, self._attached, new["metadata"]["generation"])
        if not word.sure:
            word = await self._wait(new, word)
        if word.refused:
            await self._put_back(new, before)
            move = "the words are the gateway's; what was there before is there again"
            raise Invalid(f"the gateway refuses the route: {word.refused}", where=where, next_move=move)
        if not word.sure:
            raise Unavailable(
                f"the gateway has not confirmed the route in {self._seconds:g} s: {word.waits}",
                where=where,
                next_move=f"kubectl describe gateway {self._attached.gateway} -n {self._attached.namespace}",
            )

    async def _wait(self, new: Object, word: Word) -> Word:
        """Follow the route until its gateway has spoken, or time is up."""
        name, generation = new["metadata"]["name"], new["metadata"]["generation"]
        labels = f"{written.SERVICE}={new['metadata']['labels'][written.SERVICE]}"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._seconds):
                async for seen in self._client.watch(ROUTES, labels=labels):
                    found = seen.items if isinstance(seen, Listed) else (seen.object,)
                    for route in found:
                        if route["metadata"]["name"] != name:
                            continue
                        if route["metadata"]["generation"] > generation:
                            raise Conflict("somebody changed it meanwhile", where=name, next_move="read it")
                        word = word_of(route, self._attached, generation)
                        if word.sure or word.refused:
                            return word
        return word

    async def _put_back(self, new: Object, before: Object | None) -> None:
        """The plan before, as we wrote it; a route that is new goes."""
        metadata = new["metadata"]
        if before is None:
            await self._client.delete(ROUTES, metadata["name"], uid=metadata["uid"])
            return
        kept = written.metadata(
            written.asked(before, metadata["name"]),
            int(written.annotation(new, written.FENCE)),
            written.annotation(before, written.TOKEN),
            metadata["namespace"],
        )
        spec = {name: before["spec"][name] for name in new["spec"]}
        await self._client.apply(ROUTES, {"metadata": {**kept, "uid": metadata["uid"]}, "spec": spec})

    async def _nobody(self) -> None:
        """The Service that has no endpoints; other services may make it at the same moment."""
        if await self._client.get(SERVICES, NOBODY) is None:
            port = {"name": "http", "port": NOBODY_PORT, "protocol": "TCP"}
            metadata = {"name": NOBODY, "namespace": self._client.namespace}
            with contextlib.suppress(Conflict):
                await self._client.create(SERVICES, {"metadata": metadata, "spec": {"ports": [port]}})

    # --- reading -------------------------------------------------------------------------------------

    async def _state(
        self, route: Object, asked: TrafficPlan, known: Mapping[str, backends.Reached]
    ) -> TrafficState:
        token = written.annotation(route, written.TOKEN)
        ports = {release: found.port or _port_in(route, release) for release, found in known.items()}
        ours = spec_of(asked, token, ports, self._attached)
        changed = written.changed(route, ours)
        states = [backends.state_of(backend, known) for backend in asked.backends]
        found = state_of(route, ours, asked, states, changed)
        address = await self._address(asked.service, asked.environment)
        return replace(found, address=address, preview_token=token)

    async def _address(self, service: str, environment: str) -> str:
        """Where users find it: by its name, at the port of the listener."""
        at = self._attached
        gateway = await self._client.get(GATEWAYS, at.gateway, at.namespace)
        if gateway is None:
            return ""
        listeners = [
            one for one in gateway["spec"].get("listeners") or () if at.section in ("", one.get("name"))
        ]
        if not listeners:
            return ""
        protocol, port = str(listeners[0].get("protocol", "HTTP")).lower(), int(listeners[0]["port"])
        usual = {"http": 80, "https": 443}.get(protocol)
        return f"{protocol}://{at.hostname(service, environment)}{'' if port == usual else f':{port}'}"


def _port_in(route: Object, release: str) -> int:
    """The port that the route itself names for a release whose Service is gone."""
    refs = (ref for rule in route["spec"].get("rules") or () for ref in rule.get("backendRefs") or ())
    return next((int(ref["port"]) for ref in refs if ref.get("name") == release), backends.USUAL_PORT)


def _where(service: str, environment: str) -> str:
    return f"httproutes.{GROUP} {written.object_name(service, environment)}"
