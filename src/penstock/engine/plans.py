"""Plans: the pipeline of a delivery, made when it is queued and kept with it.

Called by `queue`, which keeps the plan in the delivery's header, and by whoever goes on with one. A release
that plans in another way goes on with the plans of those before it.
"""

from __future__ import annotations

import math
from dataclasses import replace

from penstock.config import ServiceConfig, checks_in_order, stage_names
from penstock.core.canaryconfig import CanaryConfig
from penstock.core.experiment import Plan
from penstock.core.pipeline import Canary, Pipeline, Stage
from penstock.core.stages import ALL_CHECKS, CANARY_SLACK, configuration, rollback, standard
from penstock.core.traffic import thousandths
from penstock.engine.journal import Delivery, Header

#: What a check's stage may take beside the command itself: a copy of the tree, its dependencies installed.
AROUND_SECONDS = 900.0


def plan(delivery: Delivery) -> Pipeline:
    """The pipeline of a delivery."""
    return delivery.header.pipeline or _first(delivery)


def _first(delivery: Delivery) -> Pipeline:
    """What the first release, which kept no plans, would do: one stage for all checks, and no deadlines."""
    made = planned(delivery.header.change.kind, delivery.header.config, ALL_CHECKS)
    return replace(made, stages=tuple(replace(stage, seconds=math.inf) for stage in made.stages))


def with_plan(header: Header, *, objectives: bool = False) -> Header:
    """The header of a new delivery: the plan is kept in it."""
    if header.experiment is not None:
        made = experiment(header.experiment, header.config)
    else:
        made = planned(header.change.kind, header.config, objectives=objectives)
    return replace(header, version=2, pipeline=made)


def planned(
    kind: str, config: ServiceConfig, checks: tuple[Stage, ...] | None = None, *, objectives: bool = False
) -> Pipeline:
    """The pipeline for a `Change.kind`. *checks* stand for those of the configuration. A rollback is never
    asked for *objectives*: it may be what they need."""
    canary = canary_plan(config.canary)
    match kind:
        case "code":
            made = standard(canary, checks or check_stages(config), objectives=objectives)
            return _with_time(made, config)
        case "configuration":
            return _with_time(configuration(canary, objectives=objectives), config)
        case _:
            return rollback(canary)


def experiment(asked: Plan, config: ServiceConfig) -> Pipeline:
    """Each variant is placed and tested dark, and may then be seen if the policies for experiments say so;
    users are dealt out once all of them may be."""
    stages = [Stage("begin", "begin")]
    for variant in (variant.name for variant in asked.variants):
        placed, tested = f"deploy-{variant}", f"acceptance-{variant}"
        stages += (
            Stage(placed, "deploy", guards="deploy", after=("begin",), target=variant),
            Stage(tested, "acceptance", after=(placed,), target=variant),
            Stage(f"expose-{variant}", "expose", guards="experiment", after=(tested,), target=variant),
        )
    exposed, seconds = tuple(stage.name for stage in stages if stage.verb == "expose"), asked.terms.longest
    stages.append(Stage("experiment", "experiment", after=exposed, seconds=seconds + CANARY_SLACK))
    plan = Canary((), seconds, min(config.canary.look_every, seconds / 10), 0.0)
    return _with_time(Pipeline("experiment", tuple(stages), plan), config)


def canary_plan(given: CanaryConfig) -> Canary:
    """What ``penstock.yaml`` says of a canary, as it is planned."""
    steps = tuple(thousandths(step) for step in given.steps)
    return Canary(steps, given.seconds_per_step, given.look_every, given.patience, given.baseline)


def _with_time(pipeline: Pipeline, config: ServiceConfig) -> Pipeline:
    """A load test and a comparison take as long as they are asked to, beside everything else."""
    asked = (config.acceptance.load, config.acceptance.compare)
    more = sum(part.seconds for part in asked if part is not None)
    stages = (replace(s, seconds=s.seconds + more) if s.verb == "acceptance" else s for s in pipeline.stages)
    return replace(pipeline, stages=tuple(stages))


def check_stages(config: ServiceConfig) -> tuple[Stage, ...]:
    """A stage for each check, and for each of its targets: side by side where none comes after another."""
    names = {name: stage_names(name, suite) for name, suite in config.checks.items()}
    return (
        tuple(
            Stage(
                name=stage,
                verb="suite",
                after=tuple(earlier for after in suite.after for earlier in names[after]) or ("build",),
                seconds=suite.seconds + AROUND_SECONDS,
                optional=suite.optional,
                part=check,
                target=target,
            )
            for check, suite in checks_in_order(config.checks)
            for stage, target in zip(names[check], suite.each or ("",), strict=True)
        )
        or ALL_CHECKS
    )
