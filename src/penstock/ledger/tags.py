"""The words under which entries are found again. A pure function of the entry, so that it can be checked.

Called by the ledger on append and by `ledger.fsck`. Tags: ``type:<predicate type>``, ``about:<digest>``,
``delivery:<id>``, ``service:<service>/<environment>``.
"""

from __future__ import annotations

from penstock.core.evidence import Entry
from penstock.core.experiment import Experiment
from penstock.core.predicates import (
    Deployed,
    Drifted,
    Ended,
    Promoted,
    Proposed,
    RolledBack,
    Shifted,
    SignOff,
)


def tags(entry: Entry) -> tuple[str, ...]:
    """Every tag of an entry, sorted, each once."""
    predicate = entry.statement.predicate
    found = {f"type:{predicate.TYPE}"}
    found |= {f"about:{subject.digest}" for subject in entry.statement.subjects}
    match predicate:
        case Proposed(delivery=delivery, change=change):
            found |= {f"delivery:{delivery}", f"service:{change.service}/{change.environment}"}
        case (
            Deployed(delivery=delivery, release=release)
            | Promoted(delivery=delivery, release=release)
            | RolledBack(delivery=delivery, release=release)
        ):
            found |= {f"delivery:{delivery}", f"service:{release.service}/{release.environment}"}
        case Drifted(delivery=delivery, service=service, environment=environment):
            found |= {f"delivery:{delivery}", f"service:{service}/{environment}"}
        case Shifted(delivery=delivery) | Ended(delivery=delivery) | Experiment(delivery=delivery):
            found.add(f"delivery:{delivery}")
        case SignOff(penstock=decision):
            found.add(f"delivery:{decision.delivery}")
        case _:
            pass
    return tuple(sorted(found))
