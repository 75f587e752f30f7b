"""Who may operate a service: ship, abort, promote, retry and roll back it.

Called by the API before it starts or stops anything. It decides nothing itself: the ledger's authority says
who holds which role. Reading needs no role, and what may go out is still for the policies to say.
"""

from __future__ import annotations

from collections.abc import Iterable

from penstock.core.authority import ADMINISTRATOR, DEPLOYER, OPERATING, Authority
from penstock.engine.journal import Delivery, Journal
from penstock.errors import Refused
from penstock.ledger.log import Ledger
from penstock.ports import Store


class Operators:
    def __init__(self, store: Store, ledger: Ledger, journal: Journal) -> None:
        self._store = store
        self._ledger = ledger
        self._journal = journal

    async def demand_any(self, identity: str, verb: str) -> None:
        """`Refused` for whoever operates no service at all: nothing is even fetched for them."""
        authority = await self._authority()
        held = authority.roles.get(identity, frozenset())
        if not any(role in OPERATING for role, _ in held):
            raise Refused(
                f"{identity} may not {verb} anything here", next_move=_move(authority, identity, "")
            )

    async def demand(self, identity: str, verb: str, services: Iterable[str]) -> None:
        """`Refused` unless *identity* operates every one of the services."""
        authority = await self._authority()
        for service in services:
            if not authority.operates(identity, service):
                raise Refused(
                    f"{identity} may not {verb} {service}: it takes the role {DEPLOYER}, or a lead's, for it",
                    next_move=_move(authority, identity, service),
                )

    async def delivery(self, identity: str, verb: str, name: str) -> str:
        """The id of the delivery that *name* begins, if *identity* operates its service."""
        found = await self._find(name)
        await self.demand(identity, verb, [found.header.change.service])
        return found.id

    async def with_its_set(self, identity: str, verb: str, name: str) -> str:
        """The same, for what starts the other deliveries of its change set too."""
        found = await self._find(name)
        part = found.header.changeset
        members = [await self._find(member) for member in part.members] if part else [found]
        await self.demand(identity, verb, [member.header.change.service for member in members])
        return found.id

    async def _authority(self) -> Authority:
        async with self._store.transaction(write=False) as tx:
            return await self._ledger.authority(tx)

    async def _find(self, name: str) -> Delivery:
        async with self._store.transaction(write=False) as tx:
            return await self._journal.find(tx, name)


def _move(authority: Authority, identity: str, service: str) -> str:
    """Whom to ask: those who may do it themselves, and who could grant it."""
    scope = f"service/{service}" if service else "organisation"
    holders = authority.holders(DEPLOYER, scope) or ("nobody",)
    team = authority.teams.get(service)
    place = f" --scope team/{team}" if team else ""
    granting = ", ".join(authority.holders(ADMINISTRATOR, scope))
    return (
        f"{DEPLOYER} is held by {', '.join(holders)}; an administrator ({granting}) grants it: "
        f"penstock role grant {identity} {DEPLOYER}{place}"
    )
