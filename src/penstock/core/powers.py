"""Optional abilities of a router, beyond weights and rules, and which of them a traffic plan needs.

Called by routers that lack some: they refuse a plan before they change anything, and name the part that they
cannot do. Pure; must not name a proxy.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Literal

from penstock.core.admission import ANYBODY, NO_BREAKERS
from penstock.core.traffic import Backend, Handling, TrafficPlan
from penstock.errors import Invalid

Power = Literal[
    "mirror", "sticky", "callers", "public", "rate", "breakers", "chains", "peers", "retries", "idle"
]
USUAL = Handling()
MOVE = "leave it out of penstock.yaml, or choose a router that can do it"


def refuse_beyond(plan: TrafficPlan, powers: Collection[Power], router: str) -> None:
    """Raise `Invalid` if *plan* asks for what is not among *powers* of the *router*, naming the first."""
    for power, what in asked(plan):
        if power not in powers:
            raise Invalid(
                f"{router} cannot do this: {what}",
                where=f"{plan.service}/{plan.environment}",
                next_move=MOVE,
            )


def asked(plan: TrafficPlan) -> Iterator[tuple[Power, str]]:
    """Each power that a plan asks for, and the part of it that does, as ``penstock.yaml`` has it."""
    if plan.mirror is not None:
        yield "mirror", "traffic.mirror (copies of requests)"
    if plan.sticky:
        yield "sticky", "traffic.sticky, or an experiment (users who keep their place)"
    for backend in plan.backends:
        yield from _of_backend(backend)
    for handling in (plan.handling, *(backend.handling for backend in plan.backends if backend.handling)):
        if handling.retries != USUAL.retries:
            yield "retries", f"traffic.retries: {handling.retries}"
        if handling.idle_seconds != USUAL.idle_seconds:
            yield "idle", f"traffic.idle_seconds: {handling.idle_seconds:g}"


def _of_backend(backend: Backend) -> Iterator[tuple[Power, str]]:
    admission = backend.admission
    if admission.callers is not None:
        yield "callers", "traffic.callers (who may call)"
    if not admission.public:
        yield "public", "traffic.public: false (users kept out)"
    if admission.per_second != ANYBODY.per_second:
        yield "rate", "traffic.rate (requests a second)"
    if backend.breakers != NO_BREAKERS:
        yield "breakers", "traffic.most_requests or most_connections"
    if backend.chain:
        yield "chains", "dark releases that call one another"
    if backend.export is not None or any(egress.remote for egress in backend.egress):
        yield "peers", "calls between machines"
