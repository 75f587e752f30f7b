"""How a good input becomes a bad one that still looks like it. Used by the tests beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

#: What parsers stumble over, put where a word or a value was.
WEIRD = (
    *(b"", b"-1", b"0", b"1e999", b"-0.0", b"NaN", b"Infinity", b"0x" + b"f" * 5000, b"9" * 400, b"9" * 5000),
    *(b"null", b"true", b"{}", b"[]", b"[" * 90 + b"]" * 90, b"[" * 1100, b'{"a":' * 970, b'"\\ud800"'),
    *(
        b"\x00",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        "²٣é".encode(),
        b"\r\n\r\n",
        b"'",
        b'"',
    ),
    *(b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"&b;", b"<a>" * 300, b"]]>", b"<!-->", b"\\", b"%s", b"../../x"),
    *(
        b'!!int ""',
        b"!!timestamp x",
        b"!!bool x",
        b'!!float ""',
        b"!!binary x",
        b"&a [*a]",
        b"*a",
        b"? [a]: b",
    ),
    *(b"A" * 3000, b"=", b":", b";", b",", b"[::", b"http://[", b"\xc2\x85", b"\t", b"- - - -"),
)
WORD = re.compile(rb"[\w.+/-]+")
#: The same as JSON values.
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 10**30, 10**400, 1.5, float("inf"), float("nan"), "", "x", "\ud800", "\x00"),
    *([], {}, [[]], {"": None}, "A" * 3000, "sha256:" + "0" * 64, "²", "a\nb"),
)

#: (what to do, where, with what): all of it small numbers, so that a failing example shrinks.
Edit = tuple[int, int, int]


def _flip(data: bytes, place: int, choice: int) -> bytes:
    at = place % (len(data) or 1)
    return data[:at] + bytes([data[at] ^ 1 << choice % 8]) + data[at + 1 :] if data else data


def _cut(data: bytes, place: int, choice: int) -> bytes:
    at = place % (len(data) or 1)
    return data[:at] + data[at + 1 + choice % 40 :]


def _repeat(data: bytes, place: int, choice: int) -> bytes:
    at = place % (len(data) or 1)
    return data[:at] + data[at : at + 30] * (2 + choice % 3) + data[at + 30 :]


def _insert(data: bytes, place: int, choice: int) -> bytes:
    at = place % (len(data) or 1)
    return data[:at] + WEIRD[choice % len(WEIRD)] + data[at:]


def _word(data: bytes, place: int, choice: int) -> bytes:
    words = list(WORD.finditer(data))
    if not words:
        return _insert(data, place, choice)
    start, end = words[place % len(words)].span()
    return data[:start] + WEIRD[choice % len(WEIRD)] + data[end:]


def _value(data: bytes, place: int, choice: int) -> bytes:
    """Replace, or remove, one value of a JSON document; of other bytes one word."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return _word(data, place, choice)
    places = list(_places(document))
    if not places:
        return _word(data, place, choice)
    holder, key = places[place % len(places)]
    if choice % (len(VALUES) + 1) == len(VALUES):
        del holder[key]
    else:
        holder[key] = VALUES[choice % (len(VALUES) + 1)]
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def _places(value: Any) -> Any:
    """Every (holder, key) of a document."""
    waiting = [value]
    while waiting:
        holder = waiting.pop()
        items = (
            holder.items()
            if isinstance(holder, dict)
            else enumerate(holder)
            if isinstance(holder, list)
            else ()
        )
        for key, item in list(items):
            yield holder, key
            waiting.append(item)


EDITS: tuple[Callable[[bytes, int, int], bytes], ...] = (_value, _word, _flip, _cut, _insert, _repeat)


def mutated(data: bytes, edits: list[Edit]) -> bytes:
    for what, place, choice in edits:
        data = EDITS[what % len(EDITS)](data, place, choice)
    return data


def inputs(seeds: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """Random bytes now and then; mostly one of the seeds with a few edits."""
    edit = st.tuples(st.integers(0, 5), st.integers(0, 1 << 16), st.integers(0, 1 << 10))
    return st.binary(max_size=200) | st.builds(mutated, st.sampled_from(seeds), st.lists(edit, max_size=4))
