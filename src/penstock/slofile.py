"""``slos/*.yaml``: reading an OpenSLO v1 document, with file and line in every error.

Called by whoever publishes, checks or evaluates objectives. What OpenSLO has and Penstock does not count is
refused by name: an objective that is only half read would promise what nobody keeps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

import yaml

from penstock.config import line_of, parse
from penstock.core.codec import json_name
from penstock.core.environmentconfig import NAME
from penstock.core.objectives import Objective
from penstock.errors import Invalid

REFERENCE = "the documented reference: penstock doctor --reference slo"
#: Seconds of each unit of a rolling window. A month or a quarter is no fixed time.
UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
SHORTEST_WINDOW, LONGEST_WINDOW = 3600.0, 90 * 86400.0
MOST_OBJECTIVES = 10
#: Closer to 1 than this, and a million requests could not tell (seven nines).
HIGHEST_TARGET = 0.9999999

Unsupported = Any


@dataclass(frozen=True)
class SourceSpec:
    """What Penstock counts of users' requests: all, those with an error, or those answered within *ms*."""

    count: Literal["requests", "errors", "within"]
    ms: float | None = None


@dataclass(frozen=True)
class MetricSource:
    type: str
    spec: SourceSpec
    ref: Unsupported = field(default=None, metadata=json_name("metricSourceRef"))


@dataclass(frozen=True)
class Metric:
    source: MetricSource = field(metadata=json_name("metricSource"))


@dataclass(frozen=True)
class RatioMetric:
    """*good* of *total*, or *bad* of *total*."""

    total: Metric
    good: Metric | None = None
    bad: Metric | None = None
    counter: bool = True
    raw: Unsupported = None
    raw_type: Unsupported = field(default=None, metadata=json_name("rawType"))


@dataclass(frozen=True)
class IndicatorSpec:
    ratio: RatioMetric | None = field(default=None, metadata=json_name("ratioMetric"))
    description: str = ""
    threshold: Unsupported = field(default=None, metadata=json_name("thresholdMetric"))


@dataclass(frozen=True)
class Metadata:
    name: str
    display: str = field(default="", metadata=json_name("displayName"))
    labels: Mapping[str, Any] = field(default_factory=dict)
    annotations: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Indicator:
    spec: IndicatorSpec
    metadata: Metadata | None = None


@dataclass(frozen=True)
class TimeWindow:
    duration: str
    rolling: bool = field(default=True, metadata=json_name("isRolling"))
    calendar: Unsupported = None


@dataclass(frozen=True)
class ObjectiveConfig:
    display: str = field(default="", metadata=json_name("displayName"))
    target: float | None = None
    per_cent: float | None = field(default=None, metadata=json_name("targetPercent"))
    op: Unsupported = None
    value: Unsupported = None
    indicator: Unsupported = None
    indicator_ref: Unsupported = field(default=None, metadata=json_name("indicatorRef"))
    weight: Unsupported = field(default=None, metadata=json_name("compositeWeight"))
    slice_target: Unsupported = field(default=None, metadata=json_name("timeSliceTarget"))
    slice_window: Unsupported = field(default=None, metadata=json_name("timeSliceWindow"))


@dataclass(frozen=True)
class SloSpec:
    service: str
    windows: tuple[TimeWindow, ...] = field(metadata=json_name("timeWindow"))
    objectives: tuple[ObjectiveConfig, ...]
    budgeting: str = field(metadata=json_name("budgetingMethod"))
    description: str = ""
    indicator: Indicator | None = None
    indicator_ref: Unsupported = field(default=None, metadata=json_name("indicatorRef"))
    alerts: Unsupported = field(default=None, metadata=json_name("alertPolicies"))


@dataclass(frozen=True)
class SloConfig:
    """All of one ``slos/<name>.yaml``."""

    api: str = field(metadata=json_name("apiVersion"))
    kind: str
    metadata: Metadata
    spec: SloSpec


@dataclass(frozen=True)
class SloDocument:
    """One version of an SLO. *source* is the exact text whose digest names it."""

    service: str
    name: str
    objectives: tuple[Objective, ...]
    source: str


def parse_slo(source: bytes, name: str) -> SloDocument:
    """Objectives from an SLO's exact text. `Invalid` with file and line."""
    given = parse(SloConfig, source, name, REFERENCE)
    try:
        _check_kind(given)
        _supported(given)
        objectives = _objectives(given)
    except Invalid as error:
        line = line_of(yaml.compose(source, Loader=yaml.SafeLoader), error.where)
        raise Invalid(
            f"{error.where}: {error.what}", where=f"{name}:{line}", next_move=error.next_move or REFERENCE
        ) from error
    return SloDocument(given.spec.service, given.metadata.name, objectives, source.decode())


def _check_kind(given: SloConfig) -> None:
    if given.api != "openslo/v1":
        raise Invalid(f"expected openslo/v1, found {given.api[:40]!r}", where="apiVersion")
    if given.kind != "SLO":
        what = f"expected SLO, found {given.kind[:40]!r}: its indicator stands in the SLO itself"
        raise Invalid(what, where="kind")
    for where, text in (("metadata.name", given.metadata.name), ("spec.service", given.spec.service)):
        if not NAME.fullmatch(text):
            raise Invalid(f"{text[:80]!r} is not a name (lower case, digits, dashes)", where=where)


def _supported(value: object, where: str = "") -> None:
    """`Invalid` for what OpenSLO has and we do not: the fields that are typed `Unsupported`."""
    if isinstance(value, tuple):
        for number, item in enumerate(value):
            _supported(item, f"{where}[{number}]")
    if not is_dataclass(value):
        return
    for one in fields(value):
        found, json = getattr(value, one.name), one.metadata.get("json", one.name)
        path = f"{where}.{json}" if where else json
        if one.type == "Unsupported" and found is not None:
            raise Invalid("OpenSLO has this, and Penstock does not support it", where=path)
        _supported(found, path)


def _objectives(given: SloConfig) -> tuple[Objective, ...]:
    spec = given.spec
    if spec.budgeting != "Occurrences":
        what = f"{spec.budgeting[:40]!r} is not supported: Penstock counts requests (Occurrences)"
        raise Invalid(what, where="spec.budgetingMethod")
    window, within_ms = _window(spec.windows), _good(spec.indicator)
    if not 1 <= len(spec.objectives) <= MOST_OBJECTIVES:
        raise Invalid(f"from 1 to {MOST_OBJECTIVES} of them", where="spec.objectives")
    names: set[str] = set()
    found = []
    for number, one in enumerate(spec.objectives):
        where = f"spec.objectives[{number}]"
        if one.display in names:
            what = f"two objectives are called {one.display!r}" if one.display else "it needs a name here"
            raise Invalid(what, where=f"{where}.displayName", next_move="give each its own displayName")
        if len(one.display) > 80 or not one.display.isprintable():
            raise Invalid("a name of at most 80 printable characters", where=f"{where}.displayName")
        names.add(one.display)
        found.append(
            Objective(spec.service, given.metadata.name, one.display, _target(one, where), window, within_ms)
        )
    return tuple(found)


def _target(given: ObjectiveConfig, where: str) -> float:
    if (given.target is None) == (given.per_cent is None):
        raise Invalid("either target or targetPercent", where=f"{where}.target")
    field_, target = "target", given.target
    if target is None:
        field_, target = "targetPercent", (given.per_cent or 0.0) / 100
    if not 0 < target <= HIGHEST_TARGET:
        what = f"a target above 0 and at most {HIGHEST_TARGET}: at 1 there is no error budget"
        raise Invalid(f"{what}; found {target:g}", where=f"{where}.{field_}")
    return target


def _window(windows: tuple[TimeWindow, ...]) -> float:
    where = "spec.timeWindow"
    if len(windows) != 1:
        raise Invalid(f"expected one, found {len(windows)}", where=where)
    if not windows[0].rolling:
        raise Invalid(
            "calendar windows are not supported; use isRolling: true", where=f"{where}[0].isRolling"
        )
    written = re.fullmatch(r"([1-9][0-9]{0,5})([a-zA-Z])", windows[0].duration)
    where = f"{where}[0].duration"
    if written is None or written[2] not in UNITS:
        units = ", ".join(UNITS)
        raise Invalid(f"{windows[0].duration[:20]!r} is no rolling window such as 28d ({units})", where=where)
    seconds = int(written[1]) * UNITS[written[2]]
    if not SHORTEST_WINDOW <= seconds <= LONGEST_WINDOW:
        raise Invalid("a window from 1h to 90d", where=where)
    return seconds


def _good(indicator: Indicator | None) -> float:
    """Within how many milliseconds a request is good; 0: where it is so without an error."""
    where = "spec.indicator"
    ratio = indicator.spec.ratio if indicator else None
    if ratio is None:
        raise Invalid("a ratioMetric is needed, in the SLO itself", where=where)
    where = f"{where}.spec.ratioMetric"
    if not ratio.counter:
        raise Invalid("Penstock's counts are counters", where=f"{where}.counter")
    if (ratio.good is None) == (ratio.bad is None):
        raise Invalid("either good or bad, beside total", where=where)
    if _counted(ratio.total, f"{where}.total").count != "requests":
        raise Invalid("the total counts requests", where=f"{where}.total")
    if ratio.bad is not None:
        if _counted(ratio.bad, f"{where}.bad").count != "errors":
            raise Invalid("what is bad counts errors; for latency say what is good", where=f"{where}.bad")
        return 0.0
    assert ratio.good is not None
    good = _counted(ratio.good, f"{where}.good")
    if good.count != "within" or not good.ms:
        what = "what is good counts within, with ms; for errors say what is bad"
        raise Invalid(what, where=f"{where}.good")
    return good.ms


def _counted(metric: Metric, where: str) -> SourceSpec:
    source, where = metric.source, f"{where}.metricSource"
    if source.type != "penstock":
        what = f"unknown source {source.type[:40]!r}; known: penstock"
        raise Invalid(what, where=f"{where}.type")
    ms = source.spec.ms
    if (source.spec.count == "within") != (ms is not None) or (ms is not None and not 1 <= ms <= 10_000):
        raise Invalid("ms belongs to within, from 1 to 10000", where=f"{where}.spec")
    return source.spec
