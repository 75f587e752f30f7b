"""Drift: where the data plane differs from what was asked of it, in words and as evidence.

Called by actions, which record the difference and then correct it. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from penstock.core.digest import digest
from penstock.core.evidence import Statement, Subject
from penstock.core.predicates import Drifted
from penstock.core.traffic import TrafficState, in_words


def drift(delivery: str, state: TrafficState, expected: Collection[str] = ()) -> tuple[Statement, ...]:
    """Evidence that *state* is not as it was left: nothing if it is.

    With *expected*, users on any release but those are drift too.
    """
    strangers = [w for w in state.weights if expected and w.release not in expected]
    found = [state.drift] if state.drift else []
    found += [f"found traffic on {in_words(strangers)}"] if strangers else []
    if not found:
        return ()
    name = f"{state.service}/{state.environment}"
    said = Drifted(delivery, state.service, state.environment, "; ".join(found), state.weights)
    return (Statement((Subject(name, digest(name.encode())),), said),)


def in_brackets(statements: Iterable[Statement]) -> str:
    """Drift as an afterthought to what an action says; "" if there was none."""
    said = (statement.predicate for statement in statements)
    return "".join(f" (drift: {drifted.found})" for drifted in said if isinstance(drifted, Drifted))
