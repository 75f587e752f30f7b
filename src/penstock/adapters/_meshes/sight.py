"""What a router sees of its cluster: from watches where they will do, of the API itself where they may not.

Called by `routed`. A watch tells soon what has happened, and nobody knows how soon; so no decision is made of
news that might be late:

* A route is read from the API. What a watch told last of it is only for a write, which names the version that
  it was made of, and for who waits until its controller has spoken.
* That a release is ready is believed of a watch, unless it is to get users, or more of them. That it is not,
  or not there, may be old: then the API is asked, and believed for `BELIEVED_SECONDS`.
* While watches are away the API is asked, as if there were none.

A right that is missing is raised. Must not write.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping

from penstock.adapters._kubernetes import MANAGER, Client, Kind, Object, previews
from penstock.adapters._kubernetes.kinds import ENDPOINT_SLICES, SERVICES
from penstock.adapters._kubernetes.mirror import Mirror
from penstock.adapters._meshes.backends import OF_SERVICE, Reached, look_up, reached_by
from penstock.errors import Unavailable

BELIEVED_SECONDS = 0.5
#: What Penstock made.
OURS = f"app.kubernetes.io/managed-by={MANAGER}"


class Sight:
    """Of routes of this *kind*, and of releases: the Services and EndpointSlices that a platform made."""

    def __init__(self, client: Client, kind: Kind) -> None:
        self._client = client
        self._kind = kind
        self._routes = Mirror(client, (kind,), OURS)
        self._releases = Mirror(client, (SERVICES, ENDPOINT_SLICES), OURS, _kept)
        #: What the API itself said of a release, and when.
        self._asked: dict[str, tuple[float, Reached]] = {}

    async def check(self) -> None:
        """Raise what would keep us from seeing anything: `Unavailable`, a missing right, an unknown kind."""
        await self._routes.ready()
        await self._releases.ready()

    async def close(self) -> None:
        await self._routes.close()
        await self._releases.close()

    # --- routes --------------------------------------------------------------------------------------

    async def ask(self, name: str) -> Object | None:
        """The route as it is now; None if it is not there."""
        found = await self._client.get(self._kind, name)
        return None if found is None else self.told(found)

    async def known(self, name: str) -> Object | None:
        """The last that is known of it, for a write. Begins to watch."""
        await _there(self._routes)
        return self._routes.get(self._kind, name) or await self.ask(name)

    def told(self, route: Object) -> Object:
        """The same, which the API has just answered with; that it is gone is left to the watch to tell."""
        self._routes.put(self._kind, route)
        return route

    async def until(self, name: str, look: Callable[[Object], bool], seconds: float) -> bool:
        """Show *look* the route as news of it come, until it is content; whether it was within *seconds*."""

        def once() -> bool | None:
            found = self._routes.get(self._kind, name)
            return (found is not None and look(found)) or None

        return bool(await self._routes.until(once, seconds))

    # --- releases ------------------------------------------------------------------------------------

    async def service(self, name: str) -> Object | None:
        """The Service of a release, or another of ours."""
        known = self._releases.get(SERVICES, name) if await _there(self._releases) else None
        return known or await self._client.get(SERVICES, name)

    async def reached(self, wanted: Mapping[str, int], sure: Collection[str] = ()) -> dict[str, Reached]:
        """Each release, of which so many copies are hoped to be ready; those of *sure* in any case as the API
        itself says."""
        found = await self._watched(wanted)
        doubtful: list[str] = []
        for release, count in wanted.items():
            seen, (when, told) = found.get(release), self._asked.get(release, NEVER)
            if release not in sure and seen is not None and seen.ready >= count:
                continue
            if release not in sure and _is_lately(when):
                found[release] = told
            else:
                doubtful.append(release)
        now = time.monotonic()
        answers = await look_up(self._client, tuple(doubtful))
        self._asked = {release: kept for release, kept in self._asked.items() if _is_lately(kept[0])}
        self._asked |= {release: (now, told) for release, told in answers.items()}
        return found | answers

    async def _watched(self, releases: Collection[str]) -> dict[str, Reached]:
        """Those that watches know of; none while they are away."""
        if not await _there(self._releases):
            return {}
        found: dict[str, Reached] = {}
        for release in releases:
            service = self._releases.get(SERVICES, release)
            if service is not None:
                apart = self._pieces(previews.service_of(release))
                found[release] = reached_by(service, self._pieces(release), apart)
        return found

    def _pieces(self, service: str) -> list[Object]:
        return self._releases.all(ENDPOINT_SLICES, OF_SERVICE, service)


def _kept(value: Object) -> Object:
    """Of a Service or an EndpointSlice, what says who it is, at which port, and which endpoints are ready."""
    metadata = value["metadata"]
    endpoints = [
        {"conditions": endpoint.get("conditions") or {}} for endpoint in value.get("endpoints") or ()
    ]
    return {
        "metadata": {
            **{name: metadata[name] for name in ("name", "uid", "resourceVersion")},
            "labels": {OF_SERVICE: (metadata.get("labels") or {}).get(OF_SERVICE, "")},
            "annotations": metadata.get("annotations") or {},
        },
        "spec": {"ports": (value.get("spec") or {}).get("ports") or []},
        "endpoints": endpoints,
    }


NEVER = (-BELIEVED_SECONDS, Reached(0, 0))


def _is_lately(when: float) -> bool:
    return time.monotonic() - when < BELIEVED_SECONDS


async def _there(mirror: Mirror) -> bool:
    """Whether it knows what there is."""
    try:
        await mirror.ready()
    except Unavailable:
        return False
    return True
