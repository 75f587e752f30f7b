"""Copies before users: a release gets a share of them only once enough of it is proven ready at the proxy.

Shared by the actions that move users; not an action. This only ever asks for more copies. Whoever looks after
the platform (on a machine the node's scaler) takes spare ones away.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from penstock.actions._placing import POLL_SECONDS, PROOF_SECONDS
from penstock.core.masking import masked
from penstock.core.release import Release
from penstock.core.traffic import WHOLE, TrafficState
from penstock.core.wording import plural
from penstock.core.workload import Later, Phase, Placement
from penstock.ports import Platform, Router, Task

#: Nobody is left on a release that is rolled back for longer than this, for want of copies of the other.
ROLLBACK_SECONDS = 20.0


@dataclass(frozen=True)
class Given:
    """*copies* of a release are proven ready; *lacking* says why it is not enough. *state* was read after."""

    state: TrafficState
    copies: int
    lacking: str = ""
    elastic: bool = False

    @property
    def in_words(self) -> str:
        """Copies as an afterthought; "" where there is only ever one."""
        return f", {plural(self.copies, 'copy')} ready" if self.elastic else ""


@dataclass(frozen=True)
class Capacity:
    """What an action may ask of platform and router. Copies are waited for as long as one may take to start,
    and not longer than for *patience* seconds."""

    task: Task
    router: Router
    platform: Platform
    patience: float = math.inf

    async def give(self, release: str, share: int, state: TrafficState, *, least: int = 0) -> Given:
        """*least* copies of *release*, and enough for *share* thousandths of the users that it has, or gets,
        together with the others *involved*; and the proxy's word for each. *state* is what was read just now.
        """
        placement = await self.platform.observe(release)
        if placement is None or not placement.elastic:
            if placement is not None and not state.ready(release):
                state = await self._back(placement)
            gone = "" if state.ready(release) else f"{release} does not answer the proxy any more"
            return Given(state, state.proven(release), gone)
        others = [await self.platform.observe(name) for name in self.task.involved if name != release]
        live = self.task.baseline.id if self.task.baseline else ""
        needed = max(least, _needed(placement, (placement, *others), state, share, live))
        rest = placement.full if share == WHOLE else needed
        before = placement
        placement = await self._settled(await self._asked(placement, needed, rest), needed)
        if placement is not before:  # that took its time
            state = await self._read()
        state = await self._proven(placement, needed, state)
        proven = state.proven(release)
        return Given(state, proven, self._lacking(placement, proven, needed), elastic=True)

    async def rest(self, release: Release | None) -> str:
        """Let a release that has lost its users keep its copies for a while, and fewer later. In words."""
        placement = await self.platform.observe(release.id) if release else None
        if placement is None:
            return ""
        warm, count = self.task.config.warm, len(placement.instances)
        then = warm.afterwards(count)
        if not then:
            return ""
        await self.platform.scale(placement.release, count, fence=self.task.fence, then=then)
        steps = (f"{later.replicas} after {later.seconds:g} s" for later in then)
        return f"; {placement.release} keeps {plural(count, 'copy')}, {', '.join(steps)}"

    async def _back(self, placement: Placement) -> TrafficState:
        """What the proxy says once the only copy, which a platform may have moved or started again, had time
        for it."""
        return await self._proven(await self._settled(placement, 1), 1, await self._read())

    async def _asked(self, placement: Placement, needed: int, rest: int) -> Placement:
        """Ask for copies that are missing, and hold those that load has added; later *rest* will do."""
        count = max(needed, len(placement.instances))
        if placement.asked >= needed and placement.floor >= rest and len(placement.instances) == count:
            return placement
        then = (Later(rest, self.task.config.warm.bake_seconds),) if count > rest else ()
        return await self.platform.scale(placement.release, count, fence=self.task.fence, then=then)

    async def _settled(self, placement: Placement, needed: int) -> Placement:
        # The platform itself gives up after the first.
        seconds = min(self.task.config.start_seconds + 5.0, self.patience)
        for _ in range(int(seconds / POLL_SECONDS)):
            if placement.able >= needed or placement.verdict:
                break
            await asyncio.sleep(POLL_SECONDS)
            placement = await self.platform.observe(placement.release) or placement
        return placement

    async def _proven(self, placement: Placement, needed: int, state: TrafficState) -> TrafficState:
        """Make copies that are ready known to the proxy, and wait until it has proven enough of them."""
        known = next((b.backend for b in state.backends if b.release == placement.release), placement.backend)
        there = {*known.addresses, *known.draining}
        ready = (i for i in placement.instances if i.phase is Phase.READY or i.address in there)
        backend = replace(known, addresses=tuple(i.address for i in ready), draining=())
        if backend.addresses != known.addresses or known.draining:
            state = await self.router.apply(state.exposing(backend), fence=self.task.fence)
        for _ in range(int(min(PROOF_SECONDS, self.patience) / POLL_SECONDS)):
            if state.proven(placement.release) >= min(needed, placement.able):
                break
            await asyncio.sleep(POLL_SECONDS)
            state = await self._read()
        return state

    def _lacking(self, placement: Placement, proven: int, needed: int) -> str:
        if proven >= needed:
            return ""
        why = f": {placement.reason}" if placement.reason else ""
        said = f"{placement.release} has {proven} of {needed} copies ready{why}"
        return masked(said, self.task.secrets)

    async def _read(self) -> TrafficState:
        change = self.task.change
        return await self.router.read(change.service, change.environment)


def _needed(
    placement: Placement, every: Sequence[Placement | None], state: TrafficState, share: int, live: str
) -> int:
    """How many copies *share* thousandths need, of as many as serve everybody now: load may have added some,
    to any release that has users; *live* is the one that they leave, or come back to."""
    serving = [one for one in every if one and one.release in state.plan.serving]
    together = sum(len(one.instances) for one in serving)
    shares = (0 if one.release == live else state.share(one.release) for one in serving)
    whole = max((_of_all(one, of) for one, of in zip(serving, shares, strict=True)), default=0)
    whole = min(max(placement.full, min(whole, together)), placement.most)
    return max(1, math.ceil(whole * share / WHOLE))


def _of_all(placement: Placement, share: int) -> int:
    """The fewest copies for everybody of which *share* thousandths would need as many as *placement* has. The
    release that users leave keeps those it had for all of them (*share* 0): to add up both would let the
    number grow with every switch."""
    count = len(placement.instances)
    return (count - 1) * WHOLE // share + 1 if share and count else count
