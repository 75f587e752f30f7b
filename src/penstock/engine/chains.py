"""Which dark releases a delivery is tested together with: those of its change set, and those named by hand.

Called before a release is deployed and before its acceptance. Who calls whom is what each dark release
declares, and for what has users what the data plane has; the journal says which releases are sought.
"""

from __future__ import annotations

from collections import deque

from penstock.core.chain import Link
from penstock.core.traffic import TrafficState
from penstock.engine.journal import Delivery, Journal
from penstock.errors import Invalid, Unavailable
from penstock.ports import Router, Store


async def chain(own: Delivery, *, store: Store, journal: Journal, router: Router) -> tuple[Link, ...]:
    """The dark releases that *own* calls, directly or further down, the nearest first.

    One that was named by hand and is not called is `Invalid`.
    """
    part = own.header.changeset
    names = dict.fromkeys((*(part.members if part else ()), *own.header.beside))
    names.pop(own.id, None)
    if not names or own.header.change.kind == "rollback":
        return ()
    async with store.transaction(write=False) as tx:
        others = [await journal.find(tx, name) for name in names]
    links, met = await _walk(own, {other.header.change.service: other for other in others}, router)
    _check_named(own, others, met)
    return links


async def _walk(
    own: Delivery, others: dict[str, Delivery], router: Router
) -> tuple[tuple[Link, ...], frozenset[str]]:
    """The links, and every service that is called. What dark releases call comes first: where several ways
    lead to a release, the one that needs nobody's help is the one that counts."""
    change, links = own.header.change, list[Link]()
    met = {change.service}
    ahead: deque[tuple[str, tuple[str, ...]]] = deque((callee, ()) for callee in _called_by(own))
    while ahead:
        service, past = ahead.popleft()
        if service in met:
            continue
        met.add(service)
        state, other = await router.read(service, change.environment), others.get(service)
        release = other.facts.release if other else None
        if other is not None and release is not None and release.id not in state.plan.serving:
            links.append(Link(release, past))
            ahead.extendleft((callee, ()) for callee in _called_by(other))
        else:
            ahead.extend((callee, (*past, service)) for callee in called_by_users_release(state))
    return tuple(links), frozenset(met)


def _called_by(dark: Delivery) -> list[str]:
    """What a dark release calls on this machine."""
    begun = dark.facts.begun
    mesh = begun.data.mesh if begun else None
    return [callee for callee in dark.header.config.calls if not (mesh and callee in mesh.calls)]


def called_by_users_release(state: TrafficState) -> list[str]:
    """What the releases of a service that have users call on this machine."""
    serving = state.plan.serving
    known = (found.backend for found in state.backends if found.release in serving)
    return [way.callee for backend in known for way in backend.egress if way.remote is None]


def _check_named(own: Delivery, others: list[Delivery], met: frozenset[str]) -> None:
    for other in (other for other in others if other.id in own.header.beside):
        service = other.header.change.service
        if service not in met:
            what = f"{own.header.change.service} does not call {service}, directly or further down"
            raise Invalid(f"{what}: it cannot be tested with {other.id}")
        if other.facts.release is None:
            raise Unavailable(f"{other.id} has no release yet that this one could be tested with")
