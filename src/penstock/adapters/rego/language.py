"""The Language port on Rego: a policy is a module, and passes while its set ``deny`` is empty.

Found by entry-point name through the package. A missing field is undefined in Rego, and a rule that asks
for it does not fire; so every fact that a module names must be there, or the verdict is UNKNOWN(MISSING).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock.adapters.rego.check import Checked, check
from penstock.adapters.rego.engine import Engine, NotInstalled, NotStarted, Trouble
from penstock.adapters.rego.expressions import MAX_NUMBER, faithful
from penstock.adapters.rego.tokens import Flaw
from penstock.core.facts import Fact, fits
from penstock.core.policy import PolicyDocument, RuleVerdict
from penstock.core.verdict import Cause, failing, passing, unknown
from penstock.errors import Invalid, Unavailable

RULE = "deny"
MAX_MESSAGES = 50
MAX_WORDS = 4000


class Rego:
    """Compiles policies. All of them share one process (of *engine*), which is started with the first."""

    at_once = False

    def __init__(self, engine: Engine | None = None) -> None:
        self._engine = engine or Engine()

    def compile(self, policy: PolicyDocument) -> _Compiled:
        """Check the module, then let the engine build it. `Invalid` with line and column.

        `Unavailable` if the process does not start. May block for `limits.SECONDS`, and the first time
        until the process has started.
        """
        where = f"{policy.policy}: module"
        if policy.rules or not policy.module.strip():
            raise Invalid("a policy in rego has a module, and no rules", where=f"{where}:1:1")
        try:
            checked = check(policy.module)
            self._engine.ask(policy.module, checked.entry, None)
        except Flaw as flaw:
            line, column = flaw.at
            guide = "docs/guides/rego.md says what a policy may use"
            raise Invalid(flaw.what, where=f"{where}:{line}:{column}", next_move=guide) from flaw
        except NotInstalled as error:
            install = 'pip install "penstock[rego]"'
            raise Invalid(f"rego needs regopy: {error.what}", where=where, next_move=install) from error
        except NotStarted as error:
            raise Unavailable(error.what, where=where) from error
        except Trouble as error:
            line, column = _place(policy.module, error.place)
            raise Invalid(error.what, where=f"{where}:{line}:{column}") from error
        return _Compiled(policy.module, checked, self._engine)

    def close(self) -> None:
        """End the process now; without this it ends with the language."""
        self._engine.close()


@dataclass(frozen=True)
class _Compiled:
    module: str
    checked: Checked
    engine: Engine

    def decide(self, facts: Mapping[str, Fact]) -> tuple[RuleVerdict, ...]:
        """One verdict, of the rule ``deny``. Never raises.

        Blocks the caller while the process works: for `limits.SECONDS` at most, twice that if the
        process ends by itself, and longer if other threads ask at the same time.
        """
        values = {name: facts[name] for name in self.checked.facts if name in facts}
        missing = tuple(name for name in self.checked.facts if name not in facts)
        wrong = [name for name, value in values.items() if not fits(name, value)]
        if wrong:
            return _error(f"the value of {', '.join(wrong)} is of the wrong type", values)
        if missing:
            verdict = unknown(Cause.MISSING, f"no evidence for {', '.join(missing)}")
            return (RuleVerdict(RULE, verdict, verdict.reason, values, missing),)
        unclear = [name for name, value in values.items() if not self._same(value)]
        if unclear:
            return _error(
                f"{', '.join(unclear)}: a text that the engine's functions would not see right", values
            )
        try:
            messages = self.engine.ask(
                self.module, self.checked.entry, json.dumps(_nested(values), ensure_ascii=False)
            )
            words = sorted(_words(message) for message in messages)
        except Trouble as error:
            return _error(error.what, values)
        except Exception as error:  # whatever else it is, it is not a pass
            return _error(f"no decision ({type(error).__name__})", values)
        if not words:
            return (RuleVerdict(RULE, passing("nothing is denied"), "nothing is denied", values),)
        says = _cut(words)
        return (RuleVerdict(RULE, failing(says), says, values),)

    def _same(self, value: Fact) -> bool:
        """Whether the engine, with the functions that the module calls, sees the value as it is."""
        match value:
            case bool():
                return True
            case int() | float():
                return abs(value) <= MAX_NUMBER
            case str():
                whole = not any("\ud800" <= character <= "\udfff" for character in value)
                plain = faithful(value) or not self.checked.looks_inside
                return whole and plain and (value.isascii() or not self.checked.folds)
        return all(self._same(text) for text in value)


def _error(what: str, values: Mapping[str, Fact]) -> tuple[RuleVerdict, ...]:
    verdict = unknown(Cause.ERROR, f"{RULE}: {what}")
    return (RuleVerdict(RULE, verdict, verdict.reason, values),)


def _nested(facts: Mapping[str, Fact]) -> dict[str, Any]:
    """``{"a.b": 1}`` as ``{"a": {"b": 1}}``. No fact's name begins with another's."""
    document: dict[str, Any] = {}
    for name, value in facts.items():
        *above, last = name.split(".")
        place = document
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    return document


def _words(message: str | dict[str, Any]) -> str:
    if isinstance(message, str):
        return message
    return json.dumps(message, sort_keys=True, ensure_ascii=False)


def _cut(words: list[str]) -> str:
    says = "; ".join(words[:MAX_MESSAGES])
    more = len(words) - MAX_MESSAGES
    says = says if len(says) <= MAX_WORDS else says[:MAX_WORDS] + "…"
    return (f"{says}; and {more} more" if more > 0 else says).strip() or "denied"


def _place(module: str, offset: int) -> tuple[int, int]:
    before = module.encode()[:offset].decode(errors="replace")
    return before.count("\n") + 1, len(before) - before.rfind("\n")
