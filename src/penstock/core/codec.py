"""Frozen dataclasses to JSON values and back, strictly, by their type hints.

Called wherever a value crosses a boundary: evidence, journal records, the node's protocol, the API
and the YAML files (`config`). It must not guess: an unknown field, a missing field or a wrong type
is `Invalid`, naming the path (``stages[2].needs``).

Supported hints: str int float bool None, ``X | None``, ``tuple[T, ...]``, ``list[T]``, ``Mapping[str, T]``,
``Literal``, ``Enum`` and dataclasses. A union of dataclasses is told apart by its field ``kind``
(a ``Literal``).
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from penstock.errors import Invalid

T = TypeVar("T")

#: What ``json.loads`` gives. Any, because Python cannot name a recursive alias before 3.12.
Json = Any
#: The largest whole number that every reader of JSON holds exactly.
MAX_INT = 2**53 - 1


def json_name(name: str) -> Mapping[str, str]:
    """Metadata of a dataclass field whose JSON name differs: ``field(metadata=json_name("buildType"))``."""
    return {"json": name}


def encode(value: object) -> Json:
    """The JSON value of a supported value. Fields that are None are left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((_name(f), getattr(value, f.name)) for f in dataclasses.fields(value))
        return {name: encode(item) for name, item in pairs if item is not None}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise Invalid(f"{value} is not a number that JSON can hold")
    return value


def decode(hint: type[T], value: Json, where: str = "") -> T:
    """Build *hint* from a JSON value, or raise `Invalid` naming the path under *where*."""
    return typing.cast("T", _decode(hint, value, where))


def _name(f: dataclasses.Field[Any]) -> str:
    return str(f.metadata.get("json", f.name))


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _decode(hint: Any, value: Json, where: str) -> Any:
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        return _decode_dataclass(typing.cast("type", hint), value, where)
    if origin in (types.UnionType, typing.Union):
        return _decode_union(typing.get_args(hint), value, where)
    if origin in (tuple, list):
        items = _expect(list, value, where, "a list")
        inner = typing.get_args(hint)[0]
        return origin(_decode(inner, item, f"{where}[{i}]") for i, item in enumerate(items))
    if origin in (dict, Mapping):
        inner = typing.get_args(hint)[1]
        pairs = _expect(dict, value, where, "a mapping").items()
        return {_key(k, where): _decode(inner, v, _join(where, str(k))) for k, v in pairs}
    if origin is typing.Literal:
        return _decode_choice(typing.get_args(hint), value, where)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint(_decode_choice(tuple(member.value for member in hint), value, where))
    return _decode_scalar(hint, value, where)


def _decode_dataclass(cls: type, value: Json, where: str) -> Any:
    data = _expect(dict, value, where, "a mapping")
    fields = {_name(f): f for f in dataclasses.fields(cls) if f.init}
    for key in data:
        if key not in fields:
            known = ", ".join(sorted(fields))
            path = _join(where, _key(key, where))
            raise Invalid(f"unknown field {_shown(key)}; known fields: {known}", where=path)
    arguments = {}
    for name, f in fields.items():
        if name in data:
            arguments[f.name] = _decode(_hints(cls)[f.name], data[name], _join(where, name))
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            if not _optional(_hints(cls)[f.name]):
                raise Invalid(f"missing field {name!r}", where=where)
            arguments[f.name] = None
    return cls(**arguments)


def _decode_union(options: tuple[Any, ...], value: Json, where: str) -> Any:
    if value is None and types.NoneType in options:
        return None
    rest = [option for option in options if option is not types.NoneType]
    if len(rest) == 1:
        return _decode(rest[0], value, where)
    if not all(dataclasses.is_dataclass(option) for option in rest):
        return _decode_scalar_union(rest, value, where)
    kinds = {typing.get_args(_hints(option)["kind"])[0]: option for option in rest}
    kind = _decode_choice(tuple(kinds), _expect(dict, value, where, "a mapping").get("kind"), where)
    return _decode(kinds[kind], value, where)


def _decode_scalar_union(options: list[Any], value: Json, where: str) -> Any:
    for option in options:
        try:
            return _decode(option, value, where)
        except Invalid:
            continue
    names = ", ".join(getattr(option, "__name__", str(option)) for option in options)
    raise Invalid(f"expected one of {names}, found {_shown(value)}", where=where)


def _decode_choice(options: tuple[Any, ...], value: Json, where: str) -> Any:
    # `True == 1` in Python: compare the types as well, or a boolean passes for a number.
    for option in options:
        if type(option) is type(value) and option == value:
            return value
    known = ", ".join(repr(option) for option in options)
    raise Invalid(f"expected one of {known}, found {_shown(value)}", where=where)


def _decode_scalar(hint: Any, value: Json, where: str) -> Any:
    if hint is Any or hint is object:
        return value
    if hint is types.NoneType:
        return _expect(types.NoneType, value, where, "null")
    if hint in (int, float) and type(value) is int and abs(value) > MAX_INT:
        raise Invalid(f"expected a number of at most {MAX_INT}, found one beyond it", where=where)
    if hint is float and type(value) in (int, float):
        if not math.isfinite(value):
            raise Invalid(f"expected a finite number, found {value}", where=where)
        return float(value)
    if hint in (str, int, bool) and type(value) is hint:
        return value
    raise Invalid(f"expected {_word(hint)}, found {_shown(value)}", where=where)


def _expect(kind: type, value: Json, where: str, word: str) -> Any:
    if not isinstance(value, kind):
        raise Invalid(f"expected {word}, found {_shown(value)}", where=where)
    return value


def _key(key: Any, where: str) -> str:
    if not isinstance(key, str):
        raise Invalid(f"expected a text key, found {_shown(key)}", where=where)
    return key


def _optional(hint: Any) -> bool:
    return types.NoneType in typing.get_args(hint)


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _word(hint: Any) -> str:
    words = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    return words.get(hint, str(hint))


def _shown(value: Json) -> str:
    if isinstance(value, (dict, list)):
        return "a mapping" if isinstance(value, dict) else "a list"
    if type(value) is int and abs(value) > MAX_INT:
        return "a huge number"  # Python does not even write thousands of digits
    return repr(value) if len(repr(value)) < 60 else repr(value)[:57] + "…"
