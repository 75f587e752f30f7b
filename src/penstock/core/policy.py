"""Policies, and the one pure function that turns evidence into a sign-off.

Called by the engine's gate (to decide) and by ``ledger verify`` (to recompute): both call `sign_off`
with the same inputs and must get the same bytes. Must not read a store, a clock or a language: the
compiled rules are passed in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from penstock.core import selection
from penstock.core.digest import canonical, digest, hex_of
from penstock.core.evidence import Entry
from penstock.core.facts import Fact
from penstock.core.predicates import BuilderId, Decision, Resource, RuleDecision, SignOff
from penstock.core.release import Artifact, Change, Release
from penstock.core.verdict import Verdict, combine

#: Recorded in every sign-off. It changes when a sign-off computed from the same inputs would.
ENGINE = "urn:penstock:engine:1"
#: What a policy may guard.
ACTIONS = ("deploy", "shift", "promote")


@dataclass(frozen=True)
class RuleDocument:
    """*when* decides; *say* and *otherwise* (``else`` in YAML) are expressions that give the words."""

    id: str
    when: str
    say: str
    otherwise: str


@dataclass(frozen=True)
class PolicyDocument:
    """One version of a policy. *source* is the exact text whose digest names it.

    It has *rules*, or, in a language whose policies are whole programs, a *module*.
    """

    policy: str
    owner: str
    guards: tuple[str, ...]
    environments: tuple[str, ...]
    rules: tuple[RuleDocument, ...]
    source: str
    scope: str = "organisation"
    language: str = "cel"
    expires_after: float = 86400.0
    module: str = ""


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


@dataclass(frozen=True)
class Question:
    """What a sign-off is about. *size* and *now* fix which evidence and policies counted, and when."""

    delivery: str
    action: str
    change: Change
    artifact: Artifact
    release: Release
    first: bool
    size: int
    now: float


def sign_off(
    question: Question, policy: PolicyDocument, published: str, rules: Rules, selected: Sequence[Entry]
) -> SignOff:
    """The sign-off of one policy. *published* is the uri of the policy's ledger entry.

    Pure: the same arguments give the same bytes, on the machine that decided and on any other.
    """
    facts = selection.facts(
        selected,
        change=question.change,
        artifact=question.artifact,
        release=question.release,
        first=question.first,
    )
    decided = rules.decide(facts)
    verdict = combine(rule.verdict for rule in decided)
    decision = Decision(
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
        expires=question.now + policy.expires_after,
        engine=ENGINE,
        first=question.first,
        change=question.change,
        artifact=question.artifact,
        release=question.release,
    )
    return SignOff(
        verifier=BuilderId(ENGINE),
        time_verified=_rfc3339(question.now),
        resource_uri=f"urn:penstock:release:{question.release.digest}",
        policy=Resource(published, {"sha256": hex_of(digest(policy.source.encode()))}),
        input_attestations=tuple(
            Resource(f"urn:penstock:entry:{entry.index}", {"sha256": hex_of(entry.envelope.digest)})
            for entry in selected
        ),
        verification_result="PASSED" if verdict.passed else "FAILED",
        verified_levels=(f"PENSTOCK_{policy.policy.upper().replace('-', '_')}",) if verdict.passed else (),
        penstock=decision,
    )


def guarding(
    policies: Iterable[PolicyDocument], action: str, service: str, team: str | None, environment: str
) -> list[PolicyDocument]:
    """The policies that hold for this transition, by name. A team's can only add to the organisation's."""
    scopes = {"organisation", f"service/{service}"} | ({f"team/{team}"} if team else set())
    return sorted(
        (p for p in policies if action in p.guards and environment in p.environments and p.scope in scopes),
        key=lambda policy: policy.policy,
    )


def _rule(rule: RuleVerdict) -> RuleDecision:
    return RuleDecision(
        id=rule.id,
        verdict=rule.verdict.result.value,
        cause=rule.verdict.cause.value if rule.verdict.cause else None,
        says=rule.says,
        values={name: canonical(value).decode() for name, value in sorted(rule.values.items())},
    )


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
