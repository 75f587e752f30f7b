"""Decides how many copies of each release run: at least what was asked for, and more as load needs them.

Called by the node agent every second, also without a control plane, and under the service's lock. Nothing
else sets this number: deliveries only say how many there must be at least, now and later, and only this takes
a copy away from a release that has users. A new copy gets users once it is ready. A copy that goes is first
sent nothing new, and is ended when it has answered what it had.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Protocol

from penstock.core.fence import Fence
from penstock.core.traffic import WHOLE, Backend, BackendState, TrafficState
from penstock.core.workload import Phase, Placement
from penstock.errors import Conflict
from penstock.ports import Platform, Router

log = logging.getLogger(__name__)


class Resizable(Platform, Protocol):
    """A platform whose copies somebody else counts."""

    async def resize(self, release: str, count: int) -> Placement:
        """Run *count* copies, but not fewer than were asked for, nor more than are allowed.

        Those too many are told to end; nobody waits for that.
        """


@dataclass
class Seen:
    """What was seen of one release: requests in flight at times, and since when copies drain."""

    loads: deque[tuple[float, int]] = field(default_factory=deque)
    draining: dict[str, float] = field(default_factory=dict)

    def peak(self, now: float, active: int, seconds: float) -> int | None:
        """The most in flight within *seconds*; None if it was not watched for so long."""
        self.loads.append((now, active))
        while len(self.loads) > 1 and self.loads[1][0] <= now - seconds:
            self.loads.popleft()
        return max(load for _, load in self.loads) if self.loads[0][0] <= now - seconds else None


def least(placement: Placement, share: int) -> int:
    """Copies that there are whatever the load: those asked for, and those that its share of users needs."""
    return min(placement.most, max(placement.asked, math.ceil(placement.full * share / WHOLE)))


def wanted(placement: Placement, state: TrafficState, known: BackendState, peak: int | None) -> int:
    """How many copies there should be next: one more or one less than now, if any."""
    count, share = len(placement.instances), state.share(placement.release)
    fewest, scaling = least(placement, share), placement.scaling
    if count < fewest:
        return fewest
    if not (share and scaling.in_flight):
        return max(fewest, count - 1)
    # Those that were added last must have their part of the load before it says anything.
    proven = known.ready == placement.able == count
    if proven and known.active > scaling.in_flight * count:
        return min(placement.most, count + 1)
    if peak is None or math.ceil(peak / scaling.in_flight) >= count:
        return count
    return max(fewest, count - 1)


class Scaler:
    """Keeps in memory only what it saw lately: after a restart it looks for a while before it takes away."""

    def __init__(
        self, platform: Resizable, router: Router, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._platform = platform
        self._router = router
        self._clock = clock
        self._seen: dict[str, dict[str, Seen]] = {}

    async def look(self, fence: Fence, releases: Collection[str]) -> None:
        """One step for each of *releases*, which are of the service and environment of *fence*."""
        service, _, environment = fence.scope.partition("/")
        before = self._seen.get(fence.scope, {})
        self._seen[fence.scope] = {release: before.get(release, Seen()) for release in releases}
        for release in releases:
            # Read again for each: a plan is made of what is there.
            state = await self._router.read(service, environment)
            if state.asked is not None:  # to be recorded as it is put right, by a delivery
                raise Conflict(state.drift, where=fence.scope, next_move="the next delivery puts it right")
            known = next((known for known in state.backends if known.release == release), None)
            placement = await self._platform.observe(release)
            if known is not None and placement is not None:
                await self._step(fence, state, known, placement)

    async def _step(
        self, fence: Fence, state: TrafficState, known: BackendState, placement: Placement
    ) -> None:
        now, seen = self._clock(), self._seen[fence.scope][placement.release]
        peak = seen.peak(now, known.active, placement.scaling.idle_seconds)
        count = wanted(placement, state, known, peak)
        if count > len(placement.instances):
            log.info("%s: %d copies, %d requests in flight", placement.release, count, known.active)
            placement = await self._platform.resize(placement.release, count)
        backend = _reached(known, placement, count)
        # A deployment in between has given those users again, whatever was seen before.
        since = {address: seen.draining.get(address, now) for address in known.backend.draining}
        seen.draining = {address: since.get(address, now) for address in backend.draining}
        patient = now - placement.drain_seconds
        # One that was told only now to drain may have been given something in this moment.
        gone = all(
            since < now and (since <= patient or address not in known.busy)
            for address, since in seen.draining.items()
        )
        backend = replace(backend, draining=() if gone else backend.draining)
        if backend != known.backend:
            await self._router.apply(state.exposing(backend), fence=fence)
        if gone and count < len(placement.instances):
            log.info("%s: %d copies, %d requests in flight", placement.release, count, known.active)
            await self._platform.resize(placement.release, count)


def _reached(known: BackendState, placement: Placement, count: int) -> Backend:
    """The backend as the proxy should have it: the first *count* copies, as far as they were ever ready; the
    others drain."""
    backend = known.backend
    if not (backend.addresses or backend.draining):
        return backend  # an action took it out: it is on its way to its end
    before = {*backend.addresses, *backend.draining}
    stay, go = placement.instances[:count], placement.instances[count:]
    return replace(
        backend,
        addresses=tuple(i.address for i in stay if i.phase is Phase.READY or i.address in before),
        draining=tuple(i.address for i in go if i.address in before),
    )
