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
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from penstock.core.nearest import did_you_mean
from penstock.errors import Invalid

T = TypeVar("T")

#: What ``json.loads`` gives. Any, because Python cannot name a recursive alias before 3.12.
Json = Any
#: Where a value stands, outermost first: field names, keys, and list indices.
Path = tuple[str | int, ...]
#: Made once for each type hint: reading hints is far slower than following them.
Decoder = Callable[[Json, Path], Any]
#: The largest whole number that every reader of JSON holds exactly.
MAX_INT = 2**53 - 1


def json_name(name: str) -> Mapping[str, str]:
    """Metadata of a dataclass field whose JSON name differs: ``field(metadata=json_name("buildType"))``."""
    return {"json": name}


class Fixed(Mapping[str, T]):
    """A mapping that never changes: what was read off it once stays so."""

    __slots__ = ("_of",)

    def __init__(self, of: Mapping[str, T]) -> None:
        self._of = dict(of)

    def __getitem__(self, key: str) -> T:
        return self._of[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._of)

    def __len__(self) -> int:
        return len(self._of)

    def __repr__(self) -> str:
        return repr(self._of)


# --- encoding ----------------------------------------------------------------------------------------

#: Values that are their own JSON.
PLAIN = (str, int, bool, types.NoneType)


def encode(value: object) -> Json:
    """The JSON value of a supported value. Fields that are None are left out."""
    kind: type = type(value)
    if kind in PLAIN:
        return value
    fields = fields_of(kind)
    if fields is not None:
        pairs = [(name, getattr(value, attribute)) for name, attribute in fields]
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


@functools.cache
def fields_of(cls: type) -> tuple[tuple[str, str], ...] | None:
    """The JSON name and the attribute of every field; None for what is no dataclass."""
    if not dataclasses.is_dataclass(cls):
        return None
    return tuple((_name(f), f.name) for f in dataclasses.fields(cls))


def _name(f: dataclasses.Field[Any]) -> str:
    return str(f.metadata.get("json", f.name))


# --- decoding ----------------------------------------------------------------------------------------


def decode(hint: type[T], value: Json, where: str = "") -> T:
    """Build *hint* from a JSON value, or raise `Invalid` naming the path under *where*."""
    return typing.cast("T", _decoder(typing.cast("Any", hint))(value, (where,) if where else ()))


@functools.cache
def _decoder(hint: Any) -> Decoder:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        # Made at first use: a dataclass may hold itself.
        return functools.partial(_decode_dataclass, typing.cast("type", hint))
    if origin in (types.UnionType, typing.Union):
        return _union(arguments)
    if origin in (tuple, list):
        return functools.partial(_decode_list, origin, _decoder(arguments[0]))
    if origin in (dict, Mapping):
        return functools.partial(_decode_mapping, _decoder(arguments[1]))
    if origin is typing.Literal:
        return functools.partial(_decode_choice, arguments)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        options = tuple(member.value for member in hint)
        return lambda value, where: hint(_decode_choice(options, value, where))
    return _scalar(hint)


def _decode_dataclass(cls: type, value: Json, where: Path) -> Any:
    data = _expect(dict, value, where, "a mapping")
    fields = _plan(cls)
    if not data.keys() <= fields.keys():
        _refuse_unknown(data, fields, where)
    arguments = {}
    for name, (attribute, exactly, decoder, optional) in fields.items():
        if name in data:
            item = data[name]
            arguments[attribute] = item if type(item) is exactly else decoder(item, (*where, name))
        elif optional is None:
            raise Invalid(f"missing field {name!r}", where=_told(where))
        elif optional:
            arguments[attribute] = None
    return cls(**arguments)


def _refuse_unknown(data: Mapping[str, Json], fields: Mapping[str, object], where: Path) -> None:
    for key in data:
        if key not in fields:
            known = ", ".join(sorted(fields))
            path = _told((*where, _key(key, where)))
            meant = did_you_mean(str(key), fields)
            raise Invalid(f"unknown field {_shown(key)}; known fields: {known}{meant}", where=path)


@functools.cache
def _plan(cls: type) -> dict[str, tuple[str, type | None, Decoder, bool | None]]:
    """By JSON name: the attribute, the type that is taken as it is, how to read anything else, and whether it
    may be absent: None, by no means; True, and is None then; False, and has a default."""
    hints = typing.get_type_hints(cls)
    return {
        _name(f): (f.name, _plain(hints[f.name]), _decoder(hints[f.name]), _absence(f, hints[f.name]))
        for f in dataclasses.fields(cls)
        if f.init
    }


def needed(cls: type) -> frozenset[str]:
    """The JSON names of the fields that may not be absent."""
    return frozenset(name for name, (_, _, _, optional) in _plan(cls).items() if optional is None)


def _plain(hint: Any) -> type | None:
    return hint if hint in (str, bool) else None


def _absence(f: dataclasses.Field[Any], hint: Any) -> bool | None:
    if f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING:
        return False
    return True if types.NoneType in typing.get_args(hint) else None


def _decode_list(kind: type, inner: Decoder, value: Json, where: Path) -> Any:
    items = _expect(list, value, where, "a list")
    return kind([inner(item, (*where, number)) for number, item in enumerate(items)])


def _decode_mapping(inner: Decoder, value: Json, where: Path) -> Any:
    pairs = _expect(dict, value, where, "a mapping").items()
    return {_key(key, where): inner(item, (*where, str(key))) for key, item in pairs}


def _union(options: tuple[Any, ...]) -> Decoder:
    rest = [option for option in options if option is not types.NoneType]
    if len(rest) == 1:
        inner = _decoder(rest[0])
    elif all(dataclasses.is_dataclass(option) for option in rest):
        inner = functools.partial(_decode_kinds, tuple(rest))
    else:
        inner = functools.partial(_decode_scalars, tuple(rest))
    if len(rest) == len(options):
        return inner
    return lambda value, where: None if value is None else inner(value, where)


def _decode_kinds(options: tuple[type, ...], value: Json, where: Path) -> Any:
    """Dataclasses that are told apart by their field ``kind``."""
    kinds = _kinds(options)
    kind = _decode_choice(tuple(kinds), _expect(dict, value, where, "a mapping").get("kind"), where)
    return _decoder(kinds[kind])(value, where)


@functools.cache
def _kinds(options: tuple[type, ...]) -> dict[str, type]:
    return {typing.get_args(typing.get_type_hints(option)["kind"])[0]: option for option in options}


def _decode_scalars(options: tuple[Any, ...], value: Json, where: Path) -> Any:
    for option in options:
        try:
            return _decoder(option)(value, where)
        except Invalid:
            continue
    names = ", ".join(getattr(option, "__name__", str(option)) for option in options)
    raise Invalid(f"expected one of {names}, found {_shown(value)}", where=_told(where))


def _decode_choice(options: tuple[Any, ...], value: Json, where: Path) -> Any:
    # `True == 1` in Python: compare the types as well, or a boolean passes for a number.
    for option in options:
        if type(option) is type(value) and option == value:
            return value
    known = ", ".join(repr(option) for option in options)
    raise Invalid(f"expected one of {known}, found {_shown(value)}", where=_told(where))


def _scalar(hint: Any) -> Decoder:
    if hint is Any or hint is object:
        return lambda value, _: value
    if hint is float:
        return _decode_float
    if hint is int:
        return _decode_int
    if hint in (str, bool, types.NoneType):
        return functools.partial(_decode_exactly, hint)
    raise TypeError(f"no JSON is a {hint}")


def _decode_exactly(hint: type, value: Json, where: Path) -> Any:
    if type(value) is hint:
        return value
    raise Invalid(f"expected {WORDS[hint]}, found {_shown(value)}", where=_told(where))


def _decode_int(value: Json, where: Path) -> int:
    if type(value) is not int:
        raise Invalid(f"expected {WORDS[int]}, found {_shown(value)}", where=_told(where))
    if not -MAX_INT <= value <= MAX_INT:
        raise Invalid(f"expected a number of at most {MAX_INT}, found one beyond it", where=_told(where))
    return value


def _decode_float(value: Json, where: Path) -> float:
    if type(value) is int:
        return float(_decode_int(value, where))
    if type(value) is not float:
        raise Invalid(f"expected a number, found {_shown(value)}", where=_told(where))
    if not math.isfinite(value):
        raise Invalid(f"expected a finite number, found {value}", where=_told(where))
    return value


def _expect(kind: type, value: Json, where: Path, word: str) -> Any:
    if not isinstance(value, kind):
        raise Invalid(f"expected {word}, found {_shown(value)}", where=_told(where))
    return value


def _key(key: Any, where: Path) -> str:
    if not isinstance(key, str):
        raise Invalid(f"expected a text key, found {_shown(key)}", where=_told(where))
    return key


WORDS: dict[type, str] = {
    str: "text",
    int: "a whole number",
    bool: "true or false",
    types.NoneType: "null",
}


def _told(where: Path) -> str:
    """``stages[2].needs``."""
    text = ""
    for part in where:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _shown(value: Json) -> str:
    if isinstance(value, (dict, list)):
        return "a mapping" if isinstance(value, dict) else "a list"
    if type(value) is int and abs(value) > MAX_INT:
        return "a huge number"  # Python does not even write thousands of digits
    return repr(value) if len(repr(value)) < 60 else repr(value)[:57] + "…"
