"""A value in somebody's manifest that knows where it stands, and whether anybody has read it.

Called by the other files of this package. One rule holds for all of them: what nobody has read by the end is
reported to the user as not carried over, so nothing can be forgotten. It must not know what the values mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from penstock.errors import Invalid

#: Of what stands there, so much is repeated in a message.
SHOWN = 60
HUGE = 2**53
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h)")


@dataclass(frozen=True)
class Note:
    """What did not carry over, or not with the same meaning: where it stands, why, and what to do instead."""

    file: str
    line: int
    path: str
    what: str
    next: str

    def __str__(self) -> str:
        path = f" {self.path}" if self.path else ""
        return f"{self.file}:{self.line}{path}: {self.what}"


@dataclass(eq=False)
class Place:
    """A value at *path* of a document. One that is not there is false, and has only such parts.

    Reading a value marks it as *read*; reading a mapping's parts does not mark the mapping.
    """

    file: str
    line: int
    path: str
    value: Any = None
    parts: dict[str, Place] = field(default_factory=dict)
    read: bool = False

    def __bool__(self) -> bool:
        return self.value is not None

    def at(self, path: str) -> Place:
        """The part at *path* (``spec.template``); false if there is none."""
        here = self
        for name in path.split("."):
            here = here.parts.get(name) or Place(here.file, here.line, _joined(here.path, name))
        return here

    def each(self) -> list[Place]:
        """The items of a list; none of what is not there."""
        self._expect(list, "a list")
        return list(self.parts.values())

    def named(self) -> dict[str, Place]:
        """The parts of a mapping."""
        self._expect(dict, "a mapping")
        return dict(self.parts)

    def text(self) -> str:
        """Text, also where YAML takes it for a number; "" for what is not there."""
        self.done()
        if self.value is None or isinstance(self.value, str):
            return self.value or ""
        if isinstance(self.value, bool):
            return str(self.value).lower()
        if isinstance(self.value, (int, float)):
            return str(self.value)
        raise self.wrong("text")

    def number(self, default: float = 0.0) -> float:
        """A number, also where it is written as text (``"25"``)."""
        self.done()
        if self.value is None:
            return default
        try:
            found = float(str(self.value)) if not isinstance(self.value, bool) else float("nan")
        except ValueError:
            raise self.wrong("a number") from None
        if not abs(found) < HUGE:
            raise self.wrong("a number")
        return found

    def whole(self, default: int = 0) -> int:
        """A whole number."""
        found = self.number(default)
        if found != int(found):
            raise self.wrong("a whole number")
        return int(found)

    def flag(self, default: bool = False) -> bool:
        self.done()
        if self.value is None:
            return default
        if not isinstance(self.value, bool):
            raise self.wrong("true or false")
        return self.value

    def seconds(self, default: float = 0.0) -> float:
        """A time such as ``90``, ``30s`` or ``1h30m``, in seconds."""
        written = self.text()
        if not written:
            return default
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", written):
            return float(written)
        if not re.fullmatch(f"({DURATION.pattern})+", written):
            raise self.wrong("a time such as 30s, 10m or 1h30m")
        return sum(float(number) * UNITS[unit] for number, unit in DURATION.findall(written))

    def done(self) -> None:
        """Mark it and all its parts as read."""
        self.read = True
        for part in self.parts.values():
            part.done()

    def lost(self, what: str, move: str) -> Note:
        """The note that says so; the place counts as read."""
        self.done()
        return Note(self.file, self.line, self.path, what, move)

    def left(self) -> Iterator[Place]:
        """The outermost places of which nobody has read any part."""
        if self.read or self.value in (None, "", {}, []):
            return
        if not self._touched():
            yield self
            return
        for part in self.parts.values():
            yield from part.left()

    def shown(self) -> str:
        """What stands there, for a message: short, on one line."""
        if isinstance(self.value, (dict, list)):
            return "a mapping" if isinstance(self.value, dict) else "a list"
        text = " ".join(str(self.value)[: 4 * SHOWN].split())
        return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"

    def wrong(self, expected: str) -> Invalid:
        """The error for a value of another kind."""
        return Invalid(f"{self.path}: expected {expected}, found {self.shown()}", where=self.where)

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"

    def _touched(self) -> bool:
        return self.read or any(part._touched() for part in self.parts.values())

    def _expect(self, kind: type, words: str) -> None:
        if self.value is not None and not isinstance(self.value, kind):
            raise self.wrong(words)


def placed(node: yaml.Node, value: Any, file: str, path: str = "", line: int = 0) -> Place:
    """The tree of a document: *node* says where its *value* stands."""
    here = Place(file, line or node.start_mark.line + 1, path, value)
    if isinstance(node, yaml.MappingNode) and isinstance(value, dict):
        if len(node.value) != len(value):
            raise Invalid(f"{path or 'the document'}: two keys that are the same", where=here.where)
        for (key, inner), item in zip(node.value, value.values(), strict=True):
            name = key.value if isinstance(key.value, str) else "?"
            at = key.start_mark.line + 1
            here.parts[name] = placed(inner, item, file, _joined(path, name), at)
    if isinstance(node, yaml.SequenceNode) and isinstance(value, list):
        for number, (inner, item) in enumerate(zip(node.value, value, strict=True)):
            here.parts[f"[{number}]"] = placed(inner, item, file, f"{path}[{number}]")
    if isinstance(node, yaml.ScalarNode) and not _plain(value):
        here.value = node.value  # a date, or a number that nobody means: its own text
    return here


def _plain(value: Any) -> bool:
    return (
        value is None
        or isinstance(value, (str, bool, float))
        or (type(value) is int and -HUGE < value < HUGE)
    )


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
