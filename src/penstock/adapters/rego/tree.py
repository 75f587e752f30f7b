"""The tree of a Rego module: what `syntax` reads and `check` walks. Values only."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.adapters.rego.tokens import Place


@dataclass(frozen=True)
class Scalar:
    kind: str
    text: str
    at: Place
    raw: bool = False


@dataclass(frozen=True)
class Ref:
    """A name, the fields after it, and whether ``[_]`` follows them."""

    root: str
    fields: tuple[str, ...]
    each: bool
    at: Place

    @property
    def whole(self) -> str:
        return ".".join((self.root, *self.fields))


@dataclass(frozen=True)
class Call:
    name: str
    arguments: tuple[Expression, ...]
    at: Place


@dataclass(frozen=True)
class Binary:
    operator: str
    left: Expression
    right: Expression
    at: Place


@dataclass(frozen=True)
class Items:
    """An array or a set. A comprehension has a *body*, and one item."""

    kind: str
    items: tuple[Expression, ...]
    body: Body | None
    at: Place


@dataclass(frozen=True)
class Object:
    """An object. A comprehension has a *body*, and one pair."""

    pairs: tuple[tuple[Expression, Expression], ...]
    body: Body | None
    at: Place


Expression = Scalar | Ref | Call | Binary | Items | Object


@dataclass(frozen=True)
class Condition:
    expression: Expression
    negated: bool
    at: Place


@dataclass(frozen=True)
class Assign:
    name: str
    value: Expression
    at: Place


@dataclass(frozen=True)
class Over:
    """``some`` (no *body*) or ``every``: names bound to the items of a collection."""

    names: tuple[str, ...]
    collection: Expression
    body: Body | None
    at: Place


Statement = Condition | Assign | Over
Body = tuple[Statement, ...]


@dataclass(frozen=True)
class Rule:
    """One definition. *branches* are (value, conditions), the later ones after ``else``."""

    name: str
    kind: str
    arguments: tuple[str, ...] | None
    branches: tuple[tuple[Expression, Body | None], ...]
    at: Place


@dataclass(frozen=True)
class Module:
    package: tuple[str, ...]
    rules: tuple[Rule, ...]
