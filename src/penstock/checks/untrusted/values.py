"""Values for parameters and bodies: the plainest that a schema allows, or drawn at random around its limits.

Called by `requests`. Seeded, so that a failing case is found again. What is drawn need not fit its schema (a
pattern cannot be drawn from): whoever sends it asks the schema first.
"""

from __future__ import annotations

import random
from typing import Any

from penstock.checks.untrusted.document import Document
from penstock.core.codec import Json

MAX_DEPTH = 8
LONGEST = 200
#: By format, what everybody takes for one.
FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "uuid": "3f2b8c1e-9a4d-4c6b-8f0e-2d5a7b9c1e3f",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "byte": "aGVsbG8=",
}
TEXTS = ("a", "0", "-1", "%00", "'\"<>&", "ä", "漢字", "null", "../x", " ", "a" * LONGEST)
#: Of every type, something that is of no other.
OTHERS: tuple[Json, ...] = ("no-number", -1, 1.5, True, 2**31, [], {}, "")


class Values:
    def __init__(self, document: Document, seed: int) -> None:
        self._document = document
        self._chance = random.Random(seed)

    def plain(self, schema: Json, depth: int = 0) -> Json:
        """The value that the schema gives as its example, or else the plainest that it allows."""
        return self._value(schema, depth, drawn=False)

    def drawn(self, schema: Json, depth: int = 0) -> Json:
        """A random value, most often within the schema."""
        if self._chance.random() < 0.2:
            return self._chance.choice(OTHERS)
        return self._value(schema, depth, drawn=True)

    def yes(self) -> bool:
        """A coin."""
        return self._chance.random() < 0.5

    def _value(self, given: Json, depth: int, *, drawn: bool) -> Json:
        schema = self._whole(given)
        told = _told(schema)
        if told and not (drawn and self.yes()):
            return self._chance.choice(told) if drawn else told[0]
        kinds = schema.get("type")
        listed = [k for k in kinds if k != "null"] if isinstance(kinds, list) else [kinds]
        kind = listed[0] if listed else "null"
        if depth > MAX_DEPTH:
            return None
        if kind == "object" or (kind is None and "properties" in schema):
            return self._object(schema, depth, drawn=drawn)
        if kind == "array":
            return self._array(schema, depth, drawn=drawn)
        if kind in ("integer", "number"):
            return self._number(schema, whole=kind == "integer", drawn=drawn)
        if kind == "boolean":
            return self.yes() if drawn else True
        return None if kind == "null" else self._text(schema, drawn=drawn)

    def _whole(self, given: Json, hops: int = 0) -> dict[str, Json]:
        """References followed, `allOf` in one piece, of alternatives one."""
        if not isinstance(given, dict) or hops > MAX_DEPTH:
            return {}
        schema = self._document.followed(given, "a schema")
        for word in ("oneOf", "anyOf"):
            options = schema.get(word)
            if isinstance(options, list) and options:
                schema = {**schema, **self._whole(options[0], hops + 1)}
        for part in schema.get("allOf") or () if isinstance(schema.get("allOf"), list) else ():
            more = self._whole(part, hops + 1)
            schema = {
                **schema,
                **more,
                "properties": {**_mapping(schema, "properties"), **_mapping(more, "properties")},
                "required": [*_list(schema, "required"), *_list(more, "required")],
            }
        return schema

    def _object(self, schema: dict[str, Json], depth: int, *, drawn: bool) -> Json:
        properties, required = _mapping(schema, "properties"), _list(schema, "required")
        wanted = [name for name in properties if name in required or (drawn and self.yes())]
        readable = [n for n in wanted if not _mapping(properties, n).get("readOnly")]
        return {name: self._value(properties[name], depth + 1, drawn=drawn) for name in readable}

    def _array(self, schema: dict[str, Json], depth: int, *, drawn: bool) -> Json:
        least = _number_of(schema, "minItems", 0)
        count = min(int(least) + (self._chance.randrange(3) if drawn else int(least < 1)), 20)
        return [self._value(schema.get("items"), depth + 1, drawn=drawn) for _ in range(count)]

    def _number(self, schema: dict[str, Json], *, whole: bool, drawn: bool) -> Json:
        low = _number_of(schema, "minimum", _number_of(schema, "exclusiveMinimum", -(2**31)))
        high = _number_of(schema, "maximum", _number_of(schema, "exclusiveMaximum", 2**31 - 1))
        step = _number_of(schema, "multipleOf", 1) or 1
        above = low + step if _exclusive(schema, "minimum", "exclusiveMinimum") else low
        below = high - step if _exclusive(schema, "maximum", "exclusiveMaximum") else high
        middle = min(max(1.0, above), below)
        value = self._chance.choice([above, below, middle, 0, self._chance.uniform(low, high)])
        found = value if drawn else middle
        return round(found) if whole else found

    def _text(self, schema: dict[str, Json], *, drawn: bool) -> Json:
        plain = FORMATS.get(str(schema.get("format")), "a")
        text = self._chance.choice([plain, *TEXTS]) if drawn else plain
        least, most = _number_of(schema, "minLength", 0), _number_of(schema, "maxLength", LONGEST)
        return text.ljust(min(int(least), LONGEST), "a")[: max(0, int(most))]


def _told(schema: dict[str, Json]) -> list[Json]:
    """The values that a schema itself names, its examples first."""
    found = [schema[key] for key in ("example", "const", "default") if key in schema]
    return [*found[:1], *_list(schema, "examples"), *found[1:], *_list(schema, "enum")]


def _mapping(schema: dict[str, Json], key: str) -> dict[str, Json]:
    value = schema.get(key)
    return value if isinstance(value, dict) else {}


def _list(schema: dict[str, Json], key: str) -> list[Any]:
    value = schema.get(key)
    return value if isinstance(value, list) else []


def _number_of(schema: dict[str, Json], key: str, otherwise: float) -> float:
    value = schema.get(key)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else otherwise


def _exclusive(schema: dict[str, Json], limit: str, exclusive: str) -> bool:
    """In 3.0 a flag beside the limit, in 3.1 the limit itself."""
    value = schema.get(exclusive)
    return value is True or (isinstance(value, (int, float)) and limit not in schema)
