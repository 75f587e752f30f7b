"""Where elastic releases are: a file for each, which Envoy reads while their clusters stay as they are.

Called by the driver, which writes the files. Pure: which plans differ only in that, what a file says, and a
backend as Envoy has it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from penstock.adapters.envoy import config
from penstock.adapters.envoy.admin import Hosts
from penstock.core.traffic import Backend, BackendState, TrafficPlan


def shape(backends: Iterable[Backend]) -> set[Backend]:
    """What clusters and listeners are made of: where elastic releases are is no part of it."""
    return {_anywhere(backend) for backend in backends}


def _anywhere(backend: Backend) -> Backend:
    return replace(backend, addresses=(), draining=()) if backend.elastic else backend


def elastic(plan: TrafficPlan | None) -> list[Backend]:
    return [backend for backend in plan.backends if backend.elastic] if plan else []


def resource(backend: Backend) -> config.Json:
    """What the file of an elastic release says."""
    return {"@type": config.ASSIGNMENT, **config.assignment(backend.release, backend)}


def state(backend: Backend, hosts: Hosts) -> BackendState:
    """A backend as Envoy has it; in our own order, or the next plan would be another one for no reason."""
    found = replace(
        backend,
        addresses=_ordered(backend.addresses, hosts.addresses),
        draining=_ordered(backend.draining, hosts.draining),
        breakers=hosts.breakers,
    )
    busy = tuple(address for address in found.draining if hosts.active[address])
    return BackendState(found, hosts.ready, len(hosts.addresses), sum(hosts.active.values()), busy)


def _ordered(ours: tuple[str, ...], there: tuple[str, ...]) -> tuple[str, ...]:
    known = tuple(address for address in ours if address in there)
    return (*known, *(address for address in there if address not in known))
