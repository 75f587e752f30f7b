"""Which tests are flaky by the evidence, and whose quarantine counts for which change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fakes.language import FakeLanguage
from penstock.core.digest import digest
from penstock.core.evidence import Entry, Statement, Subject, seal
from penstock.core.factfinding import facts
from penstock.core.people import By, Person, Quarantine
from penstock.core.policy import PolicyDocument, RuleDocument, sign_off
from penstock.core.predicates import Accepted, Predicate, SignOff, TestResult
from penstock.core.release import Artifact, Change, Release
from penstock.core.saying import about_tests, spoken, statement_of
from penstock.core.selection import Question, select, tags_of
from penstock.projections.flaky import flaky, quarantines
from unit.test_owners import Hall

A, B = digest(b"a"), digest(b"b")
RELEASE = Release("catalog", "production", A, digest(b"data"))
CHANGE = Change("code", "catalog", "production", "/repo", "ab" * 20, "Dana <dana@example.org>", "a change")
QUESTION = Question("d", "deploy", CHANGE, Artifact("catalog", A), RELEASE, False, 500, 1000.0)
WHO = "test-lead-organisation"


def entry(index: int, predicate: Predicate, *subjects: Subject) -> Entry:
    statement = Statement(subjects, predicate)
    return Entry(index, seal(statement.payload(), "ab" * 32, b"s"), statement)


def ran(
    index: int, *failing: str, artifact: str = A, tests: int = 5, skipped: int = 0, suite: str = "unit"
) -> Entry:
    passed = tests - len(failing) - skipped
    state = "FAILED" if failing else "PASSED"
    result = TestResult(state, suite, (), passed, len(failing), skipped, failing)  # type: ignore[arg-type]
    return entry(index, result, Subject("catalog", artifact))


# --- found from history -------------------------------------------------------------------------------------


def test_failed_and_passed_on_the_same_artifact_is_flaky() -> None:
    found = flaky([ran(1, "t"), ran(2), ran(3, "t", artifact=B), ran(4, artifact=B)], "catalog")
    (one,) = found
    assert (one.test, one.suite, one.failed, one.passed) == ("t", "unit", 2, 2)
    assert (one.artifacts, one.last) == ((B, A), 3)


@pytest.mark.parametrize(
    "entries",
    [
        [ran(1, "t")],
        [ran(1, "t"), ran(2, artifact=B)],
        [ran(1, "t"), ran(2, suite="e2e")],
        [ran(1, "t"), ran(2, tests=4)],
        [ran(1, "t"), ran(2, skipped=1)],
        [ran(1, "t"), ran(2, "t")],
    ],
    ids=["once", "other artifact", "other suite", "fewer tests", "skipped then", "failed twice"],
)
def test_what_is_not_known_to_have_passed_is_not_flaky(entries: list[Entry]) -> None:
    assert flaky(entries, "catalog") == ()


def test_a_run_that_does_not_name_all_its_failures_proves_nothing() -> None:
    cut = TestResult("FAILED", "unit", (), 1, 4, 0, ("u",))
    found = flaky([ran(1, "t"), entry(2, cut, Subject("catalog", A))], "catalog")
    assert [one.test for one in found] == ["u"]  # which the first run, that names all of its own, passed


def test_acceptance_counts_too_and_other_services_do_not() -> None:
    subject = Subject(RELEASE.id, RELEASE.digest)
    listed = [entry(1, Accepted(2, 1, ("t",)), subject), entry(2, Accepted(3, 0, ()), subject)]
    (one,) = flaky(listed, "catalog")
    assert (one.test, one.suite) == ("t", "acceptance")
    assert flaky(listed, "cat") == ()
    assert flaky([ran(1, "t"), ran(2)], "shop") == ()


def held(index: int = 7, who: str = WHO, expires: float = 2000.0, test: str = "t") -> Entry:
    said = spoken(Quarantine(By(who), "catalog", test, "races", expires), 1.0)
    return entry(index, said, *statement_of(said).subjects)


def test_the_last_word_on_a_test_counts() -> None:
    listed = [held(1), held(2, expires=1500.0), held(3, test="u"), held(4, test="u", expires=900.0)]
    (one,) = quarantines(listed, "catalog", 1000.0)
    assert (one.test, one.expires, one.entry) == ("t", 1500.0, 2)
    assert quarantines(listed, "shop", 1000.0) == ()


# --- what it means for a sign-off ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hall() -> Hall:
    hall = Hall()
    hall.say("op", Person(By("op"), WHO, ("test@example.org",)))
    return hall


def signed(hall: Hall, *entries: Entry, question: Question = QUESTION) -> SignOff:
    asked = (RuleDocument("r", "evidence.tests.blocking == 0", "'yes'", "'no'"),)
    policy = PolicyDocument("p", "test-lead", ("deploy",), ("production",), asked, "text")
    chosen = select(entries, question)
    return sign_off(
        question, policy, "urn:penstock:entry:1", FakeLanguage().compile(policy), chosen, hall.authority
    )


def test_a_quarantined_failure_does_not_block_and_is_named(hall: Hall) -> None:
    found = facts([ran(1, "t", "u"), held()], QUESTION, hall.authority)
    assert found["evidence.tests.failed"] == 2
    assert found["evidence.tests.failing"] == ("t", "u")
    assert found["evidence.tests.blocking"] == 1
    assert found["evidence.tests.quarantined"] == ("t",)
    accepted = facts([entry(1, Accepted(1, 1, ("t",))), held()], QUESTION, hall.authority)
    assert accepted["evidence.acceptance.blocking"] == 0


def test_a_sign_off_cites_the_quarantine_and_lapses_with_it(hall: Hall) -> None:
    found = signed(hall, ran(1, "t"), held())
    assert found.verification_result == "PASSED"
    assert [one.uri for one in found.input_attestations] == ["urn:penstock:entry:1", "urn:penstock:entry:7"]
    assert found.penstock.expires == 2000.0


def test_a_quarantine_of_what_did_not_fail_changes_nothing(hall: Hall) -> None:
    assert signed(hall, ran(1), held()) == signed(hall, ran(1))


def test_more_failures_than_names_block(hall: Hall) -> None:
    unnamed = TestResult("FAILED", "unit", (), 1, 3, 0, ("t",))
    found = facts([entry(1, unnamed, Subject("catalog", A)), held()], QUESTION, hall.authority)
    assert found["evidence.tests.blocking"] == 2


@pytest.mark.parametrize(
    ("change", "who", "expires", "holds"),
    [
        (CHANGE, WHO, 2000.0, True),
        (CHANGE, WHO, 1000.0, False),
        (CHANGE, "security-lead-organisation", 2000.0, False),
        (CHANGE, "test-lead-team-other", 2000.0, False),
        (CHANGE, "stranger", 2000.0, False),
        (replace(CHANGE, author="Tess <TEST@example.org>"), WHO, 2000.0, False),
        (replace(CHANGE, author="a name without an address"), WHO, 2000.0, False),
        (replace(CHANGE, service="shop"), WHO, 2000.0, False),
    ],
)
def test_whose_quarantine_counts(hall: Hall, change: Change, who: str, expires: float, holds: bool) -> None:
    """A present test lead of the service, until it ends, and never for a change of their own."""
    question = replace(QUESTION, change=change)
    result = signed(hall, ran(1, "t"), held(who=who, expires=expires), question=question)
    assert (result.verification_result == "PASSED") is holds


def test_the_gate_finds_it_again() -> None:
    assert f"about:{about_tests('catalog').digest}" in tags_of(QUESTION)
