"""What is kept of one release: its instances, and how many were asked for, now and later.

Kept by the driver, as JSON. Time is what the driver saw pass, never a clock: where that is set forward, or
the agent was away, no copy goes too early.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from penstock.adapters.processes.record import Record
from penstock.core.workload import Afterwards, Workload

#: More than this between two looks was no time of ours: the machine slept, or was too busy to look.
LONGEST = 5.0
#: What has passed is kept this often, seconds; what is asked for later comes so much later for each end of an
#: agent.
KEEP_SECONDS = 5.0


@dataclass(frozen=True)
class Asked:
    """*replicas* copies; *then* others, of which *waited* seconds have passed already."""

    replicas: int
    then: Afterwards = ()
    waited: float = 0.0

    def said(self, replicas: int, then: Afterwards) -> Asked:
        """What holds once this is asked for; the same once more changes nothing."""
        return self if (self.replicas, self.then) == (replicas, then) else Asked(replicas, then)

    def after(self, seconds: float) -> Asked:
        """What holds when *seconds* more have passed."""
        waited = self.waited + min(seconds, LONGEST)
        due = [later.replicas for later in self.then if later.seconds <= waited]
        left = tuple(later for later in self.then if later.seconds > waited)
        return Asked(min((self.replicas, *due)), left, waited)

    def worth_keeping(self, kept: Asked) -> bool:
        """Whether this says enough more than what was *kept*."""
        return self.then != kept.then or self.waited > kept.waited + KEEP_SECONDS


@dataclass
class Release:
    """*egress* are host ports, used only without a sandbox; *cut* says who was still at work when it was last
    ended. Those *leaving* were told to end, and have not yet."""

    workload: Workload
    instances: list[Record] = field(default_factory=list)
    egress: tuple[int, ...] = ()
    cut: str = ""
    asked: Asked | None = None
    leaving: list[Record] = field(default_factory=list)

    @property
    def wanted(self) -> Asked:
        """What was placed before this was kept is wanted as it is."""
        return self.asked or Asked(len(self.instances))

    @property
    def everybody(self) -> tuple[Record, ...]:
        return (*self.instances, *self.leaving)

    def take_off(self, replicas: int) -> list[Record]:
        """Those above *replicas*, which leave."""
        surplus, self.instances = self.instances[replicas:], self.instances[:replicas]
        self.leaving += surplus
        return surplus
