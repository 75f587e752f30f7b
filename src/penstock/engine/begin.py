"""Begin: fix what a delivery starts from. The pair that is live, and the given half of the new one.

Called by the engine as the first stage. What is live follows from the ledger (the last promotion or
rollback), never from the journal.
"""

from __future__ import annotations

from collections.abc import Mapping

from penstock.checks.sampled import meter_of
from penstock.config import environment_data
from penstock.core.digest import digest
from penstock.core.evidence import Statement, Subject
from penstock.core.experiment import CONTROL, Dealt, Plan
from penstock.core.pipeline import Begun, State
from penstock.core.predicates import Proposed
from penstock.core.release import Artifact, EnvironmentData
from penstock.errors import Invalid
from penstock.ledger.live import Live, live
from penstock.ledger.log import Ledger
from penstock.ports import Artifacts, Meter, Outcome, Store, Task


async def perform(
    task: Task, /, *, store: Store, ledger: Ledger, artifacts: Artifacts, meters: Mapping[str, Meter]
) -> Outcome:
    """Read what is live and decide both halves that are given already.

    `Invalid` for a metric of a canary that nobody could count: before anything is built.
    """
    change = task.change
    for metric in task.config.canary.metrics if task.canary.steps else ():
        meter_of(metric, meters)
    async with store.transaction(write=False) as tx:
        now_live = await live(ledger, tx, change.service, change.environment)
    artifact, variants = task.artifact, tuple[Dealt, ...]()
    if task.experiment is not None:
        artifact, variants = await dealt(task.experiment, change.environment, now_live, artifacts)
        data = variants[0].data
    elif change.kind == "configuration":
        if now_live is None:
            raise Invalid(
                f"{change.service} is not live in {change.environment}: configuration needs an artifact",
                next_move="ship the service first",
            )
        artifact = Artifact(change.service, now_live.release.artifact)
        image = await artifacts.describe(artifact.digest)
        given, mesh = (task.data.values, task.data.mesh) if task.data else ({}, None)
        data = environment_data(image.config, change.environment, given, mesh)
    else:
        data = task.data or _carried_over(task, now_live)
    baseline = now_live.release if now_live else None
    proposed = Proposed(task.delivery, change, baseline)
    subjects = (Subject(task.delivery, digest(task.delivery.encode())),)
    words = f"live: {baseline.id}" if baseline else "nothing is live yet"
    begun = Begun("begun", data, baseline, artifact, variants)
    return Outcome(State.SUCCESS, words, (Statement(subjects, proposed),), begun)


async def dealt(
    asked: Plan, environment: str, now_live: Live | None, artifacts: Artifacts
) -> tuple[Artifact, tuple[Dealt, ...]]:
    """The live artifact, and each variant's environment data: what is live, but for its own values.

    `Invalid` if they do not fit, or if two of those that users are dealt to would be the same.
    """
    if now_live is None:
        what = f"{asked.service} is not live in {environment}: there is no control"
        raise Invalid(what, next_move="ship the service first")
    image = await artifacts.describe(now_live.release.artifact)
    known, found = {now_live.data.digest: CONTROL}, list[Dealt]()
    for variant in asked.variants:
        try:
            values = {**now_live.data.values, **variant.values}
            data = environment_data(image.config, environment, values, now_live.data.mesh)
        except Invalid as error:
            raise Invalid(error.what, where=f"variants.{variant.name}", next_move=error.next_move) from error
        if data.digest in known:
            what = f"its users would see the same as those of {known[data.digest]}"
            raise Invalid(what, where=f"variants.{variant.name}")
        known[data.digest] = variant.name
        found.append(Dealt(variant.name, data))
    return Artifact(asked.service, now_live.release.artifact), tuple(found)


def _carried_over(task: Task, now_live: Live | None) -> EnvironmentData:
    """New code keeps the live values of the variables it still declares, and the peers of services that it
    still calls; new variables get their defaults."""
    declared = task.config.environment
    values = now_live.data.values if now_live else {}
    kept = {name: value for name, value in values.items() if name in declared}
    mesh = now_live.data.mesh if now_live else None
    mesh = mesh.within(task.config.calls) if mesh else None
    return environment_data(task.config, task.change.environment, kept, mesh)
