"""Reads SARIF 2.1.0, what scanners write, into findings.

Called by the checks beside it. Pure and strict: a run that holds no list of results, or that says it
did not succeed, is `Invalid`: no findings must never be mistaken for none found.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from penstock.checks.reports import MAX_BYTES, MAX_DEPTH
from penstock.core.codec import Json
from penstock.core.findings import MAX_FINDINGS, SEVERITIES, Severity, by_score, summarise
from penstock.core.outside import clean, read_json
from penstock.core.predicates import Finding, Findings, Origin
from penstock.errors import Invalid

BY_LEVEL: dict[str, Severity] = {"error": "high", "warning": "medium", "note": "low", "none": "low"}
NOT_FINDINGS = ("pass", "notApplicable", "informational")


def parse_sarif(data: bytes, name: str, origin: Origin) -> tuple[Findings, ...]:
    """One `Findings` per tool; *name* is the file named in errors. Suppressed results do not count."""
    document = read_json(data, name, limit=MAX_BYTES, depth=MAX_DEPTH)
    report = _Report(name)
    version = report.field(document, "version", str)
    if version != "2.1.0":
        raise Invalid(f"SARIF version {clean(version, 20)!r}, not 2.1.0", where=name)
    runs = report.field(document, "runs", list)
    if not runs:
        raise Invalid("a SARIF report without a run", where=name)
    return merge(report.run(run, origin) for run in runs)


def merge(reports: Iterable[Findings]) -> tuple[Findings, ...]:
    """One report per tool: of two statements by one tool about one artifact only the newer would count."""
    merged: dict[str, Findings] = {}
    for report in reports:
        earlier = merged.get(report.tool)
        if earlier is None:
            merged[report.tool] = report
            continue
        both = sorted((*earlier.findings, *report.findings), key=lambda f: SEVERITIES.index(f.severity))
        merged[report.tool] = Findings(
            tool=report.tool,
            origin=report.origin,
            critical=earlier.critical + report.critical,
            high=earlier.high + report.high,
            medium=earlier.medium + report.medium,
            low=earlier.low + report.low,
            findings=tuple(both[:MAX_FINDINGS]),
        )
    return tuple(merged.values())


def at_least(report: Findings, floor: Severity) -> Findings:
    """The report with nothing below *floor*: what is found at all counts as that much."""
    worst = SEVERITIES.index(floor)
    lower = SEVERITIES[worst + 1 :]
    raised = tuple(replace(f, severity=floor) if f.severity in lower else f for f in report.findings)
    # Counts are whole while the list may be cut, so they are raised on their own.
    counts = {s: getattr(report, s) for s in SEVERITIES}
    total = sum(counts[s] for s in SEVERITIES[worst:])
    critical, high, medium, low = (
        counts[s] if i < worst else total if i == worst else 0 for i, s in enumerate(SEVERITIES)
    )
    return Findings(report.tool, report.origin, critical, high, medium, low, raised)


class _Report:
    """Reads one document; every error names its file."""

    def __init__(self, name: str) -> None:
        self._name = name

    def field(self, value: Json, key: str, kind: type) -> Json:
        found = value.get(key) if isinstance(value, dict) else None
        if not isinstance(found, kind):
            raise Invalid(f"not SARIF: {key!r} is missing or of the wrong type", where=self._name)
        return found

    def run(self, run: Json, origin: Origin) -> Findings:
        tool = self.field(run, "tool", dict)
        driver = self.field(tool, "driver", dict)
        name = clean(self.field(driver, "name", str), 80)
        for invocation in _list(run.get("invocations")):
            if isinstance(invocation, dict) and invocation.get("executionSuccessful") is False:
                raise Invalid(f"{name} says that it did not succeed", where=self._name)
        rules = _rules(tool)
        results = self.field(run, "results", list)
        found = (self._finding(result, rules, _list(driver.get("rules"))) for result in results)
        return summarise(name, origin, [finding for finding in found if finding])

    def _finding(self, result: Json, rules: dict[str, Json], listed: list[Json]) -> Finding | None:
        if not isinstance(result, dict):
            raise Invalid("not SARIF: a result that is no object", where=self._name)
        if result.get("kind") in NOT_FINDINGS or _suppressed(result):
            return None
        rule = _rule_of(result, rules, listed)
        message = result.get("message")
        text = message.get("text") if isinstance(message, dict) else None
        return Finding(
            id=clean(str(result.get("ruleId") or rule.get("id") or "?"), 120),
            severity=_severity(result, rule),
            message=clean(str(text or ""), 300),
            location=_location(result),
        )


def _rules(tool: Json) -> dict[str, Json]:
    components = [tool["driver"], *_list(tool.get("extensions"))]
    rules = [rule for c in components if isinstance(c, dict) for rule in _list(c.get("rules"))]
    return {str(rule.get("id")): rule for rule in rules if isinstance(rule, dict)}


def _rule_of(result: Json, rules: dict[str, Json], listed: list[Json]) -> Json:
    reference = _dict(result.get("rule"))
    name = result.get("ruleId", reference.get("id"))
    if isinstance(name, str) and name in rules:
        return rules[name]
    index = result.get("ruleIndex", reference.get("index"))
    if type(index) is int and 0 <= index < len(listed):
        return _dict(listed[index])
    return {}


def _severity(result: Json, rule: Json) -> Severity:
    """From the CVSS-like score that the result or its rule carries, else from its level."""
    for holder in (result, rule):
        score = _score(_dict(holder.get("properties")).get("security-severity"))
        if score is not None:
            return by_score(score)
    level = result.get("level") or _dict(rule.get("defaultConfiguration")).get("level") or "warning"
    return BY_LEVEL.get(level, "high") if isinstance(level, str) else "high"


def _score(value: Json) -> float | None:
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        return None
    try:
        score = float(value)
    except (ValueError, OverflowError):
        return None
    return score if 0 <= score <= 10 else None


def _suppressed(result: Json) -> bool:
    given = _list(result.get("suppressions"))
    states = [_dict(entry).get("status", "accepted") for entry in given]
    return bool(states) and all(state == "accepted" for state in states)


def _location(result: Json) -> str:
    for location in _list(result.get("locations")):
        physical = _dict(_dict(location).get("physicalLocation"))
        uri = _dict(physical.get("artifactLocation")).get("uri")
        line = _dict(physical.get("region")).get("startLine")
        if isinstance(uri, str):
            place = clean(uri, 300).removeprefix("file://").removeprefix("/app/")
            return f"{place}:{line}" if type(line) is int else place
    return ""


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _dict(value: Json) -> dict[str, Json]:
    return value if isinstance(value, dict) else {}
