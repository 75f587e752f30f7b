"""The types of expressions: every name must exist, and every value must surely have one.

Base of the checker in `check`, which knows rules and statements; called by nobody else.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from penstock.adapters.rego import builtins, tree
from penstock.adapters.rego.tokens import Flaw, Place
from penstock.adapters.rego.types import (
    BOOL,
    COLLECTIONS,
    CONDITION,
    MIXED,
    NUMBER,
    OBJECT,
    OF_FACT,
    SET,
    TEXT,
    Type,
    together,
)
from penstock.core.facts import FACTS

Scope = dict[str, Type]

#: Beyond it the engine's arithmetic is no longer right.
MAX_NUMBER = 2**53
#: A table of this many columns still fits.
MAX_TYPE = 100


@dataclass
class Expressions(ABC):
    """*facts* and *called* are what was found on the way; *escaped* the texts that `faithful` is not."""

    rules: dict[str, list[tree.Rule]]
    facts: set[str] = field(default_factory=set)
    called: set[str] = field(default_factory=set)
    escaped: list[Place] = field(default_factory=list)

    @abstractmethod
    def result(self, name: str, given: tuple[Type, ...], at: Place) -> Type:
        """The type of a rule, or of a function for arguments of these types."""

    @abstractmethod
    def body(self, body: tree.Body, scope: Scope) -> Scope:
        """The scope after the statements; the one given is left as it was."""

    def value(self, expression: tree.Expression, scope: Scope) -> Type:
        """The type of what surely has a value."""
        kind = self.kind(expression, scope)
        if kind == CONDITION:
            raise Flaw(
                "what is true or else undefined stands alone on its line, or after not; "
                "give it a default to use it as a value",
                expression.at,
            )
        return kind

    def kind(self, expression: tree.Expression, scope: Scope) -> Type:
        match expression:
            case tree.Scalar():
                return self.scalar(expression)
            case tree.Ref():
                return self.fact(expression) if expression.root == "input" else self.ref(expression, scope)
            case tree.Call():
                return self.call(expression, scope)
            case tree.Binary():
                return self.binary(expression, scope)
            case tree.Items():
                return self.items(expression, scope)
            case tree.Object():
                return self.object(expression, scope)

    def scalar(self, scalar: tree.Scalar) -> Type:
        if scalar.kind == "text" and not faithful(scalar.text):
            self.escaped.append(scalar.at)
        if scalar.kind == "number" and abs(float(scalar.text)) > MAX_NUMBER:
            raise Flaw("too large a number", scalar.at)
        return {"number": NUMBER, "text": TEXT, "bool": BOOL}[scalar.kind]

    def fact(self, ref: tree.Ref) -> Type:
        name = ".".join(ref.fields)
        if any("." in part for part in ref.fields):
            raise Flaw(f"no fact has a dot within one name; write {ref.whole}", ref.at)
        if name not in FACTS:
            if not name or any(known.startswith(f"{name}.") for known in FACTS):
                raise Flaw(f"{ref.whole} is no fact by itself; name one below it", ref.at)
            near = difflib.get_close_matches(name, FACTS, 1)
            hint = f"; did you mean input.{near[0]}?" if near else ""
            raise Flaw(f"no fact {ref.whole}{hint}", ref.at)
        self.facts.add(name)
        kind = OF_FACT[FACTS[name][0]]
        return self.item(kind, ref.at) if ref.each else kind

    def ref(self, ref: tree.Ref, scope: Scope) -> Type:
        if ref.root in scope:
            kind = scope[ref.root]
        elif ref.root in self.rules and self.rules[ref.root][0].arguments is None:
            kind = self.result(ref.root, (), ref.at)
        else:
            known = ["input", *scope, *self.rules]
            near = difflib.get_close_matches(ref.root, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            if ref.root == "data":
                hint = "; a policy sees its facts, and no data"
            raise Flaw(f"nothing is called {ref.root} here{hint}", ref.at)
        for name in ref.fields:
            found = kind.field(name) if kind.kind == "object" else None
            if found is None:
                raise Flaw(f"{ref.whole}: {name} may not be there; use object.get with a default", ref.at)
            kind = found
        return self.item(kind, ref.at) if ref.each else kind

    def item(self, collection: Type, at: Place) -> Type:
        if collection.kind not in COLLECTIONS:
            raise Flaw(f"{collection} has no items", at)
        if collection.item is None or collection.item == MIXED:
            raise Flaw("nothing is ever in here, or values of different types", at)
        return collection.item

    def call(self, call: tree.Call, scope: Scope) -> Type:
        if call.name == "sprintf":
            return self.sprintf(call, scope)
        given = [self.value(argument, scope) for argument in call.arguments]
        if call.name in self.rules:
            wanted = self.rules[call.name][0].arguments
            if wanted is None or len(wanted) != len(given):
                raise Flaw(f"{call.name} takes {len(wanted or ())}, not {len(given)}", call.at)
            return self.result(call.name, tuple(given), call.at)
        if call.name == "set" and not given:
            return SET
        if call.name == "object.get":
            return self.object_get(call, given)
        if call.name not in builtins.FUNCTIONS:
            why = builtins.REFUSED.get(call.name)
            raise Flaw(f"{call.name} {why}" if why else f"no function {call.name} for policies", call.at)
        return self.builtin(call, given)

    def builtin(self, call: tree.Call, given: list[Type]) -> Type:
        wrong = builtins.mismatch(call.name, given)
        if wrong:
            raise Flaw(wrong, call.at)
        # A pattern is not compared: backslashes are its business.
        if call.name == "regex.match" and isinstance(call.arguments[0], tree.Scalar):
            self.escaped = [place for place in self.escaped if place != call.arguments[0].at]
        if call.name != "count" or given[0] == TEXT:
            self.called.add(call.name)
        gives = builtins.FUNCTIONS[call.name][1] or given[0]
        if call.name == "array.concat":
            joined = together(given[0], given[1])
            if joined is None:
                raise Flaw(f"array.concat of {given[0]} and {given[1]}", call.at)
            return joined
        return gives

    def object_get(self, call: tree.Call, given: list[Type]) -> Type:
        if len(given) != 3 or given[0].kind != "object" or given[1] != TEXT or given[0].item is None:
            raise Flaw("object.get takes an object with values of one type, a text, and a default", call.at)
        found = together(given[0].item, given[2])
        if found is None:
            raise Flaw(f"object.get of {given[0].item} with a default that is {given[2]}", call.at)
        return found

    def sprintf(self, call: tree.Call, scope: Scope) -> Type:
        values = call.arguments[1] if len(call.arguments) == 2 else None
        form = call.arguments[0] if call.arguments else None
        if not isinstance(values, tree.Items) or values.kind != "array" or values.body is not None:
            raise Flaw("sprintf takes a text and an array, written out", call.at)
        if not isinstance(form, tree.Scalar) or self.scalar(form) != TEXT:
            raise Flaw("sprintf takes a text, written out", call.at)
        wrong = builtins.unprintable(form.text, [self.value(item, scope) for item in values.items])
        if wrong:
            raise Flaw(wrong, call.at)
        return TEXT

    def binary(self, binary: tree.Binary, scope: Scope) -> Type:
        left, right = self.value(binary.left, scope), self.value(binary.right, scope)
        fits = False
        gives = BOOL
        match binary.operator:
            case "==" | "!=":
                fits = together(left, right) is not None
            case "<" | "<=" | ">" | ">=":
                fits = left == right == NUMBER
            case "in":
                item = right.item if right.kind in COLLECTIONS else None
                fits = item is not None and together(left, item) is not None
            case "|" | "&" | "-" if left.kind == right.kind == "set":
                both = together(left, right)
                fits, gives = both is not None, both or SET
            case "+" | "-" | "*" | "/" | "%":
                fits, gives = left == right == NUMBER, NUMBER
        if not fits:
            raise Flaw(f"{left} {binary.operator} {right} does not go together", binary.at)
        return gives

    def items(self, items: tree.Items, scope: Scope) -> Type:
        inner = self.body(items.body, scope) if items.body is not None else scope
        found: Type | None = None
        for item in items.items:
            kind = self.value(item, inner)
            merged = kind if found is None else together(found, kind)
            if merged is None:
                raise Flaw(f"{items.kind} with {found} and {kind}: items must be of one type", items.at)
            found = merged
        return sized(Type(items.kind, found), items.at)

    def object(self, value: tree.Object, scope: Scope) -> Type:
        inner = self.body(value.body, scope) if value.body is not None else scope
        fields: Scope = {}
        kinds: list[Type] = []
        for key, item in value.pairs:
            if self.value(key, inner) != TEXT:
                raise Flaw("the keys of an object are texts", value.at)
            kinds.append(self.value(item, inner))
            if value.body is None and isinstance(key, tree.Scalar):
                fields[key.text] = kinds[-1]
        same: Type | None = kinds[0] if kinds else None
        for kind in kinds:
            same = together(same, kind) if same is not None else None
        ordered = tuple(sorted(fields.items(), key=lambda pair: pair[0]))
        return sized(Type("object", same or MIXED, ordered), value.at) if kinds else OBJECT


def sized(kind: Type, at: Place) -> Type:
    if kind.size > MAX_TYPE:
        raise Flaw(f"a value of more than {MAX_TYPE} parts within one another", at)
    return kind


def faithful(text: str) -> bool:
    """Whether the engine keeps the text as it is: it keeps these with a backslash before them."""
    return not any(c in '"\\' or c < " " for c in text)


def any_each(expression: tree.Expression) -> bool:
    """Whether ``[_]`` is in an expression, outside of comprehensions."""
    match expression:
        case tree.Ref():
            return expression.each
        case tree.Call():
            return any(any_each(argument) for argument in expression.arguments)
        case tree.Binary():
            return any_each(expression.left) or any_each(expression.right)
        case tree.Items(body=None):
            return any(any_each(item) for item in expression.items)
        case tree.Object(body=None):
            return any(any_each(part) for pair in expression.pairs for part in pair)
    return False
