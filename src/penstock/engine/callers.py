"""Which services call the one that is delivered: whom its new rules may shut out.

Called before a release is deployed, which says so. Who calls whom is what the data plane has for what has
users, and what the other deliveries of a change set declare. It decides nothing, and what cannot be read is
passed over: nobody is refused by a hint.
"""

from __future__ import annotations

import contextlib

from penstock.engine.chains import called_by_users_release
from penstock.engine.journal import Delivery, Journal
from penstock.errors import Unavailable
from penstock.ledger.live import places
from penstock.ports import Router, Store


async def callers(own: Delivery, *, store: Store, journal: Journal, router: Router) -> tuple[str, ...]:
    """The services of this environment that call it, in alphabetical order; none are looked for unless it
    says who may."""
    change, part = own.header.change, own.header.changeset
    if own.header.config.traffic.callers is None:
        return ()
    async with store.transaction(write=False) as tx:
        live = {service for service, environment in await places(tx) if environment == change.environment}
        others = [await journal.find(tx, name) for name in part.members] if part else []
    found = {other.header.change.service for other in others if change.service in other.header.config.calls}
    for service in live - {change.service}:
        with contextlib.suppress(Unavailable):
            state = await router.read(service, change.environment)
            found |= {service} if change.service in called_by_users_release(state) else set()
    return tuple(sorted(found - {change.service}))
