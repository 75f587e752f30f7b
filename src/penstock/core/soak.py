"""Waves: that an artifact has been live in other environments for a while, as a policy may ask.

A policy's ``soak`` names the environments and the seconds. What counts of each is the newest promotion there
and the newest rollback. Called by `core.selection` and `core.policy`, so that a sign-off can be computed
again, and by the gate, which asks again when time alone may change the answer. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from penstock.core.evidence import Entry
from penstock.core.facts import Fact
from penstock.core.predicates import Predicate, Promoted, RolledBack
from penstock.core.release import Artifact


def named(predicate: Predicate, service: str, environments: Collection[str]) -> tuple[str, ...] | None:
    """What this is the newest of, if it may say what is live of the service in one of the environments."""
    if not isinstance(predicate, (Promoted, RolledBack)):
        return None
    release = predicate.release
    counts = release.service == service and release.environment in environments
    return (predicate.TYPE, release.environment) if counts else None


@dataclass(frozen=True)
class _Stand:
    """How an artifact stands in an environment: live *since* a time, or *taken back*, or *why* it is not
    live."""

    since: float | None = None
    taken_back: bool = False
    why: str = ""


def _stand(entries: Iterable[Entry], artifact: Artifact, environment: str) -> _Stand:
    """*entries* hold the newest promotion there and the newest rollback, oldest first."""
    promoted: Promoted | None = None
    undone: RolledBack | None = None  # of something newer than that promotion
    for entry in entries:
        said = entry.statement.predicate
        if isinstance(said, (Promoted, RolledBack)) and said.release.environment == environment:
            promoted, undone = (said, None) if isinstance(said, Promoted) else (promoted, said)
    if undone is not None and undone.release.artifact == artifact.digest:
        restored = undone.restored
        if restored is None or restored.artifact != artifact.digest:
            return _Stand(taken_back=True, why=f"{undone.release.id} was taken back")
    if promoted is None:
        return _Stand(why=f"{artifact.name} was never promoted")
    live = undone.restored if undone is not None else promoted.release
    if live is None or promoted.release.artifact != artifact.digest or live.artifact != artifact.digest:
        return _Stand(why=f"{live.id} is live" if live else "nothing is live")
    return _Stand(since=promoted.at or 0.0)


def facts(
    entries: Iterable[Entry], artifact: Artifact, soak: Mapping[str, float], now: float
) -> dict[str, Fact]:
    """What a policy that asks for *soak* is told; nothing if it asks for none."""
    if not soak:
        return {}
    known = tuple(entries)
    done, waiting, taken_back = [], [], []
    for environment, seconds in sorted(soak.items()):
        stand = _stand(known, artifact, environment)
        if stand.since is not None and now >= stand.since + seconds:
            done.append(environment)
        elif stand.since is not None:
            waiting.append(f"{environment}: live for {now - stand.since:.0f} of {seconds:.0f} s")
        else:
            waiting.append(f"{environment}: {stand.why}")
        if stand.taken_back:
            taken_back.append(environment)
    return {
        "evidence.soak.done": tuple(done),
        "evidence.soak.waiting": tuple(waiting),
        "evidence.soak.taken_back": tuple(taken_back),
    }


def due(entries: Iterable[Entry], artifact: Artifact, soak: Mapping[str, float], now: float) -> float:
    """When the next of these environments will have had it for long enough (seconds since 1970), if nothing
    happens; 0 if time alone changes nothing."""
    known = tuple(entries)
    stands = ((_stand(known, artifact, environment), seconds) for environment, seconds in soak.items())
    ends = (stand.since + seconds for stand, seconds in stands if stand.since is not None)
    return min((end for end in ends if end > now), default=0.0)
