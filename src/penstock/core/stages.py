"""The pipelines that ship: the stages of a code change, of a configuration change and of a rollback. Pure.

Called by `engine.plans`, which makes a delivery's plan from what its service asks for, and by `config`, which
keeps other stages from taking their names.
"""

from __future__ import annotations

from penstock.core.pipeline import Canary, Pipeline, Stage

#: What runs the project's checks if nothing is said of them: all that can be seen, in one stage.
ALL_CHECKS = (Stage("tests", "suite", after=("build",)),)
#: Beside what its plan needs, a canary may take so long: for looks that take their time.
CANARY_SLACK = 900.0


def standard(canary: Canary, checks: tuple[Stage, ...] = ALL_CHECKS, *, objectives: bool = False) -> Pipeline:
    """The pipeline of a code change. *checks* run beside the scan, after the build.

    Here and below: where the service has *objectives*, they are looked at before the promotion.
    """
    before = ("scan", *(check.name for check in checks))
    return Pipeline(
        "standard",
        (
            Stage("begin", "begin"),
            Stage("build", "build", after=("begin",)),
            *checks,
            Stage("scan", "scan", after=("build",)),
            *_into_production(canary, before, objectives),
        ),
        canary,
    )


def _into_production(canary: Canary, before: tuple[str, ...], objectives: bool) -> tuple[Stage, ...]:
    seconds = canary.longest + CANARY_SLACK
    return (
        Stage("deploy", "deploy", guards="deploy", after=before),
        Stage("acceptance", "acceptance", after=("deploy",)),
        Stage("canary", "canary", guards="shift", after=("acceptance",), seconds=seconds),
        *((Stage("slo", "slo", after=("canary",)),) if objectives else ()),
        Stage("promote", "promote", guards="promote", after=("slo" if objectives else "canary",)),
    )


def configuration(canary: Canary, *, objectives: bool = False) -> Pipeline:
    """Environment data alone: the artifact that is live, and its evidence, stand as they are."""
    stages = (Stage("begin", "begin"), *_into_production(canary, ("begin",), objectives))
    return Pipeline("configuration", stages, canary)


def rollback(canary: Canary) -> Pipeline:
    """Back to a pair that was promoted before: its promotion is on record, so no gate asks again."""
    stages = (
        Stage("begin", "begin"),
        Stage("deploy", "deploy", after=("begin",)),
        Stage("restore", "restore", after=("deploy",)),
    )
    return Pipeline("rollback", stages, canary)
