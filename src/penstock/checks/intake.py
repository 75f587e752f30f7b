"""Reading reports. Stub."""

from __future__ import annotations

from penstock.checks.reports import parse_junit
from penstock.core.digest import digest
from penstock.core.predicates import Origin, Predicate, TestResult

KINDS = ("junit",)


def guess(data: bytes, name: str) -> str:
    return "junit"


def read(
    kind: str, data: bytes, *, source: str, suite: str, origin: Origin = "external"
) -> tuple[Predicate, ...]:
    found = parse_junit(data, kind)
    result = TestResult(
        "FAILED" if found.failed else "PASSED",
        suite,
        (),
        found.passed,
        found.failed,
        found.skipped,
        found.failing,
        origin,
        None,
        source,
        digest(data),
    )
    return (result,)
