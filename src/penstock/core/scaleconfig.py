"""The sections ``replicas``, ``scaling`` and ``warm`` of ``penstock.yaml``: how many copies run, and when.

A part of `config`, which reads it; actions and the node follow it. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.core.workload import Afterwards, Later, Limits, Scaling
from penstock.errors import Invalid

FILE = "penstock.yaml"
MOST_COPIES = 64
#: A day: nobody keeps what was replaced at full strength for longer.
MOST_BAKE = 86400.0
MOST_WARM = 30 * MOST_BAKE
#: Copies at their limit use 100 percent, and clusters take a tenth more than was asked for as the same: above
#: this, nothing would ever be added.
MOST_CPU = 90


@dataclass(frozen=True)
class WarmConfig:
    """What the release that is replaced keeps, to be gone back to: all its copies for *bake_seconds*, then
    *replicas* of them; after *seconds* more none (0: until the next delivery)."""

    bake_seconds: float = 300.0
    replicas: int = 1
    seconds: float = 0.0

    def afterwards(self, count: int) -> Afterwards:
        """What is asked for later of a release that has *count* copies now."""
        found = [Later(self.replicas, self.bake_seconds)] if self.replicas < count else []
        if self.seconds and self.replicas and count:
            found.append(Later(0, self.bake_seconds + self.seconds))
        return tuple(found)

    def check(self) -> None:
        """Raise `Invalid`, naming the field."""
        if not 0 <= self.bake_seconds <= MOST_BAKE:
            found = f"from 0 to {MOST_BAKE:g}, found {self.bake_seconds:g}"
            raise Invalid(found, where=f"{FILE}: warm.bake_seconds")
        if not 0 <= self.replicas <= MOST_COPIES:
            found = f"from 0 to {MOST_COPIES}, found {self.replicas}"
            raise Invalid(found, where=f"{FILE}: warm.replicas")
        if not 0 <= self.seconds <= MOST_WARM:
            found = f"from 0 to {MOST_WARM:g} (0: until the next delivery), found {self.seconds:g}"
            raise Invalid(found, where=f"{FILE}: warm.seconds")


KEPT_WARM = WarmConfig()


def check_scaling(replicas: int, scaling: Scaling, limits: Limits) -> None:
    """Raise `Invalid`, naming the field."""
    if not 1 <= replicas <= MOST_COPIES:
        raise Invalid(f"replicas must be from 1 to {MOST_COPIES}, found {replicas}", where=FILE)
    where = f"{FILE}: scaling"
    if scaling.most and not replicas <= scaling.most <= MOST_COPIES:
        found = f"from replicas ({replicas}) to {MOST_COPIES}, found {scaling.most}"
        raise Invalid(found, where=f"{where}.most")
    measured = scaling.in_flight or scaling.cpu is not None
    if scaling.in_flight < 0 or (scaling.most > replicas and not measured):
        move = "say how many requests one copy is to have at once: in_flight: 20; or in a cluster cpu: 70"
        raise Invalid("1 or more", where=f"{where}.in_flight", next_move=move)
    _check_cpu(scaling.cpu, limits, f"{where}.cpu")
    if measured and scaling.most <= replicas:
        move = f"give it room: most: {2 * replicas}"
        raise Invalid(f"no copy can be added to replicas ({replicas})", where=f"{where}.most", next_move=move)
    if not 1 <= scaling.idle_seconds <= 3600:
        raise Invalid(f"from 1 to 3600, found {scaling.idle_seconds:g}", where=f"{where}.idle_seconds")


def _check_cpu(cpu: int | None, limits: Limits, where: str) -> None:
    if cpu is None:
        return
    if not 1 <= cpu <= MOST_CPU:
        raise Invalid(f"from 1 to {MOST_CPU} percent of limits.cpus, found {cpu}", where=where)
    if not limits.cpus:
        move = "say how much processor time one copy may use: limits: {cpus: 0.5}"
        raise Invalid("it is a part of limits.cpus, which is not given", where=where, next_move=move)
