"""Looks after what nobody may be there to do: copies that are too many by now, and autoscalers.

Called by `driver` every second or so, of every worker: whoever comes second, or meets a delivery, leaves it.
Asks nothing of the API while nothing is due. Must never add a copy.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from penstock.adapters._kubernetes import Client, Object
from penstock.adapters._kubernetes.failures import Moved
from penstock.adapters._kubernetes.kinds import DEPLOYMENTS
from penstock.adapters._kubernetes.mirror import Mirror
from penstock.adapters.kubernetes import record
from penstock.adapters.kubernetes.autoscaling import Autoscaling
from penstock.adapters.kubernetes.copies import Copies
from penstock.adapters.kubernetes.record import COMPLETE
from penstock.errors import Conflict, PenstockError, Unavailable


class Tending:
    def __init__(self, client: Client, mirror: Mirror, copies: Copies, autoscaling: Autoscaling) -> None:
        self._client = client
        self._mirror = mirror
        self._copies = copies
        self._autoscaling = autoscaling
        #: What was looked after already, and to no avail: until it is another, asking again would not help.
        self._left: dict[str, tuple[str, object]] = {}

    def forget(self, release: str) -> None:
        self._left.pop(release, None)

    async def once(self) -> None:
        """One that cannot be looked after keeps nobody from the others: such are told together afterwards."""
        troubles: list[PenstockError] = []
        for seen in self._mirror.all(DEPLOYMENTS, record.MANAGED, "penstock"):
            name = seen["metadata"]["name"]
            now = seen["metadata"]["resourceVersion"], self._autoscaling.known(name)
            try:
                if self._left.get(name) != now and await self._is_due(seen):
                    await self._mend(name)
            except Unavailable:
                raise  # neither can the others be, and later this one can
            except Moved:
                pass  # somebody was faster, and next time more is known
            except PenstockError as error:
                self._left[name] = now
                troubles += [] if isinstance(error, Conflict) else [error]
        if troubles:
            raise _together(troubles)

    async def _is_due(self, seen: Object) -> bool:
        """What is not complete has no copies yet."""
        if COMPLETE not in seen["metadata"].get("annotations", {}):
            return False
        return _has_surplus(seen) or await self._autoscaling.is_behind(seen)

    async def _mend(self, name: str) -> None:
        """What was seen may be older than what is there: that is read, and is not written unless it stays."""
        live = await self._client.get(DEPLOYMENTS, name)
        if live is None or not await self._is_due(live):
            return
        if _has_surplus(live):
            asked = record.read_asked(live).at(time.time())
            count = min(asked.replicas, int(live["spec"]["replicas"]))
            await self._copies.set(live, record.read_fence(live), asked, count)
        else:
            await self._autoscaling.follow(live)


def _has_surplus(live: Object) -> bool:
    """Whether fewer copies are asked for by now than were at first."""
    asked = record.read_asked(live)
    return asked.at(time.time()).replicas < asked.replicas


def _together(troubles: Sequence[PenstockError]) -> PenstockError:
    """One error for all of them, with the first one's word and next move."""
    first, *others = troubles
    what = "; ".join([first.what, *(f"{error.where}: {error.what}" for error in others)])
    return type(first)(what, where=first.where, next_move=first.next_move)
