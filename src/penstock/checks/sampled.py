"""Reads a service's own metrics from their meters. Whatever goes wrong becomes UNKNOWN with its cause.

Called by `canary`, and by the server for its plans. Must not judge what was counted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penstock.analysis.readings import ABSENT
from penstock.analysis.series import unusable
from penstock.core.canary import Count, Part, Sample
from penstock.core.canaryconfig import Metric
from penstock.core.traffic import Counters
from penstock.core.verdict import Cause, Verdict, unknown
from penstock.errors import Invalid, PenstockError, Refused, Unavailable
from penstock.ports import Meter

#: No meter is waited for longer, whatever its adapter does.
METER_SECONDS = 15.0


@dataclass(frozen=True)
class Where:
    """Whose metrics these are, and by whom they are counted."""

    service: str
    environment: str
    meters: Mapping[str, Meter]
    seconds: float = METER_SECONDS


async def samples(
    metrics: Sequence[Metric], where: Where, new: Counters, stable: Counters
) -> list[Sample | Verdict]:
    """Each of *metrics* for both releases, or why it cannot be told. *new* and *stable* are what the proxy
    has counted. `Invalid` for a metric that nobody could count."""
    return await asyncio.gather(*(_sample(metric, where, new, stable) for metric in metrics))


async def _sample(metric: Metric, where: Where, new: Counters, stable: Counters) -> Sample | Verdict:
    both = await asyncio.gather(counted(metric, where, new), counted(metric, where, stable))
    for count in both:
        if isinstance(count, Verdict):
            return count
    counts = [count for count in both if isinstance(count, Count)]
    sample = Sample(metric.name, time.time(), *counts)
    return unusable(sample, metric) or sample


async def counted(metric: Metric, where: Where, counters: Counters) -> Count | Verdict:
    """What a metric's meter has counted of the release of *counters*, or why it cannot be told."""
    meter = meter_of(metric, where.meters)
    try:
        async with asyncio.timeout(where.seconds):
            count = await meter.count(metric, where.service, where.environment, counters.release)
    except TimeoutError:
        return unknown(Cause.ERROR, f"{metric.name}: {metric.source} gave no answer in {where.seconds:g} s")
    except (Unavailable, Refused) as error:
        return unknown(Cause.ERROR, f"{metric.name}: {in_a_line(error)}")
    if count is None:
        words = f"{metric.name}: {metric.source} has counted nothing of {counters.release}"
        return unknown(Cause.MISSING, words)
    return _among(metric, count, counters) if metric.among_requests else count


def meter_of(metric: Metric, meters: Mapping[str, Meter]) -> Meter:
    """Who counts it. `Invalid` if nobody does."""
    if metric.source not in meters:
        known = ", ".join(meters) or "none"
        raise Invalid(
            f"metric {metric.name}: nobody counts {metric.source} here; there are: {known}",
            next_move="penstock up --prometheus URL connects a Prometheus; others are adapters",
        )
    return meters[metric.source]


def in_a_line(error: PenstockError) -> str:
    return str(error).replace("\n  next: ", "; next: ")


def _among(metric: Metric, count: Count, counters: Counters) -> Count | Verdict:
    """The same, among the user requests that the proxy has counted: its epochs count too."""
    if counters.epoch == ABSENT:
        return unknown(Cause.MISSING, f"{metric.name}: the proxy has no counters of {counters.release}")
    part = Part("requests", count.bad, counters.requests)
    return Count(count.release, count.at, f"{count.epoch} {counters.epoch}".strip(), (part,))
