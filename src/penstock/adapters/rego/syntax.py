"""Reads a Rego module into a tree: the part of Rego v1 in which nothing can silently fail to fire.

Called by `check`. What it does not know it refuses with line and column. A line break ends an expression
except after an operator, a comma or an opening bracket, so that it and the engine cannot disagree.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TypeVar

from penstock.adapters.rego import tree
from penstock.adapters.rego.tokens import Flaw, Place, Token, tokens

T = TypeVar("T")

MAX_DEPTH = 40
_WORDS = "as contains data default else every false if import in input not null package some true with"
KEYWORDS = frozenset(_WORDS.split())
IMPORTS = {"rego.v1", *(f"future.keywords{one}" for one in ("", ".if", ".in", ".contains", ".every"))}
COMPARISONS = ("==", "!=", "<", "<=", ">", ">=", "in")
#: From weak to strong, as in Rego.
OPERATORS = (COMPARISONS, ("|",), ("&",), ("+", "-"), ("*", "/", "%"))


def read(module: str) -> tree.Module:
    """The tree of a module. Raises `Flaw`."""
    return _Reader(tokens(module)).module()


class _Reader:
    def __init__(self, found: list[Token]) -> None:
        self.found = found
        self.place = 0
        self.depth = 0

    @property
    def next(self) -> Token:
        return self.found[self.place]

    def take(self) -> Token:
        token = self.next
        self.place += token.kind != "end"
        return token

    def at(self, *texts: str) -> bool:
        return self.next.kind in ("symbol", "name") and self.next.text in texts

    def accept(self, *texts: str) -> Token | None:
        return self.take() if self.at(*texts) else None

    def expect(self, text: str) -> Token:
        return self.accept(text) or self.refuse(f"expected {text!r}")

    def refuse(self, what: str) -> Token:
        shown = "the end of the line" if self.next.kind == "newline" else self.next.text
        raise Flaw(f"{what}, found {shown!r}" if self.next.kind != "end" else f"{what}, found {shown}",
                   self.next.at)  # fmt: skip

    def lines(self) -> None:
        while self.next.kind == "newline":
            self.take()

    def name(self, what: str) -> Token:
        if self.next.kind != "name" or self.next.text in KEYWORDS:
            self.refuse(f"expected {what}")
        return self.take()

    def field(self) -> Token:
        return self.take() if self.next.kind == "name" else self.refuse("expected a name")

    def dotted(self, what: str) -> list[str]:
        return [self.name(what).text, *self.more_fields()]

    def more_fields(self) -> list[str]:
        parts = []
        while self.accept("."):
            parts.append(self.field().text)
        return parts

    def end_of_line(self) -> None:
        if self.next.kind not in ("newline", "end"):
            self.refuse("expected the end of the line")
        self.lines()

    def module(self) -> tree.Module:
        self.lines()
        self.expect("package")
        package = tuple(self.dotted("the name of the package"))
        self.end_of_line()
        while self.at("import"):
            at = self.take().at
            imported = ".".join((self.field().text, *self.more_fields()))
            if imported not in IMPORTS:
                what = f"import of {imported}: only rego.v1 and future.keywords; a policy sees its facts"
                raise Flaw(what, at)
            self.end_of_line()
        rules = []
        while self.next.kind != "end":
            rules.append(self.rule())
            self.end_of_line()
        return tree.Module(package, tuple(rules))

    def rule(self) -> tree.Rule:
        default = self.accept("default") is not None
        name = self.name("a rule")
        arguments = self.parameters() if self.at("(") else None
        if self.at("["):
            raise Flaw(f"the old way to write a set; write: {name.text} contains … if {{ … }}", self.next.at)
        if not default and arguments is None and self.accept("contains"):
            value = self.expression()
            body = self.body_after_if()
            return tree.Rule(name.text, "set", None, ((value, body),), name.at)
        branches = [self.branch(default)]
        while not default and self.after_lines("else"):
            branches.append(self.branch(default))
        return tree.Rule(name.text, "default" if default else "value", arguments, tuple(branches), name.at)

    def after_lines(self, text: str) -> bool:
        before = self.place
        self.lines()
        if self.accept(text):
            return True
        self.place = before
        return False

    def branch(self, default: bool) -> tuple[tree.Expression, tree.Body | None]:
        at = self.next.at
        value: tree.Expression = tree.Scalar("bool", "true", at)
        valued = self.accept(":=", "=") is not None
        if valued:
            self.lines()
            value = self.expression()
        body = None if default else self.body_after_if()
        if not valued and body is None:
            self.refuse("expected ':=' or 'if'")
        return value, body

    def parameters(self) -> tuple[str, ...]:
        self.expect("(")
        names = self.listed(")", lambda: self.name("the name of a parameter"))
        return tuple(token.text for token in names)

    def body_after_if(self) -> tree.Body | None:
        if not self.accept("if"):
            return None
        self.lines()
        return self.block() if self.at("{") else (self.statement(),)

    def block(self) -> tree.Body:
        self.expect("{")
        return self.statements("}")

    def statements(self, closing: str) -> tree.Body:
        self.lines()
        found = [self.statement()]
        while self.next.kind == "newline" or self.at(";"):
            self.take()
            self.lines()
            if not self.at(closing):
                found.append(self.statement())
        self.expect(closing)
        return tuple(found)

    def statement(self) -> tree.Statement:
        found = self.nested(self._statement)
        if self.at("with"):
            self.refuse("with is not supported")
        return found

    def _statement(self) -> tree.Statement:
        at = self.next.at
        if self.at("(", "[", "{", "-"):
            # The engine may take it for the rest of the line before.
            self.refuse("a condition may not begin with a bracket or a sign; turn it around")
        if self.accept("some"):
            return self.over(at, every=False)
        if self.accept("every"):
            return self.over(at, every=True)
        if self.accept("not"):
            return tree.Condition(self.expression(), True, at)
        left = self.expression()
        if self.at("="):
            self.refuse("expected := (a new name) or == (a comparison)")
        if not self.at(":="):
            return tree.Condition(left, False, at)
        if not isinstance(left, tree.Ref) or left.fields or left.each:
            raise Flaw("only a name can be given a value with :=", left.at)
        self.take()
        self.lines()
        return tree.Assign(left.root, self.expression(), at)

    def over(self, at: Place, *, every: bool) -> tree.Over:
        names = [self.name("a name").text]
        if self.accept(","):
            names.append(self.name("a name").text)
        if not self.at("in"):
            self.refuse("expected 'in' (write: some x in …, or: some i, x in …)")
        self.take()
        collection = self.expression()
        body = self.block() if every else None
        return tree.Over(tuple(names), collection, body, at)

    def nested(self, what: Callable[[], T]) -> T:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.refuse(f"nested more than {MAX_DEPTH} deep")
        try:
            return what()
        finally:
            self.depth -= 1

    def expression(self, level: int = 0) -> tree.Expression:
        if level == len(OPERATORS):
            return self.nested(self.term)
        left = self.expression(level + 1)
        for number in itertools.count():
            if not self.at(*OPERATORS[level]):
                break
            if number == MAX_DEPTH:
                self.refuse(f"more than {MAX_DEPTH} operators in a row")
            operator = self.take()
            self.lines()
            left = tree.Binary(operator.text, left, self.expression(level + 1), operator.at)
            if level == 0 and self.at(*COMPARISONS):
                self.refuse("two comparisons in a row: write two lines, or brackets")
        return left

    def term(self) -> tree.Expression:
        token = self.next
        if token.kind in ("text", "raw"):
            self.take()
            return tree.Scalar("text", token.text, token.at, token.kind == "raw")
        if token.kind == "number":
            return tree.Scalar("number", self.take().text, token.at)
        if self.accept("true", "false"):
            return tree.Scalar("bool", token.text, token.at)
        if self.accept("-"):
            if self.next.kind != "number" or not self.next.glued:
                self.refuse("a sign stands only before a number; write 0 - …")
            return tree.Scalar("number", "-" + self.take().text, token.at)
        if self.accept("("):
            self.lines()
            inside = self.expression()
            self.lines()
            self.expect(")")
            return inside
        if self.accept("["):
            return self.collection(token.at, "array", "]")
        if self.accept("{"):
            return self.collection(token.at, "set", "}")
        return self.reference()

    def collection(self, at: Place, kind: str, closing: str) -> tree.Expression:
        self.lines()
        if self.accept(closing):
            return tree.Object((), None, at) if kind == "set" else tree.Items(kind, (), None, at)
        # The bar after the first item begins a comprehension, so an item is read above that operator.
        first = self.expression(2)
        if kind == "set" and self.at(":"):
            return self.object(at, first)
        self.lines()
        if self.accept("|"):
            return tree.Items(kind, (first,), self.statements(closing), at)
        return tree.Items(kind, (first, *self.rest(closing, self.expression)), None, at)

    def object(self, at: Place, first: tree.Expression) -> tree.Object:
        self.expect(":")
        self.lines()
        pair = (first, self.expression(2))
        self.lines()
        if self.accept("|"):
            return tree.Object((pair,), self.statements("}"), at)
        return tree.Object((pair, *self.rest("}", self.pair)), None, at)

    def pair(self) -> tuple[tree.Expression, tree.Expression]:
        key = self.expression()
        self.expect(":")
        self.lines()
        return key, self.expression()

    def rest(self, closing: str, item: Callable[[], T]) -> list[T]:
        if not self.at(",", closing):
            self.refuse(f"expected ',' or {closing!r}")
        self.accept(",")
        return self.listed(closing, item)

    def listed(self, closing: str, item: Callable[[], T]) -> list[T]:
        """Items with commas between them, up to and with the closing bracket."""
        found: list[T] = []
        self.lines()
        while not self.accept(closing):
            found.append(item())
            self.lines()
            if not self.accept(","):
                self.expect(closing)
                break
            self.lines()
        return found

    def reference(self) -> tree.Expression:
        token = self.next
        if token.kind != "name" or token.text in KEYWORDS - {"input", "data", "contains"}:
            self.refuse("expected a value")
        self.take()
        fields: list[str] = []
        while self.at(".", "[") and self.next.glued:
            if self.accept("."):
                fields.append(self.field().text)
            elif self.bracket(fields):
                return tree.Ref(token.text, tuple(fields), True, token.at)
        if self.at("(") and self.next.glued:
            self.take()
            return tree.Call(
                ".".join((token.text, *fields)), tuple(self.listed(")", self.expression)), token.at
            )
        return tree.Ref(token.text, tuple(fields), False, token.at)

    def bracket(self, fields: list[str]) -> bool:
        """A field in brackets is added to *fields*; True for ``[_]``."""
        self.expect("[")
        wild = self.accept("_") is not None
        if not wild and self.next.kind == "text":
            fields.append(self.take().text)
        elif not wild:
            self.refuse("only [_] or a field; what may not be there must not be looked up: "
                        "use some … in, or object.get with a default")  # fmt: skip
        self.expect("]")
        return wild
