"""Starting deliveries: of a commit, of environment data, and back to an earlier pair.

Called by the server. Everything that can be wrong with what was given is found here, before anything
is queued: an error leaves nothing behind.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from penstock.config import (
    EnvironmentConfig,
    ServiceConfig,
    environment_data,
    load_environments,
    load_service,
)
from penstock.core.pipeline import GOOD, Record, State
from penstock.core.release import Artifact, Change, Value
from penstock.engine.journal import Delivery, Header, Journal
from penstock.engine.plans import plan, planned
from penstock.errors import Conflict, Invalid
from penstock.ledger.live import live, previous
from penstock.ledger.log import Ledger
from penstock.ports import Artifacts, Builder, Source, SourceRevision, Store, Transaction


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

    async def ship(self, location: str, revision: str, environment: str) -> tuple[str, ...]:
        """Queue what the commit holds: a service, or the environment data of an organisation repository.

        Returns the ids of the new deliveries; empty if environment data changes nothing that is live.
        """
        found = await self._source.resolve(location, revision)
        with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
            tree = Path(folder)
            await self._source.checkout(found, tree)
            documents = load_environments(tree)
            if documents and not (tree / "penstock.yaml").exists():
                return await self._ship_data(found, documents, environment)
            config = load_service(tree, Path(location.rstrip("/")).name.removesuffix(".git"))
            self._recognise(tree, config, location)
        change = _change("code", config.service, environment, found)
        return (await self._queue(Header(change, config, found)),)

    async def roll_back(self, service: str, environment: str, person: str, reason: str) -> str:
        """Undo: abort what is taking traffic now, or else come back to the previous pair.

        Returns the delivery that does it. Never waits for queued deliveries.
        """
        async with self._store.transaction(write=False) as tx:
            listed = await self._journal.open_in(tx, f"{service}/{environment}")
            unfinished = [await self._journal.find(tx, found.id) for found in listed]
            waiting = [d for d in unfinished if d.header.change.kind == "rollback"]
            running = [d for d in unfinished if d.state is State.EXECUTING and d not in waiting]
            target = await previous(self._ledger, tx, service, environment)
            current = await live(self._ledger, tx, service, environment)
        if running:
            await self._journal.request(running[0].id, "abort")
            if running[0].facts.of("shift"):
                await self._hold_back(unfinished, running[0].id)
                return running[0].id  # it took traffic: undoing it is the rollback
        if waiting:
            return waiting[0].id
        if current is None or target is None:
            what = "has never been promoted" if current is None else "has nothing earlier to come back to"
            raise Conflict(f"{service} {what} in {environment}", next_move="penstock status")
        image = await self._artifacts.describe(target.release.artifact)
        change = Change(
            kind="rollback",
            service=service,
            environment=environment,
            repository="",
            revision=target.release.digest,
            author=person,
            title=reason or f"rollback to {target.release.id}",
        )
        artifact = Artifact(service, target.release.artifact)
        return await self._queue(Header(change, image.config, None, artifact, target.data))

    async def again(self, delivery: str, stage: str | None) -> str:
        """Deliver the change of an ended delivery again, as a new delivery.

        With a *stage* ("": the one that failed), what was made and checked and does not come after that stage
        is taken over.
        """
        async with self._store.transaction(write=False) as tx:
            found = await self._journal.find(tx, delivery)
        if found.header.change.kind == "rollback":
            raise Invalid("a rollback is not repeated", where=found.id, next_move="penstock rollback SERVICE")
        if not found.ended:
            raise Conflict(
                f"still {found.state}", where=found.id, next_move="penstock abort, or wait for its end"
            )
        return await self._queue(replace(found.header, retries=found.id), _taken_over(found, stage))

    async def _hold_back(self, waiting: list[Delivery], by: str) -> None:
        """What was queued before a rollback may hold what is taken back: it is not delivered by itself."""
        async with self._store.transaction() as tx:
            for delivery in waiting:
                if delivery.state is State.PENDING and delivery.header.change.kind != "rollback":
                    await self._journal.supersede(tx, delivery.id, by)

    def _recognise(self, tree: Path, config: ServiceConfig, location: str) -> None:
        if any(builder.detect(tree, config) for builder in self._builders.values()):
            return
        raise Invalid(
            "nothing here looks like a service that can be built",
            where=location,
            next_move="add a Procfile (web: <command>), a package.json start script, "
            "or penstock.yaml with run:",
        )

    async def _ship_data(
        self, found: SourceRevision, documents: tuple[EnvironmentConfig, ...], environment: str
    ) -> tuple[str, ...]:
        wanted = [document for document in documents if document.environment == environment]
        if not wanted:
            known = ", ".join(document.environment for document in documents)
            raise Invalid(f"no document for {environment!r} (there are: {known})", where="environments/")
        headers = []
        async with self._store.transaction(write=False) as tx:
            for service, given in sorted(wanted[0].services.items()):
                header = await self._data_header(tx, found, service, environment, given.values)
                if header is not None:
                    headers.append(header)
        return tuple([await self._queue(header) for header in headers])

    async def _data_header(
        self,
        tx: Transaction,
        found: SourceRevision,
        service: str,
        environment: str,
        values: Mapping[str, Value],
    ) -> Header | None:
        now_live = await live(self._ledger, tx, service, environment)
        if now_live is None:
            raise Invalid(
                f"{service} is not live in {environment}: environment data needs an artifact to go with",
                where=f"environments/{environment}.yaml",
                next_move=f"ship {service} first; it starts with the defaults of its penstock.yaml",
            )
        image = await self._artifacts.describe(now_live.release.artifact)
        data = environment_data(image.config, environment, values)
        if data == now_live.data and not await self._journal.open_in(tx, f"{service}/{environment}"):
            return None
        return Header(_change("configuration", service, environment, found), image.config, None, None, data)

    async def _queue(self, header: Header, records: tuple[Record, ...] = ()) -> str:
        delivery = f"{header.change.service}-{secrets.token_hex(4)}"
        pipeline = planned(header.change.kind, header.config)
        header = replace(header, version=2, pipeline=pipeline)
        async with self._store.transaction() as tx:
            waiting = await self._journal.open_in(tx, f"{header.change.service}/{header.change.environment}")
            await self._journal.create(tx, delivery, header)
            for record in records:
                await self._journal.take_over(tx, delivery, record)
            for older in waiting:
                if _makes_needless(header, older):
                    await self._journal.supersede(tx, older.id, delivery)
        return delivery


#: What is about the artifact alone, and as true of it in another delivery.
ABOUT_ARTIFACT = ("build", "suite", "scan")


def _taken_over(found: Delivery, stage: str | None) -> tuple[Record, ...]:
    """The good records of stages that do not come after *stage*. `Invalid` if there is no such stage."""
    if stage is None:
        return ()
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
    return tuple(
        record
        for record in found.records
        if record.intent.stage not in again and record.intent.verb in ABOUT_ARTIFACT and record.state in GOOD
    )


def _makes_needless(header: Header, older: Delivery) -> bool:
    """A rollback holds until somebody ships again; a newer change stands for those of its kind before it."""
    change, before = header.change, older.header.change
    if change.kind == "rollback":
        return older.state is State.PENDING and before.kind != "rollback"
    same = (change.kind, change.repository) == (before.kind, before.repository)
    return same and header.config.supersede and not header.retries  # an old change is no newer one


def _change(kind: str, service: str, environment: str, found: SourceRevision) -> Change:
    return Change(
        kind="code" if kind == "code" else "configuration",
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
