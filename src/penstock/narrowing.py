"""What the readers of YAML files ask beyond types, as far as one value shows it: for the schemas of editors.

Read by `schemas`. The readers' own checks decide; each row says the same again, with their constants, and the
tests try it on both. Must be no narrower than they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from penstock.clusterfile import ABI, BASE, LABEL
from penstock.config import MOST_TARGETS
from penstock.core.acceptanceconfig import (
    MOST_CASES,
    MOST_CONNECTIONS,
    MOST_PATHS,
    MOST_PER_SECOND,
    MOST_RULES,
    MOST_SECONDS,
)
from penstock.core.admission import MOST, MOST_CALLERS
from penstock.core.canaryconfig import MOST_METRICS
from penstock.core.codec import Json
from penstock.core.environmentconfig import NAME
from penstock.core.experiment import MOST_VARIANTS
from penstock.core.facts import AGED, FACTS, FactType
from penstock.core.policy import ACTIONS
from penstock.core.scaleconfig import MOST_BAKE, MOST_COPIES, MOST_CPU, MOST_WARM
from penstock.core.traffic import LONGEST
from penstock.core.trafficconfig import MOST_EARLY
from penstock.core.workload import MOST_DRAIN
from penstock.policyfile import LONGEST_WAIT, SHORTEST_SIGN_OFF
from penstock.slofile import HIGHEST_TARGET, MOST_OBJECTIVES

#: What is added to the schema of a field, by its path; "*" is any item of a list or a mapping.
Narrowing = Mapping[str, Mapping[str, Json]]


def within(least: float, most: float) -> Mapping[str, Json]:
    return {"minimum": least, "maximum": most}


def least(number: float) -> Mapping[str, Json]:
    return {"minimum": number}


def above(number: float) -> Mapping[str, Json]:
    return {"exclusiveMinimum": number}


def at_most(items: int, fewest: int = 0) -> Mapping[str, Json]:
    return {"maxItems": items, **({"minItems": fewest} if fewest else {})}


def matching(pattern: re.Pattern[str], *, absent: bool = False) -> Mapping[str, Json]:
    """The whole of a text; "" too where that stands for none."""
    return {"pattern": f"^({pattern.pattern}){'?' if absent else ''}$"}


def only(*values: str | bool) -> Mapping[str, Json]:
    return {"enum": list(values)}


def keys(schema: Mapping[str, Json]) -> Mapping[str, Json]:
    return {"propertyNames": schema}


NOT_EMPTY = {"minItems": 1}
PATHS = re.compile(r"/(?!/).*")
PATH = re.compile(r"/.*")

PENSTOCK: Narrowing = {
    "service": matching(NAME, absent=True),
    "calls.*": matching(NAME),
    "replicas": within(1, MOST_COPIES),
    "scaling.most": within(0, MOST_COPIES),
    "scaling.in_flight": least(0),
    "scaling.cpu": within(1, MOST_CPU),
    "scaling.idle_seconds": within(1, 3600),
    "warm.bake_seconds": within(0, MOST_BAKE),
    "warm.replicas": within(0, MOST_COPIES),
    "warm.seconds": within(0, MOST_WARM),
    "liveness.path": matching(PATH, absent=True),
    "liveness.every": least(0.1),
    "liveness.timeout": least(0.1),
    "liveness.failures": least(1),
    "drain_seconds": within(0, MOST_DRAIN),
    "limits.memory_mb": least(0),
    "limits.cpus": least(0),
    "limits.open_files": least(0),
    "checks": keys(matching(NAME)),
    "checks.*.each": {"maxItems": MOST_TARGETS, "uniqueItems": True},
    "checks.*.each.*": {"minLength": 1},
    "acceptance.paths": at_most(MOST_PATHS),
    "acceptance.paths.*": matching(PATHS),
    "acceptance.requests_per_second": within(0.1, MOST_PER_SECOND),
    "acceptance.weights.*": within(0.001, 1e6),
    "acceptance.openapi_cases": within(0, MOST_CASES),
    "acceptance.openapi_operations.*": {"pattern": r"^(GET|HEAD|PUT|POST|PATCH|DELETE|OPTIONS) /\S*$"},
    "acceptance.load.requests_per_second": within(0.1, MOST_PER_SECOND),
    "acceptance.load.seconds": within(1, MOST_SECONDS),
    "acceptance.load.paths": at_most(MOST_PATHS),
    "acceptance.load.paths.*": matching(PATHS),
    "acceptance.load.p95_ms": above(0),
    "acceptance.load.p99_ms": above(0),
    "acceptance.load.error_rate": within(0, 1),
    "acceptance.load.connections": within(1, MOST_CONNECTIONS),
    "acceptance.compare.share": within(0, 100),
    "acceptance.compare.seconds": within(0, MOST_SECONDS),
    "acceptance.compare.ignore": at_most(MOST_RULES),
    "acceptance.compare.ignore.*": {"pattern": r"^(/.*|header: *[A-Za-z0-9-]+|re: *\S.*)$", "maxLength": 500},
    "acceptance.compare.max_different": within(0, 1),
    "acceptance.compare.max_slower": within(1, 1000),
    "canary.steps": {"minItems": 1, "uniqueItems": True},
    "canary.steps.*": {"minimum": 0.1, "exclusiveMaximum": 100},
    "canary.seconds_per_step": above(0),
    "canary.look_every": above(0),
    "canary.patience": least(0),
    "canary.judge.alpha": {"exclusiveMinimum": 0, "maximum": 0.2},
    "canary.judge.ratio": least(1),
    "canary.judge.points": {"minimum": 0, "exclusiveMaximum": 100},
    "canary.judge.quantiles.*": within(50, 99.9),
    "canary.metrics": at_most(MOST_METRICS),
    "canary.metrics.*.name": matching(NAME),
    "canary.metrics.*.ratio": least(1),
    "canary.metrics.*.points": {"minimum": 0, "exclusiveMaximum": 100},
    "canary.metrics.*.fresh_seconds": within(1, 3600),
    "traffic.mirror": within(0, 100),
    "traffic.early": at_most(MOST_EARLY),
    "traffic.timeout_seconds": within(0.001, LONGEST),
    "traffic.idle_seconds": within(1, LONGEST),
    "traffic.retries": within(0, 10),
    "traffic.callers": {"maxItems": MOST_CALLERS, "uniqueItems": True},
    "traffic.callers.*": matching(NAME),
    "traffic.rate.per_second": within(0, MOST),
    "traffic.rate.burst": within(0, MOST),
    "traffic.most_requests": within(0, MOST),
    "traffic.most_connections": within(0, MOST),
}

POLICY: Narrowing = {
    "": {"anyOf": [{"required": ["rules"]}, {"required": ["module"]}]},
    "policy": matching(NAME),
    "owner": matching(NAME),
    "guards": NOT_EMPTY,
    "guards.*": only(*ACTIONS),
    "environments": NOT_EMPTY,
    "rules": NOT_EMPTY,
    "module": {"description": "In rego: what decides, instead of rules. It passes while deny is empty."},
    "expires_after": least(SHORTEST_SIGN_OFF),
    "waits": within(0, LONGEST_WAIT),
    "fresh": keys(only(*AGED)),
    "fresh.*": above(0),
    "soak": keys(matching(NAME)),
    "soak.*": within(0, LONGEST_WAIT),
}


def facts(*types: str) -> Mapping[str, Json]:
    """Each fact by its name and type; *types* are taken besides."""
    kinds: dict[FactType, tuple[str, Mapping[str, Json]]] = {
        FactType.TEXT: ("string", {}),
        FactType.INT: ("integer", {}),
        FactType.NUMBER: ("number", {}),
        FactType.BOOL: ("boolean", {}),
        FactType.TEXTS: ("array", {"items": {"type": "string"}}),
    }
    known = {
        name: {"description": words, "type": [kinds[kind][0], *types], **kinds[kind][1]}
        for name, (kind, words) in FACTS.items()
    }
    return {"properties": known, "additionalProperties": {"type": [*types]} if types else False}


POLICY_TEST: Narrowing = {
    "facts": facts(),
    "cases": NOT_EMPTY,
    "cases.*.facts": facts("null"),
}

SLO: Narrowing = {
    "apiVersion": only("openslo/v1"),
    "kind": only("SLO"),
    "metadata.name": matching(NAME),
    "spec.service": matching(NAME),
    "spec.timeWindow": at_most(1, fewest=1),
    "spec.timeWindow.*.duration": {"pattern": "^[1-9][0-9]{0,5}[mhdw]$"},
    "spec.timeWindow.*.isRolling": only(True),
    "spec.budgetingMethod": only("Occurrences"),
    "spec.objectives": at_most(MOST_OBJECTIVES, fewest=1),
    "spec.objectives.*.displayName": {"maxLength": 80},
    "spec.objectives.*.target": {"exclusiveMinimum": 0, "maximum": HIGHEST_TARGET},
    "spec.objectives.*.targetPercent": {"exclusiveMinimum": 0, "exclusiveMaximum": 100},
    "spec.indicator.spec.ratioMetric.counter": only(True),
    "spec.indicator.spec.ratioMetric.total.metricSource.type": only("penstock"),
    "spec.indicator.spec.ratioMetric.bad.metricSource.type": only("penstock"),
    "spec.indicator.spec.ratioMetric.good.metricSource.type": only("penstock"),
    "spec.indicator.spec.ratioMetric.good.metricSource.spec.ms": within(1, 10_000),
}

EXPERIMENT: Narrowing = {
    "experiment": matching(NAME),
    "service": matching(NAME),
    "variants": {"minProperties": 1, "maxProperties": MOST_VARIANTS, **keys(matching(NAME))},
    "variants.*": {"minProperties": 1},
    "goal.path": matching(PATH),
    "goal.method": only("GET", "POST", "PUT", "PATCH", "DELETE"),
    "alpha": within(0.01, 20),
    "margin": within(0.1, 50),
    "effect": within(0.5, 200),
    "share": within(0, 90),
    "longest_hours": within(1 / 60, 90 * 24),
}

GATEWAY: Narrowing = {
    "namespace": matching(LABEL, absent=True),
    "gateway.namespace": matching(LABEL, absent=True),
    "gateway.name": matching(LABEL),
}

CLUSTER: Narrowing = {
    **GATEWAY,
    **{f"environments.*.{name}": narrowing for name, narrowing in GATEWAY.items()},
    "environments": keys(matching(NAME)),
    "bases": keys(matching(ABI)),
    "bases.*": matching(BASE),
    "steps.image": matching(BASE),
    "steps.namespace": matching(LABEL, absent=True),
    "steps.memory_mb": least(0),
    "steps.cpus": least(0),
}
