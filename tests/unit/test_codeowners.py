"""CODEOWNERS by GitHub's rules: which line decides, and which lines do not count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.codeowners import MAX_LINE, MAX_TEXT, owners
from penstock.errors import Invalid

ORGANISATION = """\
# Who looks after what.
*                @acme/everyone

*.js             @ann  bob@example.org   # inline
/policies/       @acme/leads
/policies/security-lead.yaml @cid
docs/*           @dee
apps/            @eve
/apps/free
**/logs          @fay
/my\\ folder/     @gus
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("README.md", ("@acme/everyone",)),
        ("a/b/c.js", ("@ann", "bob@example.org")),
        ("policies/test-lead.yaml", ("@acme/leads",)),
        ("policies/a/b.js", ("@acme/leads",)),
        ("policies/security-lead.yaml", ("@cid",)),
        ("sub/policies/x.yaml", ("@acme/everyone",)),
        ("docs/intro.md", ("@dee",)),
        ("docs/deep/intro.md", ("@acme/everyone",)),
        ("deep/apps/x", ("@eve",)),
        ("apps/free/x", ()),
        ("build/logs/today", ("@fay",)),
        ("my folder/x", ("@gus",)),
        ("my", ("@acme/everyone",)),
    ],
)
def test_the_last_line_that_matches_wins(path: str, expected: tuple[str, ...]) -> None:
    assert owners(ORGANISATION, path) == expected
    assert owners("\ufeff" + ORGANISATION.replace("\n", "\r\n"), path) == expected


#: Pattern, paths that it covers, paths that it does not.
PATTERNS = [
    ("foo", "foo foo/a a/foo a/foo/b", "foo.txt a/foo.txt xfoo"),
    ("/foo", "foo foo/a/b", "a/foo foot"),
    ("foo/", "foo/a a/foo/b/c", "foo a/foo"),
    ("/foo/", "foo/a foo/a/b", "foo a/foo/b"),
    ("foo/bar", "foo/bar foo/bar/a", "a/foo/bar foo/bart"),
    ("foo/bar/", "foo/bar/a", "foo/bar a/foo/bar/b"),
    ("*", "foo a/b/c .x", ""),
    ("**", "foo a/b/c", ""),
    ("/*", "foo bar", "foo/bar"),
    ("/*/", "foo/bar foo/a/b", "foo"),
    ("f*", "foo f a/foo foo/a", "xfoo"),
    ("/f*", "foo foo/a", "a/foo"),
    ("f*o*r", "foobar for fooor", "foo fr fobarx"),
    ("foo/*", "foo/a", "foo foo/a/b a/foo/b"),
    ("foo/*.txt", "foo/a.txt foo/.txt", "foo/a/b.txt a/foo/b.txt foo/atxt"),
    ("foo/*/baz", "foo/a/baz foo/a/baz/b", "foo/baz foo/a/b/baz"),
    ("f?o", "foo fao", "fo fooo f/o"),
    ("f\\?o", "f?o", "foo"),
    ("f\\*o", "f*o", "foo"),
    ("**/foo/bar", "foo/bar a/b/foo/bar/c", "foo/a/bar"),
    ("**/*bar*", "bar a/rebar a/b/barrio", "a/b"),
    ("foo/**", "foo/a foo/a/b", "foo a/foo/b"),
    ("foo/**/bar", "foo/bar foo/a/bar foo/a/b/bar/c", "a/foo/bar foobar"),
    ("foo/**/", "foo/a foo/a/b", "foo"),
    ("foo/**/bar/b*", "foo/bar/b foo/a/bar/bx", "foo/bar foo/bar/x"),
    ("Foo", "Foo", "foo FOO"),
    ("a.c", "a.c", "abc"),
    ("größe", "größe x/größe", "gr"),
]


@pytest.mark.parametrize(("pattern", "covered", "others"), PATTERNS)
def test_what_a_pattern_covers(pattern: str, covered: str, others: str) -> None:
    paths = (*covered.split(), *others.split())
    assert {path for path in paths if owners(f"{pattern} @x", path)} == set(covered.split())


@pytest.mark.parametrize(
    "line",
    [
        "!a.py @x",
        "[ab].py @x",
        "a.p[y] @x",
        "\\#a @x",
        "/ @x",
        "*** @x",
        "a.py x",
        "a.py @x nobody",
        "a.py @",
        "a.py @org/",
        "# a.py @x",
        "a.py\\",
        "[Section] @x",
        "   ",
    ],
)
def test_a_line_that_does_not_work_there_is_skipped(line: str) -> None:
    assert owners(f"* @above\n{line}\n", "a.py") == ("@above",)


def test_a_line_without_owners_takes_them_away() -> None:
    assert owners("* @above\na.py\n", "a.py") == ()
    assert owners("* @above\na.py # @nobody\n", "a.py") == ()


def test_what_is_too_large_is_an_error_and_not_silence() -> None:
    with pytest.raises(Invalid):
        owners("#" * (MAX_TEXT + 1), "a")
    with pytest.raises(Invalid, match="CODEOWNERS:2"):
        owners("* @x\n" + "a" * MAX_LINE + " @y", "a")
    assert owners("* @x\n#" + "a" * MAX_LINE, "a") == ("@x",)


@pytest.mark.parametrize("path", ["", "/a", "a//b", "a/", "a" * 2000])
def test_what_is_no_path_is_invalid(path: str) -> None:
    with pytest.raises(Invalid):
        owners("* @x", path)


@given(st.text(alphabet="*?/\\ab#![] @\n\t.", max_size=60), st.text(alphabet="ab*? ./", max_size=20))
def test_nothing_but_invalid_is_raised(text: str, path: str) -> None:
    try:
        found = owners(text, path)
    except Invalid:
        return
    assert all("@" in owner for owner in found)


@given(st.text(alphabet="*a", min_size=1, max_size=300).filter(lambda p: "***" not in p))
def test_many_stars_take_no_time(pattern: str) -> None:
    assert owners(f"/{pattern}b @x", "a" * 200) == ()
