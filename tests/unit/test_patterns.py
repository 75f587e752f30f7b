"""Patterns in policies: how large each is, before the library compiles it and holds everybody up."""

from __future__ import annotations

import pytest

from penstock.adapters._patterns import MOST, size, wrong_with_patterns
from penstock.adapters.cel import Cel
from penstock.core.policy import PolicyDocument, RuleDocument
from penstock.errors import Invalid


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("abc", 3),
        ("a{3}", 3),
        ("a{2,5}b*", 6),
        ("a{2,}", 2),
        ("(ab){10}", 20),
        ("((a{9}){9}){9}", 729),
        ("(a|b(c{4})){3}d", 22),
        ("[0-9a-f]{64}", 256),
        (r"\d{4}-\d{2}", 7),
        (r"\pL{300}", 75_000),
        (r"\p{Greek}{2}", 500),
        (r"[^\pL]{2}", 500),
        (".{20}", 100),
        ("a\\{3}", 2 + 2),
        ("a{x}", 4),
        ("(((", 0),
        (")a", 2),
        ("", 0),
    ],
)
def test_repetitions_are_counted_out(pattern: str, expected: int) -> None:
    assert size(pattern) == expected


GOOD = [
    "change.author.matches('^[a-z]+@example[.]org$')",
    "change.author.matches(r'^\\w+@example\\.org$') && !matches(change.author, \"root\")",
    "change.author.matches('[0-9a-f]{64}')",
    "change.author.matches('''it's''')",
    "change.author.matches('^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$')",
    "evidence.tests.failing.all(name, name.matches('^known_'))",
    "'.matches(' != change.author",
]
BAD = [
    r"change.author.matches('\\pL{300}')",
    r"change.author.matches(r'\pL{300}')",
    "change.author.matches('((a{9}){9}){9}')",
    "matches(change.author, '((a{9}){9}){9}')",
    # Put together, or written so that nobody sees it.
    "change.author.matches('a{9' + '99}')",
    "change.author.matches(change.author)",
    "change.author . matches ( ('a') )",
    "change.author.matches('a\\x7b999}')",
    "change.author.matches('a\\173999}')",
    "change.author.matches(['a{999}'][0])",
    "change.author.matches('a{00000999}')",
    r"change.author.matches(r'(\Q)\Ea){400}')",
]


def compiled(when: str) -> object:
    rule = RuleDocument("r", when, "'yes'", "'no'")
    return Cel().compile(PolicyDocument("p", "o", ("deploy",), ("production",), (rule,), ""))


@pytest.mark.parametrize("text", GOOD)
def test_what_policies_ask_for_is_allowed(text: str) -> None:
    assert wrong_with_patterns(text) == ""
    assert compiled(text)


@pytest.mark.parametrize("text", BAD)
def test_a_pattern_that_would_hold_everybody_up_is_refused_before_it_runs(text: str) -> None:
    assert wrong_with_patterns(text)
    with pytest.raises(Invalid, match="pattern"):
        compiled(text)


def test_the_largest_pattern_is_said_in_the_error() -> None:
    with pytest.raises(Invalid, match=rf"'a\{{{MOST + 1}\}}' is too large") as caught:
        compiled(f"change.author.matches('a{{{MOST + 1}}}')")
    assert caught.value.next_move
    assert compiled(f"change.author.matches('a{{{MOST}}}')")
