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
from penstock.core.pipeline import State
from penstock.core.release import Artifact, Change, Value
from penstock.engine.journal import Header, Journal
from penstock.engine.plans import planned
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

    async def _queue(self, header: Header) -> str:
        delivery = f"{header.change.service}-{secrets.token_hex(4)}"
        pipeline = planned(header.change.kind, header.config)
        header = replace(header, version=2, pipeline=pipeline)
        async with self._store.transaction() as tx:
            await self._journal.create(tx, delivery, header)
        return delivery


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
