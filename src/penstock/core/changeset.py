"""Change sets: deliveries of several services that go to production together, or not at all.

The set is kept in the header of each of its deliveries; `decide` reads how far the others are in `Together`.
Must not know a journal, a worker or a clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

#: What became of a set, once and for all: everybody stays promoted, or everybody is undone.
Fate = Literal["", "kept", "undone"]

#: Services in one set at most: each of its deliveries reads the records of all others at every turn.
MOST_MEMBERS = 20


@dataclass(frozen=True)
class ChangeSet:
    """One delivery's part in a set. *members* are all its deliveries, those that are called before those
    that call them; *after* are those whose services this one calls."""

    id: str
    members: tuple[str, ...]
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Peer:
    """How far another delivery of the set is. Times are seconds since 1970; 0: not yet.

    It goes *first* if this one's service calls it, *later* if it calls this one's. Once it is *built*, its
    release is known. *exposed*: it may have users, and was not undone.
    """

    delivery: str
    first: bool = False
    later: bool = False
    built: float = 0.0
    deployed: float = 0.0
    tested: float = 0.0
    promoted: float = 0.0
    exposed: bool = False


@dataclass(frozen=True)
class Together:
    """What one delivery knows of its set. *decided* is when its *fate* was (seconds since 1970; 0: not yet),
    and *reason* why it was undone, with the delivery at fault."""

    peers: tuple[Peer, ...]
    fate: Fate = ""
    reason: str = ""
    decided: float = 0.0

    def ready(self, verb: str) -> float | None:
        """Since when the others let a stage of this verb begin (seconds since 1970); None: not yet.

        Dark releases of one set are tested together: they are put up once all are known, so that each knows
        the others from its first request on, and tested once all are up. Nobody has users before everybody
        has passed, and a caller not before all that it calls is promoted.
        """
        called = [peer for peer in self.peers if peer.first]
        match verb:
            case "deploy":
                times = [peer.built for peer in self.peers]
            case "acceptance":
                times = [peer.deployed for peer in self.peers]
            case "canary" | "promote" | "restore":
                times = [peer.tested for peer in self.peers] + [peer.promoted for peer in called]
            case _:
                times = []
        return max(times, default=0.0) if all(times) else None


def in_order(calls: Mapping[str, Sequence[str]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Each service of a set with those that come before it: what is called before what calls it.

    *calls* gives for each service, in the order in which people named them, the services that it calls.
    In a circle somebody has to go first: what is called by the one that was named first.
    """
    order: list[str] = []
    entered: set[str] = set()

    def enter(service: str) -> None:
        if service in entered:
            return
        entered.add(service)
        for callee in calls[service]:
            if callee in calls:
                enter(callee)
        order.append(service)

    for service in calls:
        enter(service)
    return tuple(
        (service, tuple(one for one in order[:place] if one in calls[service]))
        for place, service in enumerate(order)
    )
