"""Language: CEL, by Google's cel-cpp (`cel-expr-python`). Type-checked, bounded, no side effects.

Found as ``penstock.language: cel``. Two traps are closed here. A missing variable evaluates to a value of
type ERROR whose plain value is a truthy text: only BOOL and ``is True`` is a pass. And every fact is
declared as a typed variable of its whole qualified name, so that a misspelt fact or a wrong type is
refused when the policy is compiled, with line and column.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cel_expr_python import cel
from cel_expr_python.ext import ext_strings

from penstock.adapters._growth import grows_too_far
from penstock.adapters._patterns import wrong_with_patterns
from penstock.core.facts import FACTS, Fact, FactType, fits
from penstock.core.policy import PolicyDocument, RuleDocument, RuleVerdict
from penstock.core.verdict import Cause, Verdict, failing, passing, unknown
from penstock.errors import Invalid

MAX_EXPRESSION = 4000
POSITION = re.compile(r"<input>:(\d+):(\d+): ([^\n]*)")
_NAMED = {name: re.compile(rf"(?<![\w.]){re.escape(name)}(?!\w)") for name in FACTS}

TYPES = {
    FactType.TEXT: cel.Type.STRING,
    FactType.INT: cel.Type.INT,
    FactType.NUMBER: cel.Type.DOUBLE,
    FactType.BOOL: cel.Type.BOOL,
    FactType.TEXTS: cel.Type.List(cel.Type.STRING),
}


class Cel:
    """Compiles policies. One environment serves all of them: the facts are the same."""

    #: cel-cpp gives up after 10,000 iterations, about two milliseconds; what takes longer is not compiled.
    at_once = True

    def __init__(self) -> None:
        variables = {name: TYPES[kind] for name, (kind, _) in FACTS.items()}
        self._environment = cel.NewEnv(variables=variables, extensions=[ext_strings.ExtStrings()])
        #: The same few policies are asked again and again.
        self._rules = functools.lru_cache(maxsize=256)(self._checked)

    def compile(self, policy: PolicyDocument) -> _Compiled:
        """Type-check every expression. `Invalid` with policy, rule, line and column."""
        if policy.module:
            raise Invalid("a policy in cel has rules, and no module", where=f"{policy.policy}: module:1:1")
        return _Compiled(self._rules(policy.policy, policy.rules), self._environment)

    def _checked(self, policy: str, rules: tuple[RuleDocument, ...]) -> tuple[_CompiledRule, ...]:
        return tuple(self._rule(f"{policy}: rule {rule.id}", rule) for rule in rules)

    def _rule(self, where: str, rule: RuleDocument) -> _CompiledRule:
        return _CompiledRule(
            id=rule.id,
            when=self._expression(rule.when, cel.Type.BOOL, f"{where}: when"),
            say=self._expression(rule.say, cel.Type.STRING, f"{where}: say"),
            otherwise=self._expression(rule.otherwise, cel.Type.STRING, f"{where}: else"),
            facts=_mentioned(rule.when, rule.say, rule.otherwise),
            needed=_mentioned(rule.when),
        )

    def _expression(self, text: str, wanted: Any, where: str) -> Any:
        if len(text) > MAX_EXPRESSION:
            raise Invalid(f"longer than {MAX_EXPRESSION} characters", where=where)
        if grows_too_far(text):
            move = "chain or repeat fewer calls of replace, join, map, split, format, quote and matches"
            raise Invalid("its texts could grow beyond any memory", where=f"{where}:1:1", next_move=move)
        if wrong := wrong_with_patterns(text):
            move = "write one text with fewer or smaller repetitions, or use contains and startsWith"
            raise Invalid(wrong, where=f"{where}:1:1", next_move=move)
        try:
            expression = self._environment.compile(text)
        except (RuntimeError, TypeError) as error:  # TypeError: a text that is no Unicode
            found = POSITION.search(str(error))
            line, column, problem = found.groups() if found else ("1", "1", str(error))
            known = "penstock policy facts lists what a policy may use"
            raise Invalid(problem, where=f"{where}:{line}:{column}", next_move=known) from error
        if expression.return_type() != wanted:
            raise Invalid(f"gives {expression.return_type().name()}, not {wanted.name()}", where=where)
        return expression


def _mentioned(*texts: str) -> tuple[str, ...]:
    """The facts that expressions name, sorted."""
    whole = " ".join(texts)
    return tuple(sorted(name for name, pattern in _NAMED.items() if pattern.search(whole)))


@dataclass(frozen=True)
class _CompiledRule:
    id: str
    when: Any
    say: Any
    otherwise: Any
    facts: tuple[str, ...]
    needed: tuple[str, ...]


@dataclass(frozen=True)
class _Compiled:
    rules: tuple[_CompiledRule, ...]
    environment: Any

    def decide(self, facts: Mapping[str, Fact]) -> tuple[RuleVerdict, ...]:
        data = {name: list(value) if isinstance(value, tuple) else value for name, value in facts.items()}
        try:
            # Made once for all rules: handing the facts over costs more than most rules.
            given = {"activation": self.environment.Activation(data=data)}
        except Exception:  # every rule will say what is wrong with them
            given = {"data": data}
        return tuple(_decide(rule, facts, given) for rule in self.rules)


def _decide(rule: _CompiledRule, facts: Mapping[str, Fact], given: dict[str, Any]) -> RuleVerdict:
    values = {name: facts[name] for name in rule.facts if name in facts}
    missing = [name for name in rule.needed if name not in facts]
    wrong = [name for name in rule.needed if name in facts and not fits(name, facts[name])]
    if wrong:
        verdict = unknown(Cause.ERROR, f"{rule.id}: the value of {', '.join(wrong)} is of the wrong type")
    else:
        verdict = _evaluate(rule, given, missing)
    # After an error the rule's words could claim anything: the error itself is what there is to say.
    erred = verdict.cause is Cause.ERROR
    words = "" if erred else _words(rule.say if verdict.passed else rule.otherwise, given)
    says = words or verdict.reason or f"{rule.id}: {verdict.result}"
    absent = tuple(missing) if verdict.cause is Cause.MISSING else ()
    return RuleVerdict(rule.id, Verdict(verdict.result, verdict.cause, says), says, values, absent)


def _evaluate(rule: _CompiledRule, given: dict[str, Any], missing: list[str]) -> Verdict:
    try:
        value = rule.when.eval(**given)
    except Exception as error:  # the engine's own failure must never be anything but UNKNOWN
        return unknown(Cause.ERROR, f"{rule.id}: {error}")
    if value.type() == cel.Type.BOOL:
        return passing() if value.plain_value() is True else failing(rule.id)
    if any(name in str(value.plain_value()) for name in missing):
        return unknown(Cause.MISSING, f"no evidence for {', '.join(missing)}")
    return unknown(Cause.ERROR, f"{rule.id}: {value.plain_value()}")


def _words(expression: Any, given: dict[str, Any]) -> str:
    """The rule's own words; "" if they cannot be formed, which never changes the verdict."""
    try:
        value = expression.eval(**given)
    except Exception:
        return ""
    return str(value.plain_value()) if value.type() == cel.Type.STRING else ""
