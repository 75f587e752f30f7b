"""Who may do what: rules as a Role has them. Pure.

Called by `server`. What no rule lists is refused, in the API's own words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.testing.kubernetes.problems import Problem


@dataclass(frozen=True)
class Asked:
    """*resource* with its subresource: ``pods/log``."""

    verb: str
    group: str
    resource: str
    namespace: str
    name: str = ""


class Rights:
    """*rules* are those of a Role; None: everything may be done."""

    def __init__(self, rules: Sequence[Mapping[str, Any]] | None = None) -> None:
        self.rules = rules
        #: What was asked and granted, so that a test can tell which rules are not needed.
        self.used: set[tuple[str, str, str]] = set()

    def check(self, asked: Asked, user: str = "system:serviceaccount:penstock:penstock") -> None:
        """`Problem` 403 if no rule allows it."""
        if self.rules is not None and not any(_allows(rule, asked) for rule in self.rules):
            raise Problem(
                403,
                f"{asked.resource.partition('/')[0]}{'.' + asked.group if asked.group else ''} "
                f'"{asked.name}" is forbidden: User "{user}" cannot {asked.verb} resource "{asked.resource}" '
                f'in API group "{asked.group}" in the namespace "{asked.namespace}"',
                details={"name": asked.name, "kind": asked.resource},
            )
        self.used.add((asked.verb, asked.group, asked.resource))

    def unused(self, rules: Sequence[Mapping[str, Any]]) -> set[tuple[str, str, str]]:
        """What *rules* allow and nobody has asked for: (verb, group, resource)."""
        listed = {
            (verb, group, resource)
            for rule in rules
            for verb in rule["verbs"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
        }
        return listed - self.used


def _allows(rule: Mapping[str, Any], asked: Asked) -> bool:
    names = rule.get("resourceNames") or ()
    return (
        asked.verb in rule["verbs"]
        and asked.group in rule["apiGroups"]
        and asked.resource in rule["resources"]
        and (not names or asked.name in names)
    )
