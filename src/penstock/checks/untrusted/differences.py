"""Where two answers to the same request differ, beyond what rules ignore.

Called by `__main__`, and in part by `checks.compare` for what needs no pattern. Pure. A place is named, never
what stands there: an answer may hold what nobody else should read.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from penstock.checks.untrusted.answers import is_json
from penstock.checks.untrusted.exchange import Difference, Pair, Seen
from penstock.core.codec import Json
from penstock.core.outside import clean, read_json
from penstock.errors import Invalid

MOST_BYTES = 128 * 1024
MOST_PLACES = 10
MAX_DEPTH = 100
#: Headers that differ from answer to answer, or from release to release, and tell nothing.
NOISE = frozenset(
    {
        "age",
        "alt-svc",
        "connection",
        "content-length",
        "content-type",
        "date",
        "etag",
        "expires",
        "keep-alive",
        "last-modified",
        "server",
        "server-timing",
        "set-cookie",
        "traceparent",
        "tracestate",
        "transfer-encoding",
        "vary",
        "via",
        "x-request-id",
    }
)
#: Keys that may be shown: others may be a person's.
NAMED = re.compile(r"[A-Za-z_(][\w() -]{0,40}|[0-9]{1,4}")
NOISE_PREFIXES = ("x-envoy-", "x-penstock-")


@dataclass(frozen=True)
class Rules:
    """What may differ: JSON pointers in parts (``*`` stands for any), header names, patterns in texts."""

    pointers: tuple[tuple[str, ...], ...] = ()
    headers: frozenset[str] = frozenset()
    patterns: tuple[re.Pattern[str], ...] = ()

    @classmethod
    def of(cls, rules: tuple[str, ...]) -> Rules:
        """`Invalid` if a pattern is none."""
        written = [rule.removeprefix("re:").strip() for rule in rules if rule.startswith("re:")]
        pointers = [tuple(map(_plain, rule.split("/")[1:])) for rule in rules if rule.startswith("/")]
        try:
            patterns = tuple(re.compile(text) for text in written)
        except (re.error, OverflowError) as error:
            raise Invalid(f"a pattern that is none: {clean(str(error), 100)}", where="ignore") from error
        return cls(tuple(pointers), ignored_headers(rules), patterns)

    def skips(self, place: tuple[str, ...]) -> bool:
        return any(
            len(pointer) == len(place) and all(p in ("*", q) for p, q in zip(pointer, place, strict=True))
            for pointer in self.pointers
        )

    def text(self, text: str) -> str:
        """The text without what may differ."""
        for pattern in self.patterns:
            text = pattern.sub("", text)
        return text


def compared(pair: Pair, rules: Rules) -> Difference:
    """Where a pair differs, less where the stable release's own two answers do."""
    found = list(differences(pair.stable, pair.dark, rules))
    if not found:
        return Difference(True, ())
    noise = list(differences(pair.stable, pair.again, rules)) if pair.again is not None else []
    left = [place for place in found if not any(_covers(other, place) for other in noise)]
    return Difference(bool(left), tuple(dict.fromkeys(_shown(place) for place in left))[:MOST_PLACES])


def differences(one: Seen, other: Seen, rules: Rules) -> Iterator[tuple[str, ...]]:
    """Places: the kind of thing first, and for bodies the way into them."""
    if one.status != other.status:
        yield ("status", f"{one.status} instead of {other.status}"[:40])
        return
    kind = media(one.headers)
    if kind != media(other.headers):
        yield ("content type",)
        return
    left, right = telling(one.headers, rules.headers), telling(other.headers, rules.headers)
    for name in sorted(left.keys() | right.keys()):
        if rules.text(left.get(name, "")) != rules.text(right.get(name, "")):
            yield ("header", name)
    if not (one.whole and other.whole):
        yield ("body", "(too long to compare)")
    elif one.body != other.body:
        yield from _bodies(kind, base64.b64decode(one.body), base64.b64decode(other.body), rules)


def _bodies(kind: str, one: bytes, other: bytes, rules: Rules) -> Iterator[tuple[str, ...]]:
    if is_json(kind):
        try:
            left, right = (read_json(b, "body", limit=MOST_BYTES, depth=MAX_DEPTH) for b in (one, other))
        except Invalid:
            left, right = one, other
        else:
            for place in _values(left, right, (), rules):
                yield ("body", *place)
            return
    if rules.text(one.decode("utf-8", "replace")) != rules.text(other.decode("utf-8", "replace")):
        yield ("body",)


def _values(one: Json, other: Json, place: tuple[str, ...], rules: Rules) -> Iterator[tuple[str, ...]]:
    if rules.skips(place):
        return
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            if key in one and key in other:
                yield from _values(one[key], other[key], (*place, key), rules)
            elif not rules.skips((*place, key)):
                yield (*place, key)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from _values(left, right, (*place, str(number)), rules)
    elif isinstance(one, str) and isinstance(other, str):
        if rules.text(one) != rules.text(other):
            yield place
    elif json.dumps(one) != json.dumps(other) and not _same_number(one, other):
        yield place


def _same_number(one: Json, other: Json) -> bool:
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (one, other))
    return numbers and one == other


def _covers(noise: tuple[str, ...], place: tuple[str, ...]) -> bool:
    """Whether noise at one place says nothing can be told of another. A status that changes covers all."""
    return noise[0] in ("status", "content type") or place[: len(noise)] == noise


def _shown(place: tuple[str, ...]) -> str:
    kind, *way = place
    if kind != "body":
        return " ".join(place)
    return "body" + "".join(f"/{part if NAMED.fullmatch(part) else '*'}" for part in way)


def ignored_headers(rules: Iterable[str]) -> frozenset[str]:
    """The names of rules such as ``header: etag``."""
    return frozenset(r.removeprefix("header:").strip().lower() for r in rules if r.startswith("header:"))


def media(headers: Mapping[str, str]) -> str:
    """The media type of an answer, without its parameters."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def telling(headers: Mapping[str, str], ignored: frozenset[str]) -> dict[str, str]:
    """The headers that are compared."""
    return {
        name: value
        for name, value in headers.items()
        if name not in NOISE and name not in ignored and not name.startswith(NOISE_PREFIXES)
    }


def _plain(part: str) -> str:
    return part.replace("~1", "/").replace("~0", "~")
