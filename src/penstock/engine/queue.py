"""The queue of deliveries: puts them in, alone or as a change set, and says which older ones they replace.

Called by `ship`, once everything that can be wrong with a change was found. Must not read repositories or
artifacts: what happens here happens in one transaction.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from penstock.core.changeset import MOST_MEMBERS, ChangeSet, in_order
from penstock.core.pipeline import GOOD, Record, State
from penstock.engine import changesets
from penstock.engine.journal import Delivery, Header, Journal
from penstock.engine.plans import plan, with_plan
from penstock.errors import Conflict, Invalid
from penstock.ledger import slos
from penstock.ledger.log import Ledger
from penstock.ports import Store, Transaction

#: What is about the artifact alone, and as true of it in another delivery.
ABOUT_ARTIFACT = ("build", "suite", "scan")


@dataclass(frozen=True)
class Proposal:
    """A delivery to be, and the records of an earlier one that it begins with."""

    header: Header
    records: tuple[Record, ...] = ()

    @property
    def service(self) -> str:
        return self.header.change.service


class Queue:
    def __init__(self, store: Store, journal: Journal, ledger: Ledger) -> None:
        self._store = store
        self._journal = journal
        self._ledger = ledger

    async def add(self, proposal: Proposal) -> str:
        """Queue one delivery; returns its id."""
        delivery = _new_id(proposal)
        async with self._store.transaction() as tx:
            await self._put(tx, delivery, proposal)
        return delivery

    async def add_together(self, proposals: Sequence[Proposal]) -> tuple[str, ...]:
        """Queue deliveries as one change set; returns their ids, those that go first before the others.

        `Invalid` if two are of one service, or if they are too many. One alone is no set.
        """
        if len(proposals) < 2:
            return tuple([await self.add(proposal) for proposal in proposals])
        name, members = f"set-{secrets.token_hex(4)}", _in_set(proposals)
        ids = {service: _new_id(proposal) for service, (proposal, _) in members.items()}
        async with self._store.transaction() as tx:
            await changesets.create(tx, name)
            for service, (proposal, before) in members.items():
                part = ChangeSet(name, tuple(ids.values()), tuple(ids[one] for one in before))
                header = replace(proposal.header, changeset=part)
                await self._put(tx, ids[service], replace(proposal, header=header))
        return tuple(ids.values())

    async def again(self, delivery: str, stage: str | None) -> str:
        """Deliver the change of an ended delivery again, as a new delivery.

        With a *stage* ("": the one that failed), what was made and checked and does not come after that stage
        is reused. The other deliveries of its change set are delivered again with it.
        """
        async with self._store.transaction(write=False) as tx:
            found = await self._journal.find(tx, delivery)
            part = found.header.changeset
            names = part.members if part else (found.id,)
            members = [await self._journal.find(tx, name) for name in names]
        proposals = [_repeated(one, stage, named=one.id == found.id) for one in members]
        started = await self.add_together(proposals)
        service = found.header.change.service
        return next(one for one in started if one.rpartition("-")[0] == service)

    async def supersede(self, deliveries: Sequence[Delivery], by: str) -> None:
        """What was queued before a rollback may hold what is taken back: it is not delivered by itself."""
        async with self._store.transaction() as tx:
            for delivery in deliveries:
                if delivery.state is State.PENDING and delivery.header.change.kind != "rollback":
                    await self._journal.supersede(tx, delivery.id, by)

    async def _put(self, tx: Transaction, delivery: str, proposal: Proposal) -> None:
        authority = await self._ledger.authority(tx)
        objectives = bool(slos.in_force(authority, proposal.service))
        header = with_plan(proposal.header, objectives=objectives)
        scope = f"{header.change.service}/{header.change.environment}"
        waiting = await self._journal.open_in(tx, scope)
        await self._journal.create(tx, delivery, header)
        if proposal.records:
            await self._journal.add_records(tx, delivery, proposal.records)
        for older in waiting:
            if _makes_needless(header, older):
                await self._journal.supersede(tx, older.id, delivery)


def _new_id(proposal: Proposal) -> str:
    return f"{proposal.service}-{secrets.token_hex(4)}"


def _in_set(proposals: Sequence[Proposal]) -> Mapping[str, tuple[Proposal, tuple[str, ...]]]:
    """By service, in their order: each with the services that go before it."""
    by_service = {proposal.service: proposal for proposal in proposals}
    if len(by_service) != len(proposals):
        named = [proposal.service for proposal in proposals]
        twice = next(service for service in named if named.count(service) > 1)
        raise Invalid(f"{twice} is twice in one change set", next_move="name one commit of each service")
    if len(proposals) > MOST_MEMBERS:
        raise Invalid(f"a change set has at most {MOST_MEMBERS} services, found {len(proposals)}")
    calls = {service: proposal.header.config.calls for service, proposal in by_service.items()}
    if proposals[0].header.change.kind == "rollback":  # the other way round: callers are taken back first
        calls = {one: tuple(other for other in calls if one in calls[other]) for one in calls}
    return {service: (by_service[service], before) for service, before in in_order(calls)}


def _repeated(found: Delivery, stage: str | None, *, named: bool) -> Proposal:
    """The same change once more. Of a delivery that was not *named*, all that was made and checked is reused,
    unless everything begins again (*stage* is None)."""
    if found.header.change.kind == "rollback":
        raise Invalid("a rollback is not repeated", where=found.id, next_move="penstock rollback SERVICE")
    if not found.ended:
        raise Conflict(
            f"still {found.state}", where=found.id, next_move="penstock abort, or wait for its end"
        )
    header = replace(found.header, retries=found.id, changeset=None)
    if stage is None:
        return Proposal(header)
    again = _from_stage(found, stage) if named else frozenset()
    return Proposal(
        header, tuple(record for record in _about_artifact(found) if record.intent.stage not in again)
    )


def _from_stage(found: Delivery, stage: str) -> frozenset[str]:
    """*stage* ("": the one that failed) and all that come after it. `Invalid` if there is no such stage."""
    pipeline = plan(found)
    failed = found.facts.failed(pipeline)
    name = stage or (failed.intent.stage if failed else "")
    names = [listed.name for listed in pipeline.stages]
    if name not in names:
        problem = f"no stage {name!r}" if name else "no stage of it failed"
        raise Invalid(
            problem, where=found.id, next_move=f"name one of: {', '.join(names)}; or penstock rerun"
        )
    again = {name}
    for listed in pipeline.stages:
        again |= {listed.name} if again.intersection(listed.after) else set()
    return frozenset(again)


def _about_artifact(found: Delivery) -> list[Record]:
    return [r for r in found.records if r.intent.verb in ABOUT_ARTIFACT and r.state in GOOD]


def _makes_needless(header: Header, older: Delivery) -> bool:
    """A rollback holds until somebody ships again; a newer change stands for those of its kind before it.

    One of a change set is replaced by nothing newer: the others of the set would go without it.
    """
    change, before = header.change, older.header.change
    if change.kind == "rollback":
        return older.state is State.PENDING and before.kind != "rollback"
    if change.kind == "experiment":
        return False  # each asks something else
    same = (change.kind, change.repository) == (before.kind, before.repository)
    alone = older.header.changeset is None
    return same and alone and header.config.supersede and not header.retries  # an old change is no newer one
