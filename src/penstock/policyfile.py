"""``policies/*.yaml``: reading a policy, with file and line in every error.

Called by whoever publishes, checks or evaluates a policy's text. Must not compile it: languages do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import yaml

from penstock.config import line_of, parse
from penstock.core.codec import json_name
from penstock.core.environmentconfig import NAME
from penstock.core.facts import AGED
from penstock.core.nearest import did_you_mean
from penstock.core.policy import ACTIONS, PolicyDocument, RuleDocument
from penstock.errors import Invalid

REFERENCE = "the documented reference: penstock doctor --reference policy"
#: Seconds that a delivery may wait for missing evidence: thirty days.
LONGEST_WAIT = 30 * 86400.0
#: A sign-off that expires before its action can begin would be asked for without end.
SHORTEST_SIGN_OFF = 60.0


@dataclass(frozen=True)
class RuleConfig:
    """One rule as written. *when* decides; *say* and *else* give the words."""

    id: str
    when: str
    say: str
    otherwise: str = field(metadata=json_name("else"))
    patient: bool = False


@dataclass(frozen=True)
class PolicyConfig:
    """All of one ``policies/<name>.yaml``. It has *rules* or, in Rego, a *module*."""

    policy: str
    owner: str
    guards: tuple[str, ...]
    environments: tuple[str, ...]
    rules: tuple[RuleConfig, ...] | None = None
    module: str | None = None
    scope: str = "organisation"
    language: str = "cel"
    expires_after: float = 86400.0
    waits: float = 0.0
    fresh: Mapping[str, float] = field(default_factory=dict)
    soak: Mapping[str, float] = field(default_factory=dict)


def parse_policy(source: bytes, name: str) -> PolicyDocument:
    """A policy from its exact text. `Invalid` with file and line."""
    try:
        return _parsed(source, name)
    except Invalid as error:
        raise Invalid(error.what, where=error.where, next_move=error.next_move or REFERENCE) from error


def _parsed(source: bytes, name: str) -> PolicyDocument:
    given = parse(PolicyConfig, source, name, REFERENCE)
    if not NAME.fullmatch(given.policy) or not NAME.fullmatch(given.owner):
        raise Invalid("policy and owner must be names (lower case, digits, dashes)", where=name)
    unknown = [action for action in given.guards if action not in ACTIONS]
    if unknown or not given.guards:
        line = line_of(yaml.compose(source, Loader=yaml.SafeLoader), "guards")
        what = f"guards {', '.join(map(repr, unknown)) or 'nothing'}; it may guard: {', '.join(ACTIONS)}"
        meant = did_you_mean(unknown[0], ACTIONS) if unknown else ""
        raise Invalid(what + meant, where=f"{name}:{line}")
    _rules_or_module(given, source, name)
    written = given.rules or ()
    ids = [rule.id for rule in written]
    if (not ids and given.module is None) or len(ids) != len(set(ids)) or not given.environments:
        raise Invalid("a policy needs an environment, and rules with distinct ids", where=name)
    _check_times(given, name)
    rules = tuple(
        RuleDocument(rule.id, rule.when, rule.say, rule.otherwise, rule.patient) for rule in written
    )
    return PolicyDocument(
        policy=given.policy,
        owner=given.owner,
        guards=given.guards,
        environments=given.environments,
        rules=rules,
        source=source.decode(),
        scope=given.scope,
        language=given.language,
        expires_after=given.expires_after,
        module=given.module or "",
        waits=given.waits,
        fresh=given.fresh,
        soak=given.soak,
    )


def _rules_or_module(given: PolicyConfig, source: bytes, name: str) -> None:
    """Exactly one of the two, and it says something."""
    if (given.rules is None) == (given.module is None) or (
        given.module is not None and not given.module.strip()
    ):
        line = line_of(yaml.compose(source, Loader=yaml.SafeLoader), "module")
        raise Invalid("a policy has either rules or, in rego, a module", where=f"{name}:{line}")


def _check_times(given: PolicyConfig, name: str) -> None:
    unknown = [kind for kind in given.fresh if kind not in AGED]
    if unknown:
        raise Invalid(f"fresh: {unknown[0]!r} has no age; these have: {', '.join(AGED)}", where=name)
    if not 0 <= given.waits <= LONGEST_WAIT:
        raise Invalid(f"waits must be from 0 to {LONGEST_WAIT:.0f} seconds", where=name)
    if given.expires_after < SHORTEST_SIGN_OFF or any(limit <= 0 for limit in given.fresh.values()):
        least = f"at least {SHORTEST_SIGN_OFF:.0f} seconds, and the limits of fresh above zero"
        raise Invalid(f"expires_after must be {least}", where=name)
    for environment, seconds in given.soak.items():
        if environment in given.environments or not NAME.fullmatch(environment):
            what = f"soak: {environment!r} is not another environment than those it guards"
            raise Invalid(what, where=name)
        if not 0 <= seconds <= LONGEST_WAIT:
            raise Invalid(f"soak must be from 0 to {LONGEST_WAIT:.0f} seconds", where=name)
    if any(rule.patient for rule in given.rules or ()) and not given.waits:
        raise Invalid("a patient rule needs a policy that waits (seconds)", where=name)
