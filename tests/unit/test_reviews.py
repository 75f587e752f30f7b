"""Nobody approves their own change, however their address is spelled."""

from __future__ import annotations

import pytest

from penstock.core.authority import Authority, Key
from penstock.core.facts import FIRST_ENGINE
from penstock.core.release import Change
from penstock.core.reviews import objection

KNOWN = ("Alice@Example.org", "alice@bücher.example")
AUTHORITY = Authority(
    keys={"a": Key("alice", b"a" * 32, "person"), "b": Key("bob", b"b" * 32, "person")},
    addresses={"alice": KNOWN, "bob": ("bob+reviews@example.org",)},
)


def change(author: str, signing_key: str = "") -> Change:
    return Change("code", "s", "production", "/r", "ab" * 20, author, "x", signing_key=signing_key)


@pytest.mark.parametrize(
    "author",
    [
        "Alice <alice@example.org>",
        "A <ALICE@EXAMPLE.ORG>",
        "Somebody Else <alice@example.org.>",
        "A <alice+work@example.org>",
        "A <alice+a+b@EXAMPLE.org>",
        'A <"alice"@example.org>',
        "A <alice@xn--bcher-kva.example>",
        "A <alice@BU\u0308CHER.example>",
        "A < alice@example.org >",
        "A <\uff41lice@example.org>",
        "A <bob@example.org> <alice@example.org>",
    ],
)
def test_an_authors_address_is_theirs_in_every_spelling(author: str) -> None:
    assert objection("alice", change(author), AUTHORITY) == "is the author"


def test_a_persons_own_tag_is_no_disguise_either() -> None:
    assert objection("bob", change("B <bob@example.org>"), AUTHORITY) == "is the author"
    assert objection("bob", change("B <bob+x@example.org>"), AUTHORITY) == "is the author"


@pytest.mark.parametrize(
    "author",
    ["A <alice2@example.org>", "A <ali@example.org>", "A <alice@example.org.evil>", "A <+@x>", "A <@>"],
)
def test_another_address_is_another_person(author: str) -> None:
    assert objection("alice", change(author), AUTHORITY) == ""


@pytest.mark.parametrize("author", ["", "alice", "alice@example.org", "A <>", "A <alice@example.org> and me"])
def test_whoever_cannot_be_told_from_the_author_does_not_count(author: str) -> None:
    assert "cannot be told from the author" in objection("alice", change(author), AUTHORITY)


def test_a_signature_tells_more_than_an_address() -> None:
    signed = change("B <bob@example.org>", (b"a" * 32).hex())
    assert objection("alice", signed, AUTHORITY) == "signed the change"


def test_sign_offs_of_before_are_computed_by_the_rule_of_then() -> None:
    assert objection("alice", change("A <alice+work@example.org>"), AUTHORITY, FIRST_ENGINE) == ""
    assert objection("alice", change("A <ALICE@example.org>"), AUTHORITY, FIRST_ENGINE) == "is the author"
