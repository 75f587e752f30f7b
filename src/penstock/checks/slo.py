"""Error budgets: does the service keep what it promises its users, and will the budget last?

Called by the engine for the verb ``slo``, before the promotion of a service that has objectives. It decides
nothing: whether a budget that burns holds a promotion up is for a policy to say, which somebody may override.
"""

from __future__ import annotations

from penstock.core.evidence import Statement, Subject
from penstock.core.pipeline import State
from penstock.errors import Broken
from penstock.ledger import slos
from penstock.ledger.log import Ledger
from penstock.ports import Outcome, Store, Task
from penstock.telemetry.standing import stand, whole


async def perform(task: Task, /, *, store: Store, ledger: Ledger) -> Outcome:
    """Say how every objective that is in force stands, as evidence about the release."""
    if task.release is None:
        raise Broken("objectives before there is a release", where=task.delivery)
    service = task.change.service
    async with store.transaction(write=False) as tx:
        held = slos.in_force(await ledger.authority(tx), service)
        budget = whole(service, [await stand(tx, objective, slo.index) for slo, objective in held])
    subject = Subject(task.release.id, task.release.digest)
    return Outcome(State.SUCCESS, f"{budget.verdict}: {budget.explanation}", (Statement((subject,), budget),))
