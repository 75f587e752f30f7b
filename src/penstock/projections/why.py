"""Why is this live? From a service back to the change, its reviews, and the sign-offs that let it through.

Called by the server. A fold over ledger entries alone: it never reads the journal or the world.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.core.evidence import Entry
from penstock.core.people import Review
from penstock.core.predicates import Look, Overridden, Promoted, Proposed, RolledBack, SignOff
from penstock.core.release import Change, Release
from penstock.ledger.live import Live


@dataclass(frozen=True)
class SignedOff:
    """One sign-off with the ledger index that proves it. *result* is PASSED or FAILED, after an override.

    The *values* of its rules are JSON texts by fact. An experiment has one for each variant's *release*.
    """

    index: int
    policy: str
    owner: str
    action: str
    verdict: str
    result: str
    override: Overridden | None
    explanation: str
    expires: float
    policy_digest: str
    rules: tuple[dict[str, object], ...]
    release: str


@dataclass(frozen=True)
class Reviewed:
    """What somebody said of the change in the ledger, signed: the last word of theirs."""

    index: int
    identity: str
    verdict: str
    comment: str


@dataclass(frozen=True)
class Why:
    """What is live, and what carried it. *change* holds the commit's own claims, *canary* the last verdict of
    its judge; "" if there was none."""

    service: str
    environment: str
    release: Release
    data: dict[str, object]
    promoted: int
    proposed: int
    change: Change
    sign_offs: tuple[SignedOff, ...]
    canary: str
    restored_by: int | None


def explain(live: Live, delivery: tuple[Entry, ...], history: tuple[Entry, ...]) -> Why:
    """*delivery* are the promoting delivery's entries, *history* the service's promotions and rollbacks."""
    proposed = next(e for e in delivery if isinstance(e.statement.predicate, Proposed))
    change = proposed.statement.predicate.change  # type: ignore[union-attr]
    own = range(proposed.index, live.entry)
    looks = [
        e.statement.predicate for e in history if isinstance(e.statement.predicate, Look) and e.index in own
    ]
    return Why(
        service=live.release.service,
        environment=live.release.environment,
        release=live.release,
        data=dict(live.data.shown),
        promoted=live.entry,
        proposed=proposed.index,
        change=change,
        sign_offs=sign_offs(delivery),
        canary=f"{looks[-1].verdict}: {looks[-1].explanation}" if looks else "",
        restored_by=_restored(history),
    )


def reviews(entries: tuple[Entry, ...], revision: str) -> tuple[Reviewed, ...]:
    """Who reviewed a commit, of all entries about it."""
    said: dict[str, Reviewed] = {}
    for entry in entries:
        match entry.statement.predicate:
            case Review(by=by, revision=of, verdict=verdict, comment=comment) if of == revision:
                said[by.identity] = Reviewed(entry.index, by.identity, verdict, comment)
            case _:
                pass
    return tuple(said.values())


def sign_offs(entries: tuple[Entry, ...]) -> tuple[SignedOff, ...]:
    """The sign-offs among a delivery's entries, in order."""
    return tuple(
        _signed(entry.index, entry.statement.predicate)
        for entry in entries
        if isinstance(entry.statement.predicate, SignOff)
    )


def _signed(index: int, signed: SignOff) -> SignedOff:
    decision = signed.penstock
    return SignedOff(
        index=index,
        policy=decision.policy,
        owner=decision.owner,
        action=decision.action,
        verdict=f"{decision.verdict}({decision.cause})" if decision.cause else decision.verdict,
        result=signed.verification_result,
        override=decision.override,
        expires=decision.expires,
        explanation=decision.explanation,
        policy_digest="sha256:" + signed.policy.digest.get("sha256", ""),
        rules=tuple(
            {"id": rule.id, "verdict": rule.verdict, "says": rule.says, "values": dict(rule.values)}
            for rule in decision.rules
        ),
        release=decision.release.id,
    )


def _restored(history: tuple[Entry, ...]) -> int | None:
    """The entry of the rollback by hand that brought this pair back, if one did after its promotion.

    A canary's rollback brings nothing back: the pair that it took out was never live.
    """
    found, current = None, None
    for entry in history:
        match entry.statement.predicate:
            case RolledBack(release=release, restored=restored) if restored and release == current:
                found, current = entry.index, restored
            case Promoted(release=release):
                found, current = None, release
            case _:
                pass
    return found
