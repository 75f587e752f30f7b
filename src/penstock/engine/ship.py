"""Starting deliveries: of a commit, of environment data, and back to an earlier pair.

Called by the server. Everything that can be wrong with what was given is found here, before anything
is queued: an error leaves nothing behind.
"""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from penstock.config import (
    ServiceConfig,
    environment_data,
    load_environments,
    load_service,
)
from penstock.core.environmentconfig import NAME, EnvironmentConfig
from penstock.core.pipeline import State
from penstock.core.release import Artifact, Change
from penstock.engine.journal import Delivery, Header, Journal
from penstock.engine.queue import Proposal, Queue
from penstock.errors import Conflict, Invalid
from penstock.ledger.live import Live, history, live
from penstock.ledger.log import Ledger
from penstock.ports import Artifacts, Builder, Source, SourceRevision, Store, Transaction

#: Called with the services of what was found, before anything is queued: raises unless all may be shipped.
Permit = Callable[[Sequence[str]], Awaitable[None]]


class Shipping:
    def __init__(
        self,
        store: Store,
        journal: Journal,
        ledger: Ledger,
        source: Source,
        builders: Mapping[str, Builder],
        artifacts: Artifacts,
    ) -> None:
        self._store = store
        self._journal = journal
        self._ledger = ledger
        self._source = source
        self._builders = builders
        self._artifacts = artifacts
        self.queue = Queue(store, journal, ledger)

    async def ship(
        self, location: str, revision: str, environment: str, permit: Permit, beside: Sequence[str] = ()
    ) -> tuple[str, ...]:
        """Queue what the commit holds: a service, or the environment data of an organisation repository.

        It is tested together with the dark releases of the deliveries *beside*. Returns the ids of the new
        deliveries; empty if environment data changes nothing that is live.
        """
        names = await self._beside(beside, environment)
        proposed = await self._proposed(location, revision, environment)
        proposed = [replace(p, header=replace(p.header, beside=names)) for p in proposed]
        await permit([proposal.service for proposal in proposed])
        return tuple([await self.queue.add(proposal) for proposal in proposed])

    async def ship_together(
        self, changes: Sequence[tuple[str, str]], environment: str, permit: Permit
    ) -> tuple[str, ...]:
        """Queue what several commits (location, revision) hold as one change set: all of it goes to
        production, in the order in which the services call one another, or nothing stays there.

        Returns the ids of the new deliveries, those that are called first.
        """
        found = [await self._proposed(location, revision, environment) for location, revision in changes]
        proposals = [proposal for proposed in found for proposal in proposed]
        await permit([proposal.service for proposal in proposals])
        return await self.queue.add_together(proposals)

    async def _beside(self, beside: Sequence[str], environment: str) -> tuple[str, ...]:
        """The ids of these deliveries, if each has a dark release or may have one soon."""
        async with self._store.transaction(write=False) as tx:
            found = [await self._journal.find(tx, name) for name in beside]
        for other in found:
            if other.ended:
                raise Conflict(f"{other.id} has ended: its release is not dark", next_move="penstock status")
            if other.header.change.environment != environment:
                raise Invalid(f"{other.id} is not of {environment}")
        return tuple(other.id for other in found)

    async def _proposed(self, location: str, revision: str, environment: str) -> list[Proposal]:
        if not NAME.fullmatch(environment):  # it is a part of paths, host names and queues
            what = f"{environment[:80]!r} is not the name of an environment"
            raise Invalid(what, next_move="lower-case letters, digits and dashes, at most 40")
        found = await self._source.resolve(location, revision)
        with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
            tree = Path(folder)
            await self._source.checkout(found, tree)
            documents = load_environments(tree)
            if documents and not (tree / "penstock.yaml").exists():
                return await self._proposed_data(found, documents, environment)
            config = load_service(tree, Path(location.rstrip("/")).name.removesuffix(".git"))
            recognise(self._builders, tree, config, location)
        change = change_of("code", config.service, environment, found)
        return [Proposal(Header(change, config, found))]

    async def roll_back(self, service: str, environment: str, person: str, reason: str) -> str:
        """Undo: abort what is taking traffic now, or else come back to the previous pair.

        Returns the delivery that does it. Never waits for queued deliveries.
        """
        async with self._store.transaction(write=False) as tx:
            listed = await self._journal.open_in(tx, f"{service}/{environment}")
            unfinished = [await self._journal.find(tx, found.id) for found in listed]
            waiting = [d for d in unfinished if d.header.change.kind == "rollback"]
            running = [d for d in unfinished if d.state is State.EXECUTING and d not in waiting]
            current, target = await history(self._ledger, tx, service, environment)
        change = _rollback_change(service, environment, person, reason)
        if running and _can_be_aborted(running[0]):
            await self._journal.request(running[0].id, "abort")
            if any(running[0].facts.of(verb) for verb in ("shift", "assign", "promote")):
                await self.queue.supersede(unfinished, running[0].id)
                return running[0].id  # it took traffic: undoing it is the rollback
        if waiting:
            return waiting[0].id
        return await self.queue.add(await self._back(current, target, change))

    async def roll_back_together(
        self, service: str, environment: str, person: str, reason: str, permit: Permit
    ) -> tuple[str, ...]:
        """Come back from the change set with which *service* was promoted: all its services, callers first.

        `Conflict` if it came with none, or if another of them was delivered since or is being delivered.
        """
        async with self._store.transaction(write=False) as tx:
            current = await live(self._ledger, tx, service, environment)
            found = await self._journal.find(tx, current.delivery) if current else None
            part = found.header.changeset if found else None
            if part is None:
                problem = f"what is live of {service} came with no other service"
                raise Conflict(problem, next_move=f"penstock rollback {service}")
            members = [(await self._journal.find(tx, name)).header.change.service for name in part.members]
            proposals = []
            for member, delivery in zip(members, part.members, strict=True):
                now_live, target = await history(self._ledger, tx, member, environment)
                busy = await self._journal.open_in(tx, f"{member}/{environment}")
                if busy or now_live is None or now_live.delivery != delivery:
                    what = (
                        "is being delivered" if busy else "was delivered again since, or was unchanged by it"
                    )
                    raise Conflict(f"{member} {what}", next_move="roll back each service by itself")
                change = _rollback_change(member, environment, person, reason)
                proposals.append(await self._back(now_live, target, change))
        await permit(members)
        return await self.queue.add_together(proposals)

    async def _back(self, current: Live | None, target: Live | None, change: Change) -> Proposal:
        if current is None or target is None:
            what = "has never been promoted" if current is None else "has nothing earlier to come back to"
            problem = f"{change.service} {what} in {change.environment}"
            raise Conflict(problem, next_move="penstock status")
        image = await self._artifacts.describe(target.release.artifact)
        title = change.title or f"rollback to {target.release.id}"
        change = replace(change, revision=target.release.digest, title=title)
        artifact = Artifact(change.service, target.release.artifact)
        return Proposal(Header(change, image.config, None, artifact, target.data))

    async def _proposed_data(
        self, found: SourceRevision, documents: tuple[EnvironmentConfig, ...], environment: str
    ) -> list[Proposal]:
        wanted = [document for document in documents if document.environment == environment]
        if not wanted:
            known = ", ".join(document.environment for document in documents)
            raise Invalid(f"no document for {environment!r} (there are: {known})", where="environments/")
        proposed = []
        async with self._store.transaction(write=False) as tx:
            for service in sorted(wanted[0].services):
                header = await self._data_header(tx, found, service, wanted[0])
                if header is not None:
                    proposed.append(Proposal(header))
        return proposed

    async def _data_header(
        self, tx: Transaction, found: SourceRevision, service: str, document: EnvironmentConfig
    ) -> Header | None:
        environment, values = document.environment, document.services[service].values
        mesh = document.mesh_of(service)
        now_live = await live(self._ledger, tx, service, environment)
        if now_live is None:
            raise Invalid(
                f"{service} is not live in {environment}: environment data needs an artifact to go with",
                where=f"environments/{environment}.yaml",
                next_move=f"ship {service} first; it starts with the defaults of its penstock.yaml",
            )
        image = await self._artifacts.describe(now_live.release.artifact)
        data = environment_data(image.config, environment, values, mesh)
        if data == now_live.data and not await self._journal.open_in(tx, f"{service}/{environment}"):
            return None
        return Header(change_of("configuration", service, environment, found), image.config, None, None, data)


def _can_be_aborted(running: Delivery) -> bool:
    """Not once it was promoted, unless the others of its change set are still on their way."""
    return running.header.changeset is not None or not running.facts.of("promote")


def _rollback_change(service: str, environment: str, person: str, reason: str) -> Change:
    """Without its *revision*, which is the pair to come back to."""
    return Change("rollback", service, environment, "", "", author=person, title=reason)


def recognise(builders: Mapping[str, Builder], tree: Path, config: ServiceConfig, location: str) -> None:
    """`Invalid` if no builder knows what to do with the tree."""
    if not any(builder.detect(tree, config) for builder in builders.values()):
        raise Invalid(
            "nothing here looks like a service that can be built",
            where=location,
            next_move="add a Procfile (web: <command>), a package.json start script, "
            "or penstock.yaml with run:; see docs/guides/ship-your-own.md",
        )


def change_of(
    kind: Literal["code", "configuration"], service: str, environment: str, found: SourceRevision
) -> Change:
    """The change that a commit proposes for a service."""
    return Change(
        kind=kind,
        service=service,
        environment=environment,
        repository=found.location,
        revision=found.revision,
        author=found.author,
        title=found.title,
        authored_at=found.authored_at,
        reviewers=found.reviewers,
        work_items=found.work_items,
        signing_key=found.signing_key,
    )
