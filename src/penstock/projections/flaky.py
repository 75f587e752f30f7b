"""Which tests are flaky? Those that both failed and passed on the very same artifact, by the ledger.

Called by the server. A fold over ledger entries alone. A report names the tests that failed and counts the
rest: a test passed in a run of its suite if that run had as many tests as the one in which it failed, skipped
no more of them, and names all that failed without it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from penstock.core.evidence import Entry
from penstock.core.people import Quarantine
from penstock.core.predicates import Accepted, TestResult

ACCEPTANCE = "acceptance"
#: What is listed of an organisation's history; the newest first.
MOST_TESTS = 200
MOST_ARTIFACTS = 5


@dataclass(frozen=True)
class Flaky:
    """*failed* and *passed* count runs on the *artifacts* (digests, the newest first) where both happened.
    *last* is the entry of the newest failure."""

    test: str
    suite: str
    failed: int
    passed: int
    artifacts: tuple[str, ...]
    last: int


@dataclass(frozen=True)
class Quarantined:
    """A test whose failure does not block, until *expires*; *entry* proves who said so."""

    test: str
    by: str
    reason: str
    expires: float
    entry: int


@dataclass(frozen=True)
class _Run:
    index: int
    tests: int
    skipped: int
    failed: int
    failing: frozenset[str]

    def passed(self, test: str, failure: _Run) -> bool:
        """Whether *test*, which failed in another run of the suite, passed in this one."""
        whole = self.tests == failure.tests and self.skipped <= failure.skipped
        return whole and test not in self.failing and len(self.failing) == self.failed


def flaky(entries: Iterable[Entry], service: str) -> tuple[Flaky, ...]:
    """The flaky tests of a service, those that failed last first."""
    runs: dict[tuple[str, str, str], list[_Run]] = defaultdict(list)
    for entry in entries:
        for name, run in _runs(entry, service):
            runs[name].append(run)
    found: dict[tuple[str, str], list[tuple[str, int, int, int]]] = defaultdict(list)
    for (artifact, suite, _), listed in runs.items():
        for test in frozenset().union(*(run.failing for run in listed)):
            failures = [run for run in listed if test in run.failing]
            passes = [run for run in listed if any(run.passed(test, failure) for failure in failures)]
            if passes:
                found[suite, test].append((artifact, len(failures), len(passes), failures[-1].index))
    named = [_flaky(suite, test, seen) for (suite, test), seen in found.items()]
    return tuple(sorted(named, key=lambda one: -one.last)[:MOST_TESTS])


def _flaky(suite: str, test: str, seen: list[tuple[str, int, int, int]]) -> Flaky:
    newest = sorted(seen, key=lambda one: -one[3])
    return Flaky(
        test=test,
        suite=suite,
        failed=sum(failed for _, failed, _, _ in seen),
        passed=sum(passed for _, _, passed, _ in seen),
        artifacts=tuple(artifact for artifact, *_ in newest[:MOST_ARTIFACTS]),
        last=newest[0][3],
    )


def _runs(entry: Entry, service: str) -> Iterator[tuple[tuple[str, str, str], _Run]]:
    """(what was tested, the suite, who reported) and what came of it, if it is the service's."""
    said = entry.statement.predicate
    for subject in entry.statement.subjects:
        match said:
            case TestResult() if subject.name == service:
                tests = said.passed + said.failed + said.skipped
                run = _Run(entry.index, tests, said.skipped, said.failed, frozenset(said.failed_tests))
                yield (subject.digest, said.suite, f"{said.origin} {said.source or ''}"), run
            case Accepted() if subject.name.rpartition("-")[0] == service:
                tests = said.passed + said.failed
                run = _Run(entry.index, tests, 0, said.failed, frozenset(said.failed_tests))
                yield (subject.digest, ACCEPTANCE, ""), run
            case _:
                pass


def quarantines(entries: Iterable[Entry], service: str, now: float) -> tuple[Quarantined, ...]:
    """The quarantines of a service that hold now: the last word on each test."""
    last: dict[str, Quarantined] = {}
    for entry in entries:
        said = entry.statement.predicate
        if isinstance(said, Quarantine) and said.service == service:
            by, reason = said.by.identity, said.reason
            last[said.test] = Quarantined(said.test, by, reason, said.expires, entry.index)
    return tuple(sorted((one for one in last.values() if one.expires > now), key=lambda one: one.test))
