"""The API of experiments: start one, and how one stands. Stopping one is aborting its delivery.

Called by `api`, and by `pages` for the pictures of a delivery that is one.
"""

from __future__ import annotations

import asyncio
import functools
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from penstock.analysis.experiment import Judgment, judge, ratio_bounds
from penstock.bootstrap.control import ControlPlane
from penstock.core.codec import encode
from penstock.core.experiment import Experiment
from penstock.core.release import PRODUCTION
from penstock.errors import Invalid
from penstock.experimentfile import parse_experiment
from penstock.server import views
from penstock.server.guard import login_of
from penstock.server.parameters import Text
from penstock.server.views import View

#: Looks of a picture.
MOST_POINTS = 60


class Start(BaseModel):
    """The text of an experiment's file, and what to call the file in errors."""

    source: Annotated[Text, Field(max_length=100_000)]
    name: Text = "experiment.yaml"
    environment: Text = PRODUCTION


def routes(api: APIRouter, control: ControlPlane) -> None:
    @api.post("/experiments")
    async def start(given: Start, request: Request) -> View:
        """Start an experiment, as a delivery."""
        identity = login_of(request).identity
        await control.operators.demand_any(identity, "experiment on")
        asked = parse_experiment(given.source.encode(), given.name)
        await control.operators.demand(identity, "experiment on", [asked.service])
        return {"delivery": await control.experiments.start(asked, given.environment, identity)}

    @api.get("/deliveries/{delivery}/experiment")
    async def stands(delivery: str) -> View:
        """How each variant stands, and how it came to that."""
        view = await views.delivery(control, delivery)
        if view["kind"] != "experiment":
            raise Invalid(f"{view['id']} is no experiment", next_move=f"penstock status {view['id']}")
        return {
            "delivery": view["id"],
            "state": view["state"],
            "outcome": view["outcome"],
            "title": view["change"]["title"],
            "says": next((s["reason"] for s in reversed(view["steps"]) if "/weigh/" in s["key"]), ""),
            "variants": await variants(control, view),
        }


async def variants(control: ControlPlane, view: View) -> list[View]:
    """The newest evidence on each variant of a delivery that is an experiment."""
    found: dict[str, Experiment] = {}
    async with control.store.transaction(write=False) as tx:
        for brief in view["evidence"]:
            if brief["type"] == Experiment.TYPE:
                predicate = (await control.ledger.entry(tx, brief["index"])).statement.predicate
                assert isinstance(predicate, Experiment)
                found[predicate.variant] = predicate
    return [await asyncio.to_thread(_told, look) for look in found.values()]


@functools.lru_cache(maxsize=64)
def _told(look: Experiment) -> View:
    control, variant = look.arms[0], next(arm for arm in look.arms if arm.name == look.variant)
    judged = judge(look)
    return {
        "experiment": look.experiment,
        "variant": look.variant,
        "release": variant.release,
        "verdict": look.verdict,
        "explanation": look.explanation,
        "look": look.look,
        "ended": look.ended,
        "goal": encode(look.goal),
        "expect": look.terms.expect,
        "bar": look.terms.bar,
        "control": {"users": control.users, "reached": control.reached},
        "users": variant.users,
        "reached": variant.reached,
        "srm": judged.srm,
        "more": judged.more,
        **_change(judged),
        "course": _course(look),
    }


def _change(judged: Judgment) -> dict[str, Any]:
    high = judged.ratio.high
    return {"seen": judged.seen, "low": judged.ratio.low, "high": high if high < 1e9 else None}


def _course(look: Experiment) -> list[View]:
    """Some of its looks: what was known of the ratio of the rates at each."""
    step = max(1, len(look.course) // MOST_POINTS)
    kept = [*look.course[:-1:step], *look.course[-1:]]
    control, variant = look.arms[0], next(arm for arm in look.arms if arm.name == look.variant)
    alpha, found = look.terms.alpha / (len(look.arms) - 1), []
    for at, users, reached, own_users, own_reached in kept:
        then = replace(control, reached=reached), replace(variant, reached=own_reached)
        bounds = ratio_bounds(*then, alpha, look.terms)
        found.append(
            {
                "at": at / 1000,
                "control": reached / users if users else None,
                "variant": own_reached / own_users if own_users else None,
                "low": bounds.low,
                "high": bounds.high if bounds.high < 1e9 else None,
            }
        )
    return found
