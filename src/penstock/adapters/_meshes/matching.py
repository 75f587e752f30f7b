"""What a request must have to match, and rules in an order that an API with an order of its own will keep.

Called by the renderers. The Gateway API asks the longest path first, then the most headers, and only then
the order in the list; a plan's rules are asked in order. So a rule that would come too late is written once
more for each later one that would overtake it: with what both ask for, which no later rule can beat. Pure.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from penstock.core.traffic import Rule
from penstock.errors import Invalid

#: More cookies at once would need every order of them in one expression.
MOST_COOKIES = 3
MOST_MATCHES = 64


@dataclass(frozen=True)
class Match:
    """A *path* prefix ("" is any), exact headers (names in lower case) and exact cookies, in their order."""

    path: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    cookies: tuple[tuple[str, str], ...] = ()

    @property
    def rank(self) -> tuple[int, int]:
        """What is asked first: the larger one. All cookies are one header."""
        return len(self.path), len(self.headers) + bool(self.cookies)

    def joined(self, other: Match) -> Match | None:
        """What asks for all that both ask for; None if no request can have it all."""
        short, long = sorted((self.path, other.path), key=len)
        if not f"{long}/".startswith(f"{short}/"):
            return None
        headers, cookies = _united(self.headers, other.headers), _united(self.cookies, other.cookies)
        return None if headers is None or cookies is None else Match(long, headers, cookies)


def match_of(rule: Rule) -> Match:
    return Match(
        rule.path,
        tuple((field.name.lower(), field.value) for field in rule.headers),
        tuple((field.name, field.value) for field in rule.cookies),
    )


def in_order(matches: Sequence[Match], where: str) -> list[tuple[Match, ...]]:
    """For each match, all that must be written for it so that the first that fits is the one that counts."""
    written: list[tuple[Match, ...]] = []
    later: list[Match] = []
    for match in reversed(matches):
        both = (match.joined(other) for other in later if other.rank > match.rank)
        mine = tuple(dict.fromkeys((match, *(found for found in both if found))))
        if len(mine) > MOST_MATCHES:
            what = f"rules that overlap in more than {MOST_MATCHES} ways"
            raise Invalid(what, where=where, next_move="fewer rules, or rules for paths that are not nested")
        written.append(mine)
        later += mine
    return written[::-1]


def cookie_pattern(cookies: Sequence[tuple[str, str]], where: str) -> str:
    """A regular expression for the header ``cookie``, for whoever matches all of it and whoever searches."""
    if len(cookies) > MOST_COOKIES:
        raise Invalid(f"more than {MOST_COOKIES} cookies in one rule", where=where)
    pairs = [f"{re.escape(name)}={re.escape(value)}" for name, value in cookies]
    orders = ["(;.*)?; ?".join(order) for order in itertools.permutations(pairs)]
    middle = orders[0] if len(orders) == 1 else f"({'|'.join(orders)})"
    return f"^(.*; ?)?{middle}(;.*)?$"


def cookie_of(pattern: str) -> tuple[str, str] | None:
    """The one cookie of a pattern that `cookie_pattern` made; None for any other."""
    found = re.fullmatch(r"\^\(\.\*; \?\)\?(.+)\(;\.\*\)\?\$", pattern)
    if found is None:
        return None
    name, _, value = re.sub(r"\\(.)", r"\1", found[1]).partition("=")
    return (name, value) if cookie_pattern([(name, value)], "") == pattern else None


def _united(
    one: Iterable[tuple[str, str]], other: Iterable[tuple[str, str]]
) -> tuple[tuple[str, str], ...] | None:
    found = dict(one)
    for name, value in other:
        if found.setdefault(name, value) != value:
            return None
    return tuple(found.items())
