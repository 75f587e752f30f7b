"""Tells whether a value would survive being written as JSON and read again, exactly and for ever.

Called by `core.evidence`: a statement that was just written, and of which this is true, need not be decoded
again to be trusted. Only types are looked at. "No" is always a safe answer: then the statement is decoded.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from penstock.core.codec import MAX_INT, Fixed

Check = Callable[[Any], bool]
UNIONS = (types.UnionType, typing.Union)


def survives(value: object) -> bool:
    """Whether a frozen dataclass comes back from `codec.encode` and `codec.decode` as an equal value.

    That is so if every field is of the very type of its hint, at every depth, and nothing can be changed.
    """
    kind: Any = type(value)
    return _check(kind)(value)


@functools.cache
def _check(hint: Any) -> Check:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in (str, bool, types.NoneType):
        return lambda value: type(value) is hint
    if hint in (int, float):  # beyond that, a whole number is refused when it is read
        return lambda value: type(value) is hint and -MAX_INT <= value <= MAX_INT
    if origin is typing.Literal:
        return lambda value: any(type(value) is type(option) and value == option for option in arguments)
    if origin in UNIONS and len(arguments) == 2 and types.NoneType in arguments:
        return _or_none(next(option for option in arguments if option is not types.NoneType))
    if origin is tuple and arguments[1:] == (...,):
        return _tuple(arguments[0])
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _dataclass(hint)
    if origin is Mapping:
        return _fixed(arguments[1])
    return lambda _: False  # lists can be changed; other unions are not worth telling apart


def _or_none(hint: Any) -> Check:
    inner = _check(hint)
    return lambda value: value is None or inner(value)


def _tuple(hint: Any) -> Check:
    inner = _check(hint)
    return lambda value: type(value) is tuple and all(map(inner, value))


def _fixed(hint: Any) -> Check:
    inner = _check(hint)
    return lambda value: type(value) is Fixed and all(type(key) is str and inner(value[key]) for key in value)


def _dataclass(cls: Any) -> Check:
    fields, hints = dataclasses.fields(cls), typing.get_type_hints(cls)
    frozen = cls.__dataclass_params__.frozen and not hasattr(cls, "__post_init__")
    if not fields or not frozen or not all(f.init and _stays(f, hints[f.name]) for f in fields):
        return lambda _: False
    # The first twice: of a single attribute the getter would give no tuple.
    values = operator.attrgetter(fields[0].name, *(f.name for f in fields))
    checks = [_check(hints[f.name]) for f in fields]

    def check(value: object) -> bool:
        if type(value) is not cls:
            return False
        return all(map(operator.call, checks, values(value)[1:]))

    return check


def _stays(f: dataclasses.Field[Any], hint: Any) -> bool:
    """None is not written; reading must then give None again, and not another default."""
    if types.NoneType not in typing.get_args(hint):
        return True
    return f.default_factory is dataclasses.MISSING and f.default in (None, dataclasses.MISSING)
