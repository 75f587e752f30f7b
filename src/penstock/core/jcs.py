"""Writes the canonical JSON (RFC 8785) of everyday values in one pass, many times faster than `rfc8785`.

Called by `core.digest` alone, which gives everything that is not everyday to `rfc8785`. It must not guess:
whatever it cannot write to the very bytes of the reference is `Uncommon`, and says nothing of its value.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from json.encoder import encode_basestring
from typing import Any

from penstock.core.codec import MAX_INT, Fixed, fields_of


class Uncommon(Exception):
    """Not for this module to write."""


def text_of(value: object) -> str:
    """The canonical JSON of a value that `codec.encode` accepts, or `Uncommon`.

    A text may hold half of a surrogate pair: it then has no UTF-8, as it has no canonical form.
    """
    return WRITERS[type(value)](value)


class _Writers(dict[type, Callable[[Any], str]]):
    """How to write values of each type; for dataclasses found out at first use."""

    def __missing__(self, kind: type) -> Callable[[Any], str]:
        fields = fields_of(kind)
        # Names in ASCII sort the same by code points, as Python does, and by UTF-16, as RFC 8785 demands.
        common = fields is not None and all(name.isascii() for name, _ in fields)
        self[kind] = _object(sorted(fields)) if fields and common else _refuse
        return self[kind]


def _object(fields: Sequence[tuple[str, str]]) -> Callable[[Any], str]:
    names = [f"{encode_basestring(name)}:" for name, _ in fields]
    # The first attribute twice: of a single one the getter would give no tuple.
    values = operator.attrgetter(fields[0][1], *(attribute for _, attribute in fields))

    def write(value: object) -> str:
        items = zip(names, values(value)[1:], strict=True)
        parts = [name + WRITERS[type(item)](item) for name, item in items if item is not None]
        return f"{{{','.join(parts)}}}"

    return write


def _mapping(value: Mapping[Any, Any]) -> str:
    for key in value:
        if type(key) is not str or not key.isascii():
            raise Uncommon
    parts = [f"{encode_basestring(key)}:{WRITERS[type(value[key])](value[key])}" for key in sorted(value)]
    return f"{{{','.join(parts)}}}"


def _list(value: list[Any] | tuple[Any, ...]) -> str:
    kinds = set(map(type, value))
    if len(kinds) == 1:  # long lists are of one kind
        return f"[{','.join(map(WRITERS[kinds.pop()], value))}]"
    return f"[{','.join([WRITERS[type(item)](item) for item in value])}]"


def _int(value: int) -> str:
    if -MAX_INT <= value <= MAX_INT:
        return repr(value)
    raise Uncommon


def _float(value: float) -> str:
    """Both take the shortest digits that give the number again; here neither needs an exponent."""
    if 1e-4 <= abs(value) < 1e15 and value % 1:
        return repr(value)
    if -MAX_INT <= value <= MAX_INT and not value % 1:
        return repr(int(value))
    raise Uncommon


def _refuse(_: object) -> str:
    raise Uncommon


WRITERS = _Writers(
    {
        str: encode_basestring,
        int: _int,
        float: _float,
        bool: lambda value: "true" if value else "false",
        type(None): lambda _: "null",
        dict: _mapping,
        Fixed: _mapping,
        list: _list,
        tuple: _list,
    }
)
