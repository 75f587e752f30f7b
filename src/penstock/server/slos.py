"""The API and the page for objectives: those in force, and how each stands.

Called by `api` and `pages`. Publishing is saying: see `people`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter

from penstock.analysis.budget import Bucket, within
from penstock.bootstrap.control import ControlPlane
from penstock.core.codec import encode
from penstock.core.objectives import ENVIRONMENT, Objective, SloInForce
from penstock.errors import Invalid
from penstock.ledger import slos
from penstock.server.parameters import Limit
from penstock.server.views import View, services
from penstock.telemetry.standing import seen, whole

#: The picture of a window has so many points; its size is in the template.
POINTS = 60
#: A service with a window of 28 days takes some milliseconds.
PAGE = 100


def routes(api: APIRouter, control: ControlPlane) -> None:
    @api.get("/slos")
    async def listed(after: str = "", limit: Limit = PAGE) -> View:
        """The services that have objectives, by name, those after *after*."""
        return {"services": await every(control, after, limit)}

    @api.get("/slos/{service}")
    async def of_service(service: str) -> View:
        found = await one(control, service)
        if not found["slos"]:
            known = {name for name, _ in await services(control)} | set(await _with_objectives(control))
            if service not in known:
                names = ", ".join(sorted(known)) or "none yet"
                raise Invalid(f"no service {service!r}; there are: {names}", next_move="penstock status")
        return found


async def every(control: ControlPlane, after: str = "", limit: int = PAGE) -> list[View]:
    """How the objectives of so many services stand, by name: those after *after*."""
    listed = [service for service in await _with_objectives(control) if service > after]
    return [await one(control, service) for service in listed[:limit]]


async def one(control: ControlPlane, service: str) -> View:
    """How a service's objectives stand, their texts, and what the last window used of each budget."""
    async with control.store.transaction(write=False) as tx:
        held = slos.in_force(await control.ledger.authority(tx), service)
        now = await tx.now()
        found = [await seen(tx, objective, slo.index) for slo, objective in held]
    budget = whole(service, [standing for standing, _ in found])
    texts = {slo.name: slo for slo, _ in held}
    return {
        "service": service,
        "environment": ENVIRONMENT,
        "verdict": budget.verdict if held else None,
        "explanation": budget.explanation,
        "slos": [_slo(slo) for slo in texts.values()],
        "objectives": [
            {
                "left": None,
                **encode(standing),
                "within_ms": objective.within_ms or None,
                "course": course(counted, objective, now),
            }
            for (_, objective), (standing, counted) in zip(held, found, strict=True)
        ],
    }


def _slo(held: SloInForce) -> View:
    return {"name": held.name, "index": held.index, "digest": held.digest, "source": held.source}


async def _with_objectives(control: ControlPlane) -> Sequence[str]:
    async with control.store.transaction(write=False) as tx:
        return slos.services(await control.ledger.authority(tx))


def course(counted: Sequence[Bucket], objective: Objective, now: float) -> list[float]:
    """What was left of the window's budget after each part of it: 1 at first, below 0 if exhausted."""
    since = now - objective.window
    whole_window = within(counted, since)
    allowed = objective.allowed * whole_window.total
    if not allowed:
        return [1.0] * (POINTS + 1)
    after = (within(counted, since + objective.window * point / POINTS).bad for point in range(POINTS + 1))
    return [round(1.0 - max(0, whole_window.bad - bad) / allowed, 4) for bad in after]


def picture(course: Sequence[float]) -> dict[str, Any]:
    """Points of an SVG of 100 by 100 (0 at its foot is nothing left), drawn without a script."""
    low = min(0.0, *course)
    height = 1.0 - low
    points = [
        f"{100 * number / (len(course) - 1):.1f},{100 * (1.0 - left) / height:.1f}"
        for number, left in enumerate(course)
    ]
    return {"line": " ".join(points), "zero": round(100 / height, 1)}
