"""The API of canaries: what one would be able to show, and what would have been said of an earlier one.

Called by `api`, and by `pages` for the picture of a delivery's canary.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from penstock.analysis.plan import Traffic, expect, foresee
from penstock.analysis.replay import Replayed, replay
from penstock.analysis.spans import spans_of
from penstock.bootstrap.control import ControlPlane
from penstock.checks.sampled import Where, counted
from penstock.core.canary import Count, Latencies, Row, Rule, Series
from penstock.core.canaryconfig import CanaryConfig
from penstock.core.codec import decode, encode
from penstock.core.predicates import Look
from penstock.core.release import PRODUCTION
from penstock.core.traffic import Counters
from penstock.core.verdict import Verdict
from penstock.engine.plans import canary_plan
from penstock.errors import Invalid
from penstock.ledger.live import live
from penstock.server import views
from penstock.server.views import View

#: Looks of a picture.
MOST_POINTS = 60
Seconds = Annotated[float, Field(ge=0.1, le=30.0)]


class Plan(BaseModel):
    """For how long traffic is watched, and the section ``canary`` to plan for (None: of what is live)."""

    seconds: Seconds = 3.0
    canary: dict[str, Any] | None = None


class Again(BaseModel):
    """The ``canary`` section to judge by (None: the rule of then)."""

    canary: dict[str, Any] | None = None


def routes(api: APIRouter, control: ControlPlane) -> None:
    @api.post("/services/{service}/canary/plan")
    async def plan(service: str, given: Plan) -> View:
        """What a canary of this service would show, at the traffic that it has now."""
        config = await _config(control, service, given.canary)
        before, counted = await _counted(control, service, config)
        await asyncio.sleep(given.seconds)
        after, later = await _counted(control, service, config)
        canary, rule = canary_plan(config), config.rule()
        found = await asyncio.to_thread(foresee, Traffic.between(before, after), canary, rule)
        own = [
            expect(metric, since, until, canary, rule)
            for metric, since, until in zip(config.metrics, counted, later, strict=True)
        ]
        reachable = found.reachable and all(metric.reachable for metric in own)
        view = {"service": service, **encode(found), "reachable": reachable, "words": found.words}
        return {**view, "metrics": encode(own)}

    @api.post("/deliveries/{delivery}/canary/replay")
    async def replayed(delivery: str, given: Again) -> View:
        """The looks of a delivery's canary, judged again."""
        view = await views.delivery(control, delivery)
        kept = await looks(control, view)
        look = kept[-1] if kept else None
        if look is None or look.rule is None:
            raise Invalid(
                f"{view['id']} has no canary that could be judged again",
                next_move="its looks are from before looks were kept, or nobody looked",
            )
        config = _decoded(given.canary) if given.canary is not None else None
        rule = _again(config, look.rule) if config else look.rule
        found = await _judged(kept, rule)
        then = {"verdict": look.verdict, "reason": look.explanation}
        return {"delivery": view["id"], "then": then, **_told(found)}


async def picture(control: ControlPlane, view: View) -> Replayed | None:
    """What the page of a delivery shows of its canary; None if it had none that can be judged again."""
    kept = await looks(control, view)
    if not kept or kept[-1].rule is None:
        return None
    return await _judged(kept, kept[-1].rule, MOST_POINTS)


async def _judged(kept: Sequence[Look], rule: Rule, most: int = 0) -> Replayed:
    histograms = ((len(look.spans or ()), look.latencies) for look in kept if look.latencies is not None)
    last = kept[-1]
    return await asyncio.to_thread(
        _replayed, last.spans or (), rule, most, tuple(histograms), last.series or ()
    )


@functools.lru_cache(maxsize=64)
def _replayed(
    spans: tuple[Row, ...],
    rule: Rule,
    most: int,
    histograms: tuple[tuple[int, Latencies], ...],
    series: tuple[Series, ...],
) -> Replayed:
    return replay(spans_of(spans), rule, most, dict(histograms), series)


def _again(config: CanaryConfig, then: Rule) -> Rule:
    """The rule of another plan. Its quantiles are those of then, for only what is above their bounds was
    counted; or none."""
    rule = config.rule(then.slow_ms)
    asked = {quantile.level: quantile for quantile in rule.judged}
    if asked and asked.keys() != {quantile.level for quantile in then.judged}:
        raise Invalid(
            f"requests were counted for {', '.join(q.name for q in then.judged) or 'no quantile'} then",
            where="canary.judge.quantiles",
            next_move="ask for the same quantiles, or for none",
        )
    judged = (replace(asked[q.level], above_ms=q.above_ms) for q in then.judged if asked)
    return replace(rule, quantiles=tuple(judged) or None)


async def looks(control: ControlPlane, view: View) -> list[Look]:
    """The looks of a delivery that keep what they were judged by, in order."""
    found = []
    async with control.store.transaction(write=False) as tx:
        for entry in view["evidence"]:
            if entry["type"] == Look.TYPE:
                predicate = (await control.ledger.entry(tx, entry["index"])).statement.predicate
                if isinstance(predicate, Look) and predicate.spans:
                    found.append(predicate)
    return found


def _told(found: Replayed) -> View:
    empty = dict.fromkeys(("new_rate", "stable_rate", "effect", "low", "high", "margin"))
    looks = [{**empty, **encode(look)} for look in found.looks]
    return {"stopped": found.stopped, "verdict": found.verdict, "reason": found.reason, "looks": looks}


async def _counted(
    control: ControlPlane, service: str, config: CanaryConfig
) -> tuple[Counters, list[Count | Verdict]]:
    """What the proxy and the meters have counted of what is live."""
    stable = await _stable(control, service)
    where = Where(service, PRODUCTION, control.meters)
    return stable, await asyncio.gather(*(counted(metric, where, stable) for metric in config.metrics))


async def _stable(control: ControlPlane, service: str) -> Counters:
    """The counters of what is live: all users are its."""
    async with control.store.transaction(write=False) as tx:
        now_live = await live(control.ledger, tx, service, PRODUCTION)
    counted = await control.metrics.counters(service, PRODUCTION)
    found = [c for c in counted if now_live is not None and c.release == now_live.release.id]
    if not found:
        raise Invalid(
            f"{service} has no release with users in {PRODUCTION}",
            next_move="a first release has no canary: there is nothing to compare it with",
        )
    return found[0]


async def _config(control: ControlPlane, service: str, given: dict[str, Any] | None) -> CanaryConfig:
    if given is not None:
        return _decoded(given)
    async with control.store.transaction(write=False) as tx:
        now_live = await live(control.ledger, tx, service, PRODUCTION)
    if now_live is None:
        known = ", ".join(name for name, _ in await views.services(control)) or "none yet"
        raise Invalid(f"{service} is not live; services: {known}")
    return (await control.artifacts.describe(now_live.release.artifact)).config.canary


def _decoded(given: dict[str, Any]) -> CanaryConfig:
    config = decode(CanaryConfig, given, "canary")
    config.check()
    return config
