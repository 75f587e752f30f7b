"""What earlier releases signed off is computed again by the rule of then; new sign-offs by that of now."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penstock.adapters.cel import Cel
from penstock.core.evidence import Entry, parse_statement, seal
from penstock.core.facts import ENGINE, ENGINES, FIRST_ENGINE
from penstock.core.predicates import SignOff
from penstock.ledger.again import faults, question_of
from tests.golden.deciding import AUTHORITY, QUESTION, decided, evidence
from tests.golden.make import HERE

GOLDEN = {path.parent.name: path.read_bytes() for path in HERE.glob("*/sign-off.json")}
LANGUAGES = {"cel": Cel()}


def wrong(payload: bytes) -> list[str]:
    signed = Entry(4, seal(payload, "ab" * 32, b"s"), parse_statement(payload))
    return faults(signed, evidence(), AUTHORITY, LANGUAGES)


def signed(payload: bytes) -> SignOff:
    predicate = parse_statement(payload).predicate
    assert isinstance(predicate, SignOff)
    return predicate


@pytest.mark.parametrize("release", GOLDEN)
def test_what_an_earlier_release_signed_off_still_verifies(release: str) -> None:
    golden = GOLDEN[release]
    assert wrong(golden) == []
    assert decided(question_of(signed(golden))) == golden


def test_the_first_release_let_one_suite_hide_another() -> None:
    golden = signed(GOLDEN["0.1.0"])
    assert golden.penstock.engine == FIRST_ENGINE
    assert golden.verification_result == "PASSED"
    assert [item.uri for item in golden.input_attestations] == ["urn:penstock:entry:3"]


def test_a_new_sign_off_uses_the_new_rule() -> None:
    new = decided(QUESTION)
    assert wrong(new) == []
    assert signed(new).penstock.engine == signed(new).verifier.id == ENGINE == ENGINES[-1]
    assert signed(new).verification_result == "FAILED"
    assert len(signed(new).input_attestations) == 2


def test_nobody_signs_by_the_old_rule_in_the_name_of_the_new_one() -> None:
    for old, new in ((FIRST_ENGINE, ENGINE), (ENGINE, FIRST_ENGINE)):
        payload = decided(replace(QUESTION, engine=old)).replace(old.encode(), new.encode())
        assert "does not recompute" in wrong(payload)[0]


def test_a_rule_that_is_not_known_here_is_not_guessed() -> None:
    (problem,) = wrong(decided(replace(QUESTION, engine="urn:penstock:engine:99")))
    assert "urn:penstock:engine:99, which this release does not know" in problem
