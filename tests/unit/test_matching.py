"""Rules in an order that an API with an order of its own keeps; cookies as patterns."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.adapters._meshes.matching import Match, cookie_of, cookie_pattern, in_order
from penstock.errors import Invalid

PATHS = ("", "/a", "/a/b", "/ab", "/c")
PAIRS = tuple((name, value) for name in ("x", "y", "z") for value in ("1", "2"))


def fits(match: Match, path: str, headers: dict[str, str], cookies: dict[str, str]) -> bool:
    return (
        f"{path}/".startswith(f"{match.path}/")
        and all(headers.get(name) == value for name, value in match.headers)
        and all(cookies.get(name) == value for name, value in match.cookies)
    )


def some(pairs: tuple[tuple[str, str], ...]) -> st.SearchStrategy[tuple[tuple[str, str], ...]]:
    return st.lists(st.sampled_from(pairs), max_size=2, unique_by=lambda pair: pair[0]).map(tuple)


MATCHES = st.lists(st.builds(Match, st.sampled_from(PATHS), some(PAIRS), some(PAIRS)), min_size=1, max_size=5)
REQUESTS = st.tuples(st.sampled_from(("/", "/a", "/a/b/c", "/ab", "/c/d")), some(PAIRS), some(PAIRS))


@settings(max_examples=300, derandomize=True, database=None)
@given(MATCHES, st.lists(REQUESTS, min_size=1, max_size=20))
def test_the_first_that_fits_is_the_one_that_the_api_would_choose(
    matches: list[Match], requests: list[tuple[str, tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]]
) -> None:
    """The longest path, then the most headers, then the first in the list: the API's order."""
    written = in_order(matches, "web")
    for path, headers, cookies in requests:
        given_ = (path, dict(headers), dict(cookies))
        wanted = next((n for n, match in enumerate(matches) if fits(match, *given_)), None)
        fitting = [(m.rank, -n) for n, group in enumerate(written) for m in group if fits(m, *given_)]
        assert (-max(fitting)[1] if fitting else None) == wanted


def test_nothing_is_written_twice_that_no_request_can_have() -> None:
    apart = [Match("/a", (("x", "1"),)), Match("/b", (("y", "1"),)), Match("/a", (("x", "2"), ("y", "1")))]
    assert [len(group) for group in in_order(apart, "web")] == [1, 1, 1]


def test_too_many_overlaps_are_refused() -> None:
    wide = [Match("/p", tuple((f"h{n}-{m}", "1") for m in range(n + 1))) for n in range(12)]
    with pytest.raises(Invalid, match="overlap"):
        in_order(wide, "web")


@pytest.mark.parametrize("cookie", [("ab", "B=2"), ("a.b", "x+y"), ("n", "v/w")])
def test_a_pattern_of_one_cookie_can_be_read_back(cookie: tuple[str, str]) -> None:
    pattern = cookie_pattern([cookie], "")
    assert cookie_of(pattern) == cookie
    header = f"z=1; {cookie[0]}={cookie[1]}; y=2"
    for matcher in (re.fullmatch, re.search):  # proxies do one or the other
        assert matcher(pattern, header)
        assert not matcher(pattern, f"x{header.removeprefix('z=1; ')}")
        assert not matcher(pattern, header.replace(cookie[1], cookie[1] + "x"))


def test_other_patterns_are_no_cookies_of_ours() -> None:
    assert cookie_of("^(.*; ?)?a=.*(;.*)?$") is None
    assert cookie_of(cookie_pattern([("a", "1"), ("b", "2")], "")) is None
    with pytest.raises(Invalid, match="more than 3 cookies"):
        cookie_pattern([(name, "1") for name in "abcd"], "")
