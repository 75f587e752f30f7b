"""Verdicts: PASS, FAIL or UNKNOWN with its cause. UNKNOWN never passes, and neither does nothing.

Called by policies, checks and the gate. Composition is one rule: any FAIL fails; else any UNKNOWN
leaves it unknown; else, if there was anything at all, it passes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Result(StrEnum):
    PASS = "PASS"
    FAIL = "FAIL"
    UNKNOWN = "UNKNOWN"


class Cause(StrEnum):
    """Why a verdict is UNKNOWN."""

    MISSING = "MISSING"
    STALE = "STALE"
    ERROR = "ERROR"


@dataclass(frozen=True)
class Verdict:
    result: Result
    cause: Cause | None = None
    reason: str = ""

    @property
    def passed(self) -> bool:
        return self.result is Result.PASS


def passing(reason: str = "") -> Verdict:
    return Verdict(Result.PASS, None, reason)


def failing(reason: str) -> Verdict:
    return Verdict(Result.FAIL, None, reason)


def unknown(cause: Cause, reason: str) -> Verdict:
    return Verdict(Result.UNKNOWN, cause, reason)


def combine(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict of all of them together. An empty list is UNKNOWN(MISSING): it never passes.

    Among several UNKNOWN the worst cause is kept: ERROR, then STALE, then MISSING.
    """
    found = list(verdicts)
    failures = [v for v in found if v.result is Result.FAIL]
    if failures:
        return failing("; ".join(v.reason for v in failures))
    unknowns = [v for v in found if v.result is Result.UNKNOWN]
    for cause in (Cause.ERROR, Cause.STALE, Cause.MISSING):
        if any(v.cause is cause for v in unknowns):
            return unknown(cause, "; ".join(v.reason for v in unknowns))
    if unknowns or not found:
        return unknown(Cause.MISSING, "nothing was checked")
    return passing("; ".join(v.reason for v in found if v.reason))
