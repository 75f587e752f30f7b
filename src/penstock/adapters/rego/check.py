"""Refuses every module whose ``deny`` could silently never fire, and finds the facts that it needs.

Called by `language` when a policy is compiled. Rego leaves an expression *undefined* where other languages
raise, and an undefined condition is a rule that does not fire. So every name must exist, every value must
surely have one, and only equal types are compared. A policy may be refused although it is right; one that
is accepted means what it says. Must not run anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from penstock.adapters.rego import builtins, tree
from penstock.adapters.rego.expressions import Expressions, Scope, any_each, sized
from penstock.adapters.rego.syntax import KEYWORDS, read
from penstock.adapters.rego.tokens import Flaw, Place
from penstock.adapters.rego.types import BOOL, CONDITION, NUMBER, TEXT, Type, together

Signature = tuple[str, tuple[Type, ...]]

MAX_CHAIN = 30
MAX_KNOWN = 2000


@dataclass(frozen=True)
class Checked:
    """What `language` has to know: the entry, the facts, and how its functions look at texts."""

    entry: str
    facts: tuple[str, ...]
    looks_inside: bool
    folds: bool


def check(module: str) -> Checked:
    """Read and check. Raises `Flaw`."""
    try:
        return _check(module)
    except RecursionError as error:
        raise Flaw("rules and brackets too deep within one another", (1, 1)) from error


def _check(module: str) -> Checked:
    found = read(module)
    rules: dict[str, list[tree.Rule]] = {}
    for rule in found.rules:
        rules.setdefault(rule.name, []).append(rule)
    checker = _Checker(rules)
    for name, group in rules.items():
        checker.group(name, group)
    checker.deny()
    checker.all_used()
    called = checker.called
    checked = Checked(
        entry="/".join((*found.package, "deny")),
        facts=tuple(sorted(checker.facts)),
        looks_inside=bool(called & builtins.LOOK_INSIDE),
        folds=bool(called & builtins.FOLD),
    )
    if checked.looks_inside and checker.escaped:
        raise Flaw(
            f"a text with a quotation mark, a backslash or a line break in a module that calls "
            f"{', '.join(sorted(called & builtins.LOOK_INSIDE))}: the engine would not compare it right",
            min(checker.escaped),
        )
    return checked


@dataclass
class _Checker(Expressions):
    known: dict[Signature, Type] = field(default_factory=dict)
    open: list[Signature] = field(default_factory=list)

    def group(self, name: str, group: list[tree.Rule]) -> None:
        """What all definitions of one name have in common."""
        first = group[0]
        for rule in group:
            self.new_name(name, rule.at, {}, a_rule=True)
            kinds = ({rule.kind, first.kind} - {"default"}) or {"default"}
            if len(kinds) > 1 or len(rule.arguments or ()) != len(first.arguments or ()):
                raise Flaw(f"{name} is defined in two different ways", rule.at)
            if (rule.arguments is None) != (first.arguments is None):
                raise Flaw(f"{name} is defined with and without parameters", rule.at)
        defaults = [rule for rule in group if rule.kind == "default"]
        if len(defaults) > 1 or len(defaults) == len(group) or (defaults and self.is_set(name)):
            raise Flaw(f"a default of {name} that cannot be", defaults[-1].at)

    def is_set(self, name: str) -> bool:
        return any(rule.kind == "set" for rule in self.rules[name])

    def deny(self) -> None:
        if "deny" not in self.rules:
            raise Flaw("no rule deny: deny contains message if { … }", (1, 1))
        at = self.rules["deny"][0].at
        if not self.is_set("deny"):
            raise Flaw("deny must be a set of messages: deny contains message if { … }", at)
        item = self.result("deny", (), at).item
        if item is None or item.kind not in ("text", "object"):
            raise Flaw(f"deny contains {item}: a message is a text or an object", at)

    def all_used(self) -> None:
        """What decides nothing is misspelt, or somebody believes that it decides."""
        used = {name for name, _ in self.known}
        for name, group in self.rules.items():
            if name not in used:
                raise Flaw(f"{name} decides nothing: deny does not use it", group[0].at)

    def new_name(self, name: str, at: Place, scope: Scope, *, a_rule: bool = False) -> None:
        taken = name in scope or (name in self.rules and not a_rule)
        if taken or name in builtins.ROOTS or name in KEYWORDS:
            raise Flaw(f"{name} has a meaning already: choose another name", at)
        if name == "_" and a_rule:
            raise Flaw("_ is no name for a rule", at)

    # -- rules

    def result(self, name: str, given: tuple[Type, ...], at: Place) -> Type:
        """The type of a rule, or of a function for arguments of these types."""
        signature = (name, given)
        if signature in self.known:
            return self.known[signature]
        if any(name == asked for asked, _ in self.open):
            raise Flaw(f"{name} depends on itself", at)
        if len(self.open) > MAX_CHAIN or len(self.known) > MAX_KNOWN:
            raise Flaw(f"too many rules that rest on one another (more than {MAX_CHAIN} in a row)", at)
        self.open.append(signature)
        try:
            found = self.definitions(name, given)
        finally:
            self.open.pop()
        return self.known.setdefault(signature, found)

    def definitions(self, name: str, given: tuple[Type, ...]) -> Type:
        found: Type | None = None
        total = self.is_set(name)
        conditional = not total
        for rule in self.rules[name]:
            scope = self.parameters(rule, given)
            for value, body in rule.branches:
                kind = self.branch(rule, value, body, scope)
                merged = kind if found is None else together(found, kind)
                if merged is None:
                    raise Flaw(f"{name} is {found} elsewhere and {kind} here", rule.at)
                found = merged
                total = total or body is None
                conditional = conditional and _is_true(value)
        assert found is not None  # a group has a rule, and a rule has a branch
        if self.is_set(name):
            return sized(Type("set", found), self.rules[name][0].at)
        if total:
            return found
        if not conditional:
            shown = f"{name}({', '.join('_' * len(given))})" if given else name
            what = f"{name} can be undefined, and what uses it would then not fire; add: default {shown} := …"
            raise Flaw(what, self.rules[name][0].at)
        return CONDITION

    def parameters(self, rule: tree.Rule, given: tuple[Type, ...]) -> Scope:
        scope: Scope = {}
        for parameter, kind in zip(rule.arguments or (), given, strict=True):
            if parameter != "_":
                self.new_name(parameter, rule.at, scope)
                scope[parameter] = kind
        return scope

    def branch(self, rule: tree.Rule, value: tree.Expression, body: tree.Body | None, scope: Scope) -> Type:
        if rule.kind == "default" and not isinstance(value, tree.Scalar):
            raise Flaw("a default is a number, a text, true or false", value.at)
        return self.value(value, self.body(body or (), scope))

    def body(self, body: tree.Body, scope: Scope) -> Scope:
        """The scope after the statements; the one given is left as it was."""
        inner = dict(scope)
        for statement in body:
            match statement:
                case tree.Assign():
                    kind = self.value(statement.value, inner)
                    self.bind(statement.name, kind, statement.at, inner)
                case tree.Over():
                    self.over(statement, inner)
                case tree.Condition():
                    self.condition(statement, inner)
        return inner

    def bind(self, name: str, kind: Type, at: Place, scope: Scope) -> None:
        if name == "_":
            return
        self.new_name(name, at, scope)
        scope[name] = kind

    def over(self, statement: tree.Over, scope: Scope) -> None:
        collection = self.value(statement.collection, scope)
        item = self.item(collection, statement.at)
        inner = dict(scope) if statement.body is not None else scope
        if len(statement.names) == 2:
            keys = {"array": NUMBER, "object": TEXT}
            if collection.kind not in keys:
                raise Flaw(f"{collection} has no keys: write some x in …", statement.at)
            self.bind(statement.names[0], keys[collection.kind], statement.at, inner)
        self.bind(statement.names[-1], item, statement.at, inner)
        if statement.body is not None:
            self.body(statement.body, inner)

    def condition(self, statement: tree.Condition, scope: Scope) -> None:
        kind = self.kind(statement.expression, scope)
        if kind not in (BOOL, CONDITION):
            raise Flaw(f"{kind} is no condition: whatever is not false counts as true", statement.at)
        if statement.negated and any_each(statement.expression):
            raise Flaw("[_] after not: say which with some or every, or use in", statement.at)


def _is_true(value: tree.Expression) -> bool:
    return isinstance(value, tree.Scalar) and (value.kind, value.text) == ("bool", "true")
