"""Where elastic releases are: a file for each, which Envoy reads while their clusters stay as they are.

Called by the driver, which writes the files. Pure: which plans differ only in that, and what a file says.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from penstock.adapters.envoy import config
from penstock.core.traffic import Backend, TrafficPlan


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
