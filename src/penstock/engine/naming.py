"""What is said where a delivery is not what somebody takes it for: not known, a service, or at its end.

Called by the journal. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from penstock.core.nearest import did_you_mean
from penstock.core.pipeline import ENDED
from penstock.errors import Conflict, Invalid

if TYPE_CHECKING:
    from penstock.engine.journal import Delivery


def unknown(name: str, begun: Sequence[str], recent: Sequence[Delivery]) -> Invalid:
    """*begun* are ids that begin so (two are enough), *recent* deliveries, the newest first."""
    own = [delivery for delivery in recent if delivery.header.change.service == name]
    if own:
        newest = f"{own[0].id} ({own[0].outcome or own[0].state})"
        return Invalid(f"{name} is a service, not a delivery", next_move=f"its newest delivery: {newest}")
    if len(begun) > 1:
        what = f"delivery {name!r} is ambiguous: {', '.join(begun)} and maybe more begin so"
        return Invalid(what, next_move="give more of its id; penstock status lists the newest")
    names = {d.id for d in recent} | {d.header.change.service for d in recent}
    meant = did_you_mean(name, names)
    return Invalid(f"delivery {name!r} is not known{meant}", next_move="penstock status")


def too_late(found: Delivery, word: str) -> Conflict:
    """Why it cannot be asked to *word* (abort, promote) any more, and what can be done instead."""
    service = found.header.change.service
    if found.state not in ENDED:
        move = f"wait for its end (penstock status {found.id}), then: penstock rerun {found.id}"
        return Conflict("it is being aborted, which is final", where=found.id, next_move=move)
    what = f"it has ended already: {found.outcome}"
    if found.outcome in ("promoted", "restored"):
        move = f"penstock rollback {service} goes back to what was live before it"
        move = move if word == "abort" else f"nothing: it has all users; penstock why {service}"
    else:
        what += ", and has no users"
        move = f"penstock rerun {found.id} delivers it again; penstock status {service} says what is live"
    return Conflict(what, where=found.id, next_move=move)
