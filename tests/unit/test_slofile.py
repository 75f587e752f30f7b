"""OpenSLO documents: what is read, and what is refused with file, line and the next move."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from penstock.core.objectives import Objective
from penstock.errors import Invalid
from penstock.slofile import parse_slo

TEXT = """\
apiVersion: openslo/v1
kind: SLO
metadata: {name: availability}
spec:
  service: shop
  indicator:
    spec:
      ratioMetric:
        bad: {metricSource: {type: penstock, spec: {count: errors}}}
        total: {metricSource: {type: penstock, spec: {count: requests}}}
  timeWindow: [{duration: 28d, isRolling: true}]
  budgetingMethod: Occurrences
  objectives:
    - {target: 0.99}
"""
GOOD = "good: {metricSource: {type: penstock, spec: {count: within, ms: 300}}}"
BAD = "bad: {metricSource: {type: penstock, spec: {count: errors}}}"


def changed(*pairs: tuple[str, str]) -> bytes:
    text = TEXT
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text.encode()


def test_what_a_document_says() -> None:
    document = parse_slo(TEXT.encode(), "a.yaml")
    assert (document.service, document.name, document.source) == ("shop", "availability", TEXT)
    assert document.objectives == (Objective("shop", "availability", "", 0.99, 28 * 86400.0),)
    assert document.objectives[0].label == "availability"


def test_latency_and_several_objectives() -> None:
    two = "- {displayName: most, targetPercent: 95}\n    - {displayName: all, target: 0.999}"
    document = parse_slo(changed((BAD, GOOD), ("- {target: 0.99}", two), ("28d", "4w")), "a.yaml")
    assert [(one.label, one.target, one.within_ms) for one in document.objectives] == [
        ("availability/most", 0.95, 300.0),
        ("availability/all", 0.999, 300.0),
    ]


@pytest.mark.parametrize(
    ("old", "new", "line", "problem"),
    [
        ("openslo/v1", "openslo/v2alpha", 1, "expected openslo/v1, found 'openslo/v2alpha'"),
        ("kind: SLO", "kind: SLI", 2, "expected SLO, found 'SLI'"),
        ("name: availability", "name: All Of It", 3, "not a name"),
        ("service: shop", "service: Shop", 5, "not a name"),
        ("0.99", "1.0", 14, "at 1 there is no error budget"),
        ("0.99", "0", 14, "at 1 there is no error budget; found 0"),
        ("0.99", "-0.5", 14, "a target above 0"),
        ("0.99", "99.9", 14, "a target above 0"),
        ("0.99", ".nan", 14, "a finite number"),
        ("target: 0.99", "targetPercent: 100", 14, "found 1"),
        ("target: 0.99", "target: 0.99, targetPercent: 99", 14, "either target or targetPercent"),
        ("{target: 0.99}", "{displayName: x}", 14, "either target or targetPercent"),
        ("28d", "0d", 11, "no rolling window such as 28d"),
        ("28d", "1M", 11, "no rolling window such as 28d"),
        ("28d", "5m", 11, "from 1h to 90d"),
        ("28d", "91d", 11, "from 1h to 90d"),
        ("[{duration: 28d, isRolling: true}]", "[]", 11, "expected one, found 0"),
        ("isRolling: true", "isRolling: false", 11, "calendar windows are not supported"),
        ("isRolling: true", "calendar: {startTime: x, timeZone: UTC}", 11, "does not support it"),
        ("Occurrences", "Timeslices", 12, "'Timeslices' is not supported"),
        ("type: penstock", "type: prometheus", 9, "unknown source 'prometheus'; known: penstock"),
        ("count: errors", "count: mistakes", 9, "expected one of 'requests', 'errors', 'within'"),
        ("count: errors", "count: within, ms: 300", 9, "for latency say what is good"),
        ("count: errors", "count: errors, ms: 300", 9, "ms belongs to within"),
        (BAD, GOOD.replace("300", "0"), 9, "from 1 to 10000"),
        (BAD, GOOD.replace(", ms: 300", ""), 9, "ms belongs to within"),
        (BAD, BAD.replace("bad", "good"), 9, "for errors say what is bad"),
        (BAD, f"{BAD}\n        {GOOD}", 8, "either good or bad"),
        ("count: requests", "count: errors", 10, "the total counts requests"),
        (BAD, f"counter: false\n        {BAD}", 9, "counts are counters"),
        ("- {target: 0.99}", "- {target: 0.99}\n    - {target: 0.9}", 15, "it needs a name here"),
        (
            "- {target: 0.99}",
            "- {target: 0.99, displayName: x}\n    - {target: 0.9, displayName: x}",
            15,
            "two objectives are called 'x'",
        ),
        ("- {target: 0.99}", "[]", 13, "from 1 to 10 of them"),
        ("{target: 0.99}", "{target: 0.99, op: lte, value: 3}", 14, "op: OpenSLO has this"),
        ("{target: 0.99}", "{target: 0.99, timeSliceTarget: 0.9}", 14, "timeSliceTarget: OpenSLO has this"),
        ("  service: shop", "  service: shop\n  alertPolicies: [x]", 6, "alertPolicies: OpenSLO has this"),
        ("  service: shop", "  service: shop\n  indicatorRef: x", 6, "indicatorRef: OpenSLO has this"),
        ("  service: shop", "  service: shop\n  sevrice: x", 6, "unknown field 'sevrice'"),
        ("ratioMetric", "thresholdMetric", 8, "thresholdMetric: OpenSLO has this"),
        ("type: penstock", "metricSourceRef: x, type: penstock", 9, "metricSourceRef: OpenSLO has this"),
    ],
)
def test_what_is_refused(old: str, new: str, line: int, problem: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_slo(changed((old, new)), "slos/a.yaml")
    assert problem in caught.value.what
    assert caught.value.where == f"slos/a.yaml:{line}"
    assert caught.value.next_move


def test_the_guide_and_the_examples_are_right() -> None:
    root = Path(__file__).parents[2]
    (text,) = re.findall(r"```yaml\n(.*?)```", (root / "docs/guides/slo.md").read_text(), re.DOTALL)
    assert parse_slo(text.encode(), "guide.yaml").objectives[0].target == 0.999
    examples = sorted((root / "examples/02-error-budget/slos").glob("*.yaml"))
    assert [parse_slo(one.read_bytes(), one.name).name for one in examples] == ["availability", "latency"]


def test_an_indicator_is_needed() -> None:
    without = TEXT[: TEXT.index("  indicator")] + TEXT[TEXT.index("  timeWindow") :]
    with pytest.raises(Invalid, match="a ratioMetric is needed"):
        parse_slo(without.encode(), "a.yaml")
