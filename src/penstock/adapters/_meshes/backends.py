"""Whether the releases of a plan can be reached: from their Services and EndpointSlices.

Called by the drivers of routers on Kubernetes. A release is a Service of its name, which its platform made;
a gateway sends requests to its ready endpoints alone. Must not write.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from penstock.adapters._kubernetes import Client, Object, previews
from penstock.adapters._kubernetes.kinds import ENDPOINT_SLICES, SERVICES
from penstock.core.traffic import Backend, BackendState, TrafficPlan
from penstock.errors import Invalid, Unavailable

#: A name's last part begins with a letter: 999.1.1.1 is neither an address nor a name.
HOST = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]{0,62}\.)*[A-Za-z][A-Za-z0-9-]{0,62}")
#: Where a Service says nothing else; it is only asked of one that is gone.
USUAL_PORT = 80
#: The label of an EndpointSlice that says whose endpoints it holds.
OF_SERVICE = "kubernetes.io/service-name"


@dataclass(frozen=True)
class Reached:
    """A release's Service: its *port* (0: there is none), and how many of its endpoints are *ready*, of those
    that are *there*. Whether its previews are led to another one, *apart*; then only what is ready in both
    is."""

    port: int
    ready: int
    apart: bool = True
    there: int = 0


async def look_up(client: Client, releases: tuple[str, ...]) -> dict[str, Reached]:
    """Each release as the API itself says: one question for each Service, and one for all endpoints."""
    if not releases:
        return {}
    names = dict.fromkeys(name for one in releases for name in (one, previews.service_of(one)))
    listed, services = await asyncio.gather(
        client.list(ENDPOINT_SLICES, labels=f"{OF_SERVICE} in ({','.join(names)})"),
        asyncio.gather(*(client.get(SERVICES, release) for release in releases)),
    )
    pieces: dict[str, list[Object]] = {name: [] for name in names}
    for piece in listed.items:
        pieces[piece["metadata"]["labels"][OF_SERVICE]].append(piece)
    named = zip(releases, services, strict=True)
    return {
        release: reached_by(service, pieces[release], pieces[previews.service_of(release)])
        for release, service in named
    }


def reached_by(service: Object | None, pieces: Sequence[Object], apart: Sequence[Object]) -> Reached:
    """A release with this Service (None: it has none): *pieces* are its EndpointSlices, *apart* those of the
    one for its previews."""
    if service is None:
        return Reached(0, 0)
    ready = _ready(pieces)
    if own := previews.has_own(service):
        ready = min(ready, _ready(apart))
    ports = service["spec"].get("ports") or [{"port": USUAL_PORT}]
    there = sum(one.get("terminating") is not True for one in _endpoints(pieces))
    return Reached(int(ports[0]["port"]), ready, own, there)


def _ready(pieces: Sequence[Object]) -> int:
    """Absent means ready, by the API's own words."""
    return sum(one.get("ready") is not False for one in _endpoints(pieces))


def _endpoints(pieces: Sequence[Object]) -> Iterator[Object]:
    """What is told of each."""
    return (one.get("conditions") or {} for piece in pieces for one in piece.get("endpoints") or ())


def ports_of(known: Mapping[str, Reached]) -> dict[str, int]:
    """Of each release's Service, and of that for its previews where there is one. Of one that is gone nobody
    knows; nobody is led there either."""
    ports = {release: found.port or USUAL_PORT for release, found in known.items()}
    own = {previews.service_of(name): ports[name] for name, found in known.items() if found.apart}
    return ports | own


def seen_at(backend: Backend, ports: Mapping[str, int]) -> str:
    """The Service that previews of it are led to."""
    own = previews.service_of(backend.release)
    return own if backend.addresses and own in ports else backend.release


def state_of(backend: Backend, known: Mapping[str, Reached]) -> BackendState:
    """All of its copies have to be ready, and never more of them than there are. Where their number changes,
    some of those that we were told of may have gone since, and are no lack."""
    found, total = known[backend.release], len(backend.addresses)
    if backend.elastic:
        total = min(total, found.there)
    return BackendState(backend, min(found.ready, total), total)


def new_to_users(plan: TrafficPlan, had: TrafficPlan | None) -> frozenset[str]:
    """Releases that users, or copies of what they ask, come to, and that had none in the plan before."""
    served = had.serving if had else frozenset()
    return (plan.serving - served) | ({plan.mirror.release} if plan.mirror else set())


def gaining(plan: TrafficPlan, had: TrafficPlan | None) -> frozenset[str]:
    """Releases with a larger share of users than in the plan before."""
    before = {weight.release: weight.share for weight in had.weights} if had else {}
    return frozenset(w.release for w in plan.weights if w.share > before.get(w.release, 0))


def check_reachable(plan: TrafficPlan, new: frozenset[str], known: Mapping[str, Reached]) -> None:
    """`Unavailable` if one that is *new* to users has a copy that is not ready."""
    for backend in plan.backends:
        if backend.release in new:
            found = state_of(backend, known)
            if not 0 < found.total == found.ready:
                raise Unavailable(
                    f"{found.ready} of {found.total} copies are ready: no traffic was moved",
                    where=f"service {backend.release}",
                    next_move=f"kubectl get endpointslices -l kubernetes.io/service-name={backend.release}",
                )


def check_addresses(plan: TrafficPlan) -> None:
    """`Invalid` for what can be no address in a cluster."""
    for backend in plan.backends:
        given = (*backend.addresses, *backend.draining, *(egress.address for egress in backend.egress))
        for address in given:
            host, _, port = address.removeprefix("http://").rstrip("/").rpartition(":")
            if not (port.isdecimal() and 0 < int(port) < 65536 and _host(host)):
                raise Invalid(
                    f"{address!r} is no address in a cluster",
                    where=backend.release,
                    next_move="HOST:PORT, such as 10.1.2.3:8080",
                )


def _host(host: str) -> bool:
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return len(host) <= 253 and HOST.fullmatch(host) is not None
    return True
