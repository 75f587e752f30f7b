"""The types of Rego values, as far as `check` follows them. Must not know the grammar."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from penstock.core.facts import FactType


@dataclass(frozen=True)
class Type:
    """*item* is what a collection holds (None: nothing); *fields* are the keys an object surely has.

    The kind ``condition`` is a rule that is true or else undefined: no value to compare or to keep.
    """

    kind: str
    item: Type | None = None
    fields: tuple[tuple[str, Type], ...] = ()

    @cached_property
    def size(self) -> int:
        """How many types it is made of."""
        parts = ([self.item] if self.item else []) + [kind for _, kind in self.fields]
        return 1 + sum(part.size for part in parts)

    def __str__(self) -> str:
        return f"{self.kind} of {self.item}" if self.item and self.kind != "object" else self.kind

    def field(self, name: str) -> Type | None:
        return dict(self.fields).get(name)


NUMBER, TEXT, BOOL, CONDITION = Type("number"), Type("text"), Type("bool"), Type("condition")
#: What an object holds whose values are of different types.
MIXED = Type("mixed")
ARRAY, SET, OBJECT = Type("array"), Type("set"), Type("object")
COLLECTIONS = ("array", "set", "object")

OF_FACT = {
    FactType.TEXT: TEXT,
    FactType.INT: NUMBER,
    FactType.NUMBER: NUMBER,
    FactType.BOOL: BOOL,
    FactType.TEXTS: Type("array", TEXT),
}


def together(one: Type, other: Type) -> Type | None:
    """The type that both are; None if there is none. An empty collection is of every item."""
    if one == other:
        return one
    if one.kind != other.kind or one.kind not in COLLECTIONS:
        return None
    item = one.item or other.item
    if one.item and other.item:
        item = together(one.item, other.item)
        if item is None and one.kind == "object":
            item = MIXED
        if item is None:
            return None
    theirs = dict(other.fields)
    both = [(name, together(kind, theirs[name])) for name, kind in one.fields if name in theirs]
    return Type(one.kind, item, tuple((name, kind) for name, kind in both if kind is not None))
