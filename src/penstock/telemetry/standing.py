"""How the objectives of a service stand now: what was counted, and what it means.

Called by the check ``slo`` and by the server. Must not write.
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.analysis.budget import Bucket, standing
from penstock.core.objectives import ENVIRONMENT, Budget, Objective, Standing
from penstock.ports import Transaction
from penstock.telemetry import rollups


async def stand(tx: Transaction, objective: Objective, entry: int) -> Standing:
    """How one objective stands; *entry* published it."""
    return (await seen(tx, objective, entry))[0]


async def seen(tx: Transaction, objective: Objective, entry: int) -> tuple[Standing, tuple[Bucket, ...]]:
    """The same, and what was counted in its window."""
    now, place = await tx.now(), (objective.service, ENVIRONMENT)
    since = now - objective.window
    counted = await rollups.buckets(tx, place, objective, since)
    watched = await rollups.watched(tx, place, since)
    return standing(objective, entry, counted, watched, now), counted


def whole(service: str, standings: Sequence[Standing]) -> Budget:
    """All of them together, in words."""
    states = {one.state for one in standings}
    wrong = bool(states & {"burning", "exhausted"})
    unclear = bool(states & {"quiet", "unknown"}) or not standings
    words = "; ".join(one.says for one in standings) or "no objective is in force"
    return Budget(
        service=service,
        environment=ENVIRONMENT,
        verdict="FAIL" if wrong else "UNKNOWN" if unclear else "PASS",
        explanation=words,
        objectives=tuple(standings),
    )
