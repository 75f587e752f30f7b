"""Policies, and the one pure function that turns evidence into a sign-off.

Called by the engine's gate (to decide) and by ``ledger verify`` (to recompute): both call `sign_off`
with the same inputs and must get the same bytes. Must not read a store, a clock or a language: the
compiled rules are passed in.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol

from penstock.core import factfinding, soak
from penstock.core.authority import Authority
from penstock.core.codec import Fixed
from penstock.core.digest import canonical, digest, hex_of
from penstock.core.evidence import Entry
from penstock.core.facts import Fact, group
from penstock.core.people import ORGANISATION, Override, Quarantine
from penstock.core.predicates import (
    BuilderId,
    Decision,
    Overridden,
    Promoted,
    Resource,
    RolledBack,
    RuleDecision,
    SignOff,
)
from penstock.core.reviews import objection
from penstock.core.selection import Question, quarantines
from penstock.core.verdict import Cause, Result, Verdict, combine, unknown

#: What the delivery of a change does, in this order; and all that a policy may guard.
SHIPPING = ("deploy", "shift", "promote")
ACTIONS = (*SHIPPING, "experiment")


@dataclass(frozen=True)
class RuleDocument:
    """*when* decides; *say* and *otherwise* (``else`` in YAML) are expressions that give the words.

    That a *patient* rule is not met is not final: it counts as missing evidence, which may still come.
    """

    id: str
    when: str
    say: str
    otherwise: str
    patient: bool = False


@dataclass(frozen=True)
class PolicyDocument:
    """One version of a policy. *source* is the exact text whose digest names it.

    It has *rules*, or, in a language whose policies are whole programs, a *module*.
    Times are in seconds: *expires_after* of a sign-off, *waits* for evidence that is missing, and in *fresh*
    the age that evidence of a kind (``evidence.findings``) may have. *soak*: for how long the artifact is to
    have been live, by environment.
    """

    policy: str
    owner: str
    guards: tuple[str, ...]
    environments: tuple[str, ...]
    rules: tuple[RuleDocument, ...]
    source: str
    scope: str = ORGANISATION
    language: str = "cel"
    expires_after: float = 86400.0
    waits: float = 0.0
    fresh: Mapping[str, float] = field(default_factory=dict)
    module: str = ""
    soak: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RuleVerdict:
    """A rule's verdict, its words, and the facts that it used with the values they had.

    *missing* names the facts that were absent and would have been needed.
    """

    id: str
    verdict: Verdict
    says: str
    values: Mapping[str, Fact]
    missing: tuple[str, ...] = ()


class Rules(Protocol):
    """A compiled policy. Pure: same facts, same verdicts."""

    def decide(self, facts: Mapping[str, Fact]) -> tuple[RuleVerdict, ...]:
        """One verdict per rule, in order. Never raises: whatever goes wrong is UNKNOWN(ERROR)."""


def sign_off(
    question: Question,
    policy: PolicyDocument,
    published: str,
    rules: Rules,
    selected: Sequence[Entry],
    authority: Authority,
) -> SignOff:
    """The sign-off of one policy. *published* is the uri of the policy's ledger entry; *selected* and
    *authority* are those of the question's ledger size.

    Pure: the same arguments give the same bytes, on the machine that decided and on any other.
    """
    facts = facts_for(policy, question, selected, authority)
    decided = judge(policy, rules, facts, factfinding.ages(selected, question.now))
    verdict = combine(rule.verdict for rule in decided)
    override = None if verdict.passed else _override(question, policy, selected, authority)
    flaky = tuple(quarantines(selected, question, authority).values())
    used = [entry for entry in selected if _matters(entry, policy, flaky)]
    # What passed for the sake of an override or a quarantine lapses with it.
    ends = [said.expires for said in flaky] + ([override.expires] if override else [])
    return SignOff(
        verifier=BuilderId(question.engine),
        time_verified=_rfc3339(question.now),
        resource_uri=f"urn:penstock:release:{question.release.digest}",
        policy=_resource(published, digest(policy.source.encode())),
        input_attestations=tuple(
            _resource(f"urn:penstock:entry:{entry.index}", entry.envelope.digest) for entry in used
        ),
        verification_result="PASSED" if verdict.passed or override else "FAILED",
        verified_levels=_levels(policy, verdict, override),
        penstock=_decision(
            question, policy, decided, verdict, override, min([question.now + policy.expires_after, *ends])
        ),
    )


def facts_for(
    policy: PolicyDocument, question: Question, selected: Sequence[Entry], authority: Authority
) -> dict[str, Fact]:
    """The facts that a policy decides by."""
    soaked = soak.facts(selected, question.artifact, policy.soak, question.now)
    return factfinding.facts(selected, question, authority) | soaked


def soaking(question: Question, policies: Iterable[PolicyDocument]) -> Question:
    """The question with the environments that these policies ask about."""
    return replace(question, soaks=tuple(sorted({name for policy in policies for name in policy.soak})))


def _decision(
    question: Question,
    policy: PolicyDocument,
    decided: tuple[RuleVerdict, ...],
    verdict: Verdict,
    override: Overridden | None,
    expires: float,
) -> Decision:
    return Decision(
        delivery=question.delivery,
        policy=policy.policy,
        owner=policy.owner,
        action=question.action,
        environment=question.change.environment,
        verdict=verdict.result.value,
        cause=verdict.cause.value if verdict.cause else None,
        explanation="; ".join(rule.says for rule in decided if rule.verdict.result is verdict.result),
        rules=tuple(_rule(rule) for rule in decided),
        size=question.size,
        now=question.now,
        expires=expires,
        engine=question.engine,
        first=question.first,
        change=question.change,
        artifact=question.artifact,
        release=question.release,
        override=override,
    )


def judge(
    policy: PolicyDocument, rules: Rules, facts: Mapping[str, Fact], ages: Mapping[str, float]
) -> tuple[RuleVerdict, ...]:
    """One verdict for each rule. What is too old counts as absent, and the rule that needs it is STALE.

    *ages* are in seconds, by kind of evidence (`core.facts.AGED`).
    """
    old = {
        kind: f"{kind} is {_age(ages[kind])} old, at most {_age(limit)} is taken"
        for kind, limit in policy.fresh.items()
        if ages.get(kind, 0.0) > limit
    }
    decided = rules.decide({name: value for name, value in facts.items() if group(name) not in old})
    patient = {rule.id for rule in policy.rules if rule.patient}
    return tuple(_patiently(_aged(rule, old), rule.id in patient) for rule in decided)


def guarding(
    policies: Iterable[PolicyDocument], action: str, service: str, team: str | None, environment: str
) -> list[PolicyDocument]:
    """The policies that hold for this transition, by name. A team's can only add to the organisation's."""
    scopes = {ORGANISATION, f"service/{service}"} | ({f"team/{team}"} if team else set())
    return sorted(
        (p for p in policies if action in p.guards and environment in p.environments and p.scope in scopes),
        key=lambda policy: policy.policy,
    )


def _aged(rule: RuleVerdict, old: Mapping[str, str]) -> RuleVerdict:
    """A rule that lacks only what is too old is not MISSING but STALE."""
    reasons = [old[kind] for kind in sorted({group(name) for name in rule.missing}) if kind in old]
    if rule.verdict.cause is not Cause.MISSING or not reasons:
        return rule
    says = f"{rule.id}: {', '.join(reasons)}"
    return replace(rule, verdict=unknown(Cause.STALE, says), says=says)


def _patiently(rule: RuleVerdict, patient: bool) -> RuleVerdict:
    """A patient rule that is not met is not met yet."""
    if not patient or rule.verdict.result is not Result.FAIL:
        return rule
    return replace(rule, verdict=unknown(Cause.MISSING, rule.says))


def _override(
    question: Question, policy: PolicyDocument, selected: Iterable[Entry], authority: Authority
) -> Overridden | None:
    """The override of this policy that holds now: unexpired, by somebody who still may, not the author."""
    for entry in selected:
        said = entry.statement.predicate
        if not isinstance(said, Override) or said.policy != policy.policy:
            continue
        who = said.by.identity
        allowed = authority.covers(who, policy.owner, policy.scope)
        if (
            allowed
            and question.now < said.expires
            and not objection(who, question.change, authority, question.engine)
        ):
            return Overridden(entry.index, who, said.reason, said.expires)
    return None


def _matters(entry: Entry, policy: PolicyDocument, flaky: Collection[Quarantine]) -> bool:
    said = entry.statement.predicate
    if isinstance(said, Quarantine):
        return said in flaky
    if isinstance(said, (Promoted, RolledBack)):
        return said.release.environment in policy.soak
    return not isinstance(said, Override) or said.policy == policy.policy


def _levels(policy: PolicyDocument, verdict: Verdict, override: Overridden | None) -> tuple[str, ...]:
    level = f"PENSTOCK_{policy.policy.upper().replace('-', '_')}"
    if verdict.passed:
        return (level,)
    return (f"{level}_OVERRIDDEN",) if override else ()


def _rule(rule: RuleVerdict) -> RuleDecision:
    return RuleDecision(
        id=rule.id,
        verdict=rule.verdict.result.value,
        cause=rule.verdict.cause.value if rule.verdict.cause else None,
        says=rule.says,
        values=Fixed({name: canonical(value).decode() for name, value in sorted(rule.values.items())}),
    )


def _resource(uri: str, named: str) -> Resource:
    return Resource(uri, Fixed({"sha256": hex_of(named)}))


def _age(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), tz=UTC).isoformat().removesuffix("+00:00") + "Z"
