"""What the readers of findings share: how bad a rating is, and the summary that is evidence.

Called by `checks.sarif`, `core.bom` and `core.imported`. Pure. What nobody rated is not harmless.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from penstock.core.predicates import Finding, Findings, Origin

Severity = Literal["critical", "high", "medium", "low"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)  # the worst first

MAX_FINDINGS = 200
#: What scanners call a severity. A word that is not here says nothing.
WORDS: dict[str, Severity] = {
    "critical": "critical",
    "high": "high",
    "important": "high",
    "medium": "medium",
    "moderate": "medium",
    "low": "low",
    "minor": "low",
    "negligible": "low",
    "info": "low",
    "informational": "low",
    "none": "low",
}


def by_score(score: float) -> Severity:
    """A CVSS score from 0 to 10, in words."""
    return "critical" if score >= 9 else "high" if score >= 7 else "medium" if score >= 4 else "low"


def worst(ratings: Iterable[Severity | None]) -> Severity:
    """The worst of the ratings that say something; high if none does."""
    known = [rating for rating in ratings if rating is not None]
    return min(known, key=SEVERITIES.index) if known else "high"


def summarise(tool: str, origin: Origin, found: Iterable[Finding]) -> Findings:
    """Whole counts, and the worst findings first."""
    listed = sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))
    critical, high, medium, low = (sum(f.severity == severity for f in listed) for severity in SEVERITIES)
    return Findings(tool, origin, critical, high, medium, low, tuple(listed[:MAX_FINDINGS]))
