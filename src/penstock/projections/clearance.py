"""May an artifact run in an environment? Then it is *cleared* there.

Called by the server, for whoever guards a door that Penstock does not hold itself (a cluster's admission).
It asks no policy and computes no sign-off: it reads what the gate recorded, and what was done since.
Cleared is, in this order, what

1. was promoted there and not taken back (`ledger.live`): it is live, or Penstock may come back to it;
2. a delivery has placed that has neither ended nor taken it back: its sign-offs held when it began;
3. every policy that guards `ACTION` there by now has signed off, in the version in force, unexpired, after it
   was last taken back.

Nothing never passes: where no policy guards, or nothing is known, it is not cleared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from penstock.core.authority import Authority
from penstock.core.digest import digest, hex_of, short
from penstock.core.evidence import Entry
from penstock.core.pipeline import Blocked
from penstock.core.policy import PolicyDocument
from penstock.core.predicates import Deployed, Ended, RolledBack, SignOff
from penstock.core.release import Release
from penstock.ledger.again import needed
from penstock.ledger.live import Promotions
from penstock.ledger.log import Ledger
from penstock.ports import Transaction

#: The action that brings an artifact into an environment.
ACTION = "deploy"
ASKS = ", which asks every policy"


@dataclass(frozen=True)
class Clearance:
    """*says* why it is cleared, or who could change that it is not. *overridden* has a sentence for each
    override that it rests on."""

    artifact: str
    environment: str
    cleared: bool
    says: str
    next_move: str = ""
    overridden: tuple[str, ...] = ()


@dataclass(frozen=True)
class Known:
    """What is known of an *artifact* for an *environment*: its *releases* there that policies were asked
    about, the newest first; everything about them and their deliveries, oldest first; and which releases were
    *promoted* and not taken back. It was asked about in *environments*. *now* is in seconds since 1970."""

    artifact: str
    environment: str
    releases: tuple[Release, ...]
    environments: frozenset[str]
    entries: Sequence[Entry]
    promoted: frozenset[Release]
    authority: Authority
    now: float

    def sign_offs(self, release: Release) -> dict[str, tuple[int, SignOff]]:
        """The newest for `ACTION` of each policy that was asked, with its index."""
        return {
            signed.penstock.policy: (entry.index, signed)
            for entry in self.entries
            if isinstance(signed := entry.statement.predicate, SignOff)
            and (signed.penstock.action, signed.penstock.release) == (ACTION, release)
        }

    def taken_back(self, release: Release) -> tuple[int, str]:
        """When the release was last taken out, and why; -1 if it never was."""
        found = (-1, "")
        for entry in self.entries:
            match entry.statement.predicate:
                case RolledBack(release=out, restored=back, reason=why) if out == release != back:
                    found = (entry.index, why)
                case _:
                    pass
        return found

    def delivering(self, release: Release) -> str:
        """The delivery that has placed the release, and has not ended; "" if none has."""
        said = [(entry.index, entry.statement.predicate) for entry in self.entries]
        ended = {predicate.delivery for _, predicate in said if isinstance(predicate, Ended)}
        since = self.taken_back(release)[0]
        placed = (
            p for index, p in said if isinstance(p, Deployed) and p.release == release and index > since
        )
        return next((predicate.delivery for predicate in placed if predicate.delivery not in ended), "")


async def known_of(
    ledger: Ledger, promotions: Promotions, tx: Transaction, artifact: str, environment: str
) -> Known:
    """Of one artifact (``sha256:…``), as the ledger is in this transaction."""
    about = await ledger.tagged(tx, f"about:{artifact}")
    signed = [e.statement.predicate for e in about if isinstance(e.statement.predicate, SignOff)]
    # What is said of another artifact that the statement names too does not count.
    asked = [s.penstock for s in signed if s.penstock.release.artifact == artifact]
    here = [decision for decision in reversed(asked) if decision.environment == environment]
    releases = tuple(dict.fromkeys(decision.release for decision in here))
    deliveries = sorted({decision.delivery for decision in here})
    subjects = [*(r.digest for r in releases), *(digest(name.encode()) for name in deliveries)]
    promoted = {
        pair.release
        for service in {release.service for release in releases}
        for pair in await promotions.of(tx, service, environment)
    }
    return Known(
        artifact=artifact,
        environment=environment,
        releases=releases,
        environments=frozenset(decision.environment for decision in asked),
        entries=await ledger.tagged(tx, *(f"about:{one}" for one in subjects)) if subjects else (),
        promoted=frozenset(promoted),
        authority=await ledger.authority(tx),
        now=await tx.now(),
    )


def cleared(known: Known) -> Clearance:
    """Whether the artifact is; one of its releases is enough."""
    standing = {release: _standing(release, known) for release in known.releases}
    chosen = next((release for release, why in standing.items() if why), None)
    if chosen is None:
        blocked = {release: tuple(_blocked(release, known)) for release in known.releases}
        chosen = next((release for release, policies in blocked.items() if not policies), None)
        if chosen is None:
            return _refused(known, blocked)
    says = standing[chosen] or f"{chosen.id} is signed off for {ACTION}"
    overridden = tuple(_overridden(chosen, known))
    return Clearance(known.artifact, known.environment, True, says, overridden=overridden)


def _standing(release: Release, known: Known) -> str:
    """Why it runs whatever the policies say by now; "" if that is theirs to say."""
    if release in known.promoted:
        return f"{release.id} was promoted"
    delivery = known.delivering(release)
    return f"{release.id} is being delivered by {delivery}" if delivery else ""


def _blocked(release: Release, known: Known) -> Iterable[Blocked]:
    """What stands in the way of a release that is not placed."""
    signed, (back, why) = known.sign_offs(release), known.taken_back(release)
    policies = needed(known.authority, ACTION, release)
    if not policies:
        what = f"no policy guards {ACTION} in {release.environment}, and nothing never passes"
        yield Blocked("(none)", what, "", ())
    for policy in policies:
        index, newest = signed.get(policy.policy, (-1, None))
        if newest is not None and index < back:
            says = f"not asked since {release.id} was taken back (entry {back}: {why})"
        else:
            says = _lacking(policy, newest, known)
        if says:
            holders = known.authority.holders(policy.owner, policy.scope)
            yield Blocked(policy.policy, says, policy.owner, holders)


def _lacking(policy: PolicyDocument, newest: SignOff | None, known: Known) -> str:
    """What is wrong with a policy's newest sign-off; "" if it holds."""
    if newest is None:
        return "it was not asked"
    if newest.policy.digest.get("sha256") != hex_of(known.authority.policies[policy.policy].digest):
        return "another version of it is in force by now, which was not asked"
    if newest.verification_result != "PASSED":
        return newest.penstock.explanation
    if known.now >= newest.penstock.expires:
        return f"its sign-off expired at {_at(newest.penstock.expires)}"
    return ""


def _refused(known: Known, blocked: Mapping[Release, Sequence[Blocked]]) -> Clearance:
    """In the words of its newest release."""
    if not blocked:
        others = ", ".join(sorted(known.environments))
        found = f"was asked about for {others} only" if others else "is not known here"
        says = f"the artifact {short(known.artifact)} {found}: nothing signs it off for {known.environment}"
        return Clearance(known.artifact, known.environment, False, says, f"penstock ship{ASKS}")
    release, policies = next(iter(blocked.items()))
    whats = "; ".join(f"{one.policy}: {one.says}{_who(one)}" for one in policies)
    says = f"{release.id} is not signed off for {ACTION} in {known.environment}: {whats}"
    signed = known.sign_offs(release).values()
    newest = max(signed, key=lambda pair: pair[0])[1].penstock.delivery if signed else ""
    move = (f"penstock rerun {newest}" if newest else "penstock ship") + ASKS
    return Clearance(known.artifact, known.environment, False, says, move)


def _who(blocked: Blocked) -> str:
    if not blocked.owner:
        return ""
    return f" ({blocked.owner} can override it: {', '.join(blocked.holders) or 'nobody'})"


def _overridden(release: Release, known: Known) -> Iterable[str]:
    for name, (_, signed) in known.sign_offs(release).items():
        if override := signed.penstock.override:
            yield f"{release.id}: {name} was overridden by {override.identity}: {override.reason}"


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), tz=UTC).strftime("%Y-%m-%d %H:%M UTC")
