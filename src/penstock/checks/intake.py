"""Reports that somebody brings: from the bytes of a file to evidence that names its source.

Called by the server, for a report that a source posts, and by the CLI, which asks `guess` first. Pure: who
the source is, and whether it may say this, is known by the caller. Must not invent a result: a report of
no tests is no pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from penstock.checks.cyclonedx import BLANK, parse_cyclonedx
from penstock.checks.reports import parse_coverage, parse_junit
from penstock.checks.sarif import parse_sarif
from penstock.core.digest import digest
from penstock.core.outside import clean
from penstock.core.predicates import Components, Coverage, Findings, Origin, Predicate, TestResult
from penstock.errors import Invalid

#: How much of a file is looked at to tell what it is.
HEAD_BYTES = 4096

Report = TestResult | Coverage | Findings | Components


@dataclass(frozen=True)
class _Given:
    """One report as it was brought."""

    data: bytes
    suite: str
    origin: Origin


def read(
    kind: str, data: bytes, *, source: str, suite: str, origin: Origin = "external"
) -> tuple[Predicate, ...]:
    """What the report says. *source* is who brought it; *suite* names tests and coverage among others."""
    reader = KINDS.get(kind)
    if reader is None:
        raise _unknown(f"unknown kind of report: {clean(kind, 40)!r}", "intake")
    name = clean(suite, 80)
    if not name or name != suite:
        raise Invalid("a suite's name is a short text", where=kind, next_move="name the suite: unit, e2e …")
    found = reader(_Given(data, name, origin))
    return tuple(replace(report, source=source, report=digest(data)) for report in found)


def guess(data: bytes, name: str) -> str:
    """The kind of a report, by its first bytes, else by its name. `Invalid` lists the kinds."""
    head = data[:HEAD_BYTES].lstrip(BLANK)
    for kind, pattern in BY_CONTENT:
        if pattern.search(head):
            return kind
    for kind, ending in BY_NAME:
        if ending.search(name.lower()):
            return kind
    raise _unknown("it cannot be told what kind of report this is", clean(name, 200))


def _unknown(problem: str, where: str) -> Invalid:
    return Invalid(problem, where=where, next_move=f"say which kind it is: {', '.join(KINDS)}")


def _junit(given: _Given) -> tuple[Report, ...]:
    found = parse_junit(given.data, "junit")
    result = TestResult(
        result="FAILED" if found.failed else "PASSED" if found.passed else "WARNED",
        suite=given.suite,
        configuration=(),
        passed=found.passed,
        failed=found.failed,
        skipped=found.skipped,
        failed_tests=found.failing,
        origin=given.origin,
    )
    return (result,)


def _cobertura(given: _Given) -> tuple[Report, ...]:
    if not given.data.lstrip(BLANK).startswith(b"<"):
        raise Invalid("not XML", where="cobertura")
    return _coverage(given, "cobertura")


def _lcov(given: _Given) -> tuple[Report, ...]:
    if given.data.lstrip(BLANK).startswith(b"<"):
        raise Invalid("not LCOV text", where="lcov")
    return _coverage(given, "lcov")


def _coverage(given: _Given, kind: str) -> tuple[Report, ...]:
    lines = parse_coverage(given.data, kind)
    return (Coverage(given.suite, lines.covered, lines.total, given.origin),)


def _sarif(given: _Given) -> tuple[Report, ...]:
    return parse_sarif(given.data, "sarif", given.origin)


def _cyclonedx(given: _Given) -> tuple[Report, ...]:
    return parse_cyclonedx(given.data, "cyclonedx", given.origin)


KINDS: dict[str, Callable[[_Given], tuple[Report, ...]]] = {
    "junit": _junit,
    "cobertura": _cobertura,
    "lcov": _lcov,
    "sarif": _sarif,
    "cyclonedx": _cyclonedx,
}

#: What may come before the root of an XML document. Atomic: hostile bytes must not make it try again.
_PROLOGUE = rb"\A(?><\?.*?\?>|<!--.*?-->|<![^>]*>|\s)*+"
#: The first that is found in the first bytes tells.
BY_CONTENT: tuple[tuple[str, re.Pattern[bytes]], ...] = (
    ("junit", re.compile(_PROLOGUE + rb"<testsuites?[\s/>]", re.DOTALL)),
    ("cobertura", re.compile(_PROLOGUE + rb"<coverage[\s/>]", re.DOTALL)),
    ("cyclonedx", re.compile(_PROLOGUE + rb"<bom[\s/>]", re.DOTALL)),
    ("cyclonedx", re.compile(rb'\A\{.*?"bomFormat"\s*:\s*"CycloneDX"', re.DOTALL)),
    ("sarif", re.compile(rb'\A\{.*?("runs"\s*:\s*\[|"\$schema"\s*:\s*"[^"]*sarif)', re.DOTALL)),
    ("lcov", re.compile(rb"\A(?:TN|SF):|^SF:[^\n]*\n(?:FN|DA|BRDA|VER)", re.MULTILINE)),
)
BY_NAME: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("lcov", re.compile(r"lcov|\.info$")),
    ("sarif", re.compile(r"\.sarif(\.json)?$")),
    ("cyclonedx", re.compile(r"(\.cdx|\bbom)\.(json|xml)$")),
    ("junit", re.compile(r"junit[^/]*\.xml$|test-[^/]*\.xml$")),
    ("cobertura", re.compile(r"(cobertura|coverage)[^/]*\.xml$")),
)
