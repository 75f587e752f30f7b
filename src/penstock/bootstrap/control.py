"""The control plane, wired: store, ledger, journal, worker, and the ports that they use.

Called by `serve`, `work` and tests. Adapters are named here by entry-point name and nowhere else.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock.bootstrap.boundaries import around, around_engine, around_store
from penstock.bootstrap.home import Home
from penstock.bootstrap.identity import ORIGIN, WORKER, Keys, found, load_keys
from penstock.bootstrap.outgoing import Outgoing, open_outgoing
from penstock.bootstrap.plugins import find, names, open_sandbox
from penstock.bootstrap.target import Target, open_target
from penstock.checks.consumers import LiveDemands
from penstock.core.notes import VerifierKey
from penstock.core.objectives import ENVIRONMENT
from penstock.core.workload import Isolation
from penstock.engine import prune, schemas, seats, sessions
from penstock.engine.door import Door
from penstock.engine.experiments import Experiments
from penstock.engine.journal import Journal
from penstock.engine.operators import Operators
from penstock.engine.performer import Engine
from penstock.engine.policyrepo import PolicyRepository
from penstock.engine.scratch import Remembering
from penstock.engine.ship import Shipping
from penstock.engine.worker import SLOTS, Worker
from penstock.errors import Invalid
from penstock.ledger import slos
from penstock.ledger.log import Ledger
from penstock.ledger.witnesses import Known, Witnesses
from penstock.ports import (
    Artifacts,
    Builder,
    Language,
    Meter,
    Metrics,
    Platform,
    Router,
    Sandbox,
    Store,
    Transaction,
)
from penstock.telemetry import rollups
from penstock.telemetry.rollups import Place
from penstock.telemetry.sampler import Sampler


@dataclass(frozen=True)
class ControlPlane:
    """Everything that the server and the worker share in one process."""

    home: Home
    keys: Keys
    store: Store
    ledger: Ledger
    journal: Journal
    engine: Engine
    shipping: Shipping
    operators: Operators
    door: Door
    policy_repository: PolicyRepository
    worker: Worker
    witnesses: Witnesses
    outgoing: Outgoing
    sampler: Sampler
    target: Target
    platform: Platform
    router: Router
    metrics: Metrics
    meters: Mapping[str, Meter]
    artifacts: Artifacts
    languages: Mapping[str, Language]
    isolation: Isolation

    @property
    def experiments(self) -> Experiments:
        return Experiments(self.store, self.ledger, self.artifacts, self.shipping.queue)

    async def send(self) -> None:
        """Tell witnesses, webhooks and the collector of traces, until cancelled. One process of a store at a
        time: else everybody would be told twice."""
        await asyncio.gather(self.witnesses.run(), self.outgoing.run())

    async def close(self) -> None:
        """Let go of everything; whoever works with it has stopped."""
        await self.target.close()
        await self.store.close()


async def open_control_plane(home: Home, *, worker: str = WORKER, slots: int = SLOTS) -> ControlPlane:
    """Wire everything for a data folder, new or not; its worker signs with the key that *worker* names."""
    keys, store = load_keys(home, worker), around_store(open_store(home))
    ledger, journal = Ledger(store, keys.logs, ORIGIN), Journal(store, home.settings.lease_seconds)
    await _migrate(home, store, ledger, journal)
    await found(store, ledger, keys, home, worker)
    target = open_target(home)
    enclosing = target.sandbox or open_sandbox(home.settings.sandbox)
    sandbox = around("Sandbox", Remembering(enclosing, home.work))
    builders = open_builders(home.artifacts, sandbox)
    artifacts: Artifacts = find("artifacts", "layout")(home.artifacts)
    languages, source = open_languages(), around("Source", find("source", "git")(home.cache / "git"))
    door = Door(store, ledger, journal, languages, keys.worker, keys.server)
    kept: dict[str, object] = {"store": store, "ledger": ledger, "journal": journal}
    powers = {
        **kept,
        "languages": languages,
        **target.powers,
        "sandbox": sandbox,
        "builders": builders,
        "artifacts": artifacts,
        "demands": LiveDemands(store, ledger, artifacts),
        "tools": around("Tools", find("tools", "project")(sandbox, home.cache)),
    }
    engine = around_engine(Engine(powers, source, home.work, home.logs / "deliveries", worker))
    return ControlPlane(
        home=home,
        keys=keys,
        store=store,
        ledger=ledger,
        journal=journal,
        engine=engine,
        shipping=Shipping(store, journal, ledger, source, builders, artifacts),
        operators=Operators(store, ledger, journal),
        door=door,
        policy_repository=PolicyRepository(store, ledger, source, door),
        worker=Worker(store, journal, ledger, engine, keys.worker, slots=slots),
        witnesses=Witnesses(store, ledger, lambda: open_witnesses(home)),
        sampler=Sampler(store, target.metrics, functools.partial(_with_objectives, ledger)),
        outgoing=await open_outgoing(home, store, ledger, journal),
        target=target,
        platform=target.platform,
        router=target.router,
        metrics=target.metrics,
        meters=target.meters,
        artifacts=artifacts,
        languages=languages,
        isolation=sandbox.isolation,
    )


async def _migrate(home: Home, store: Store, ledger: Ledger, journal: Journal) -> None:
    """Bring every table to this release; `Conflict` before any is changed if one is of a newer one."""
    try:
        schemas.refuse_newer(await schemas.versions(store), str(home.path))
        await ledger.migrate()
        await journal.migrate()
        await prune.migrate(store)
        await seats.migrate(store)
        await sessions.migrate(store)
        await rollups.migrate(store)
    except BaseException:
        await store.close()
        raise


async def _with_objectives(ledger: Ledger, tx: Transaction) -> Collection[Place]:
    """The services for which something is to be counted."""
    return [(service, ENVIRONMENT) for service in slos.services(await ledger.authority(tx))]


def store_place(home: Home) -> tuple[str, Path | str]:
    """The store's adapter and what it takes, as ``PENSTOCK_STORE`` says; without it, a file in the data
    folder."""
    given = os.environ.get("PENSTOCK_STORE") or f"sqlite:{home.store}"
    scheme, _, rest = given.partition(":")
    if scheme == "sqlite" and rest:
        return "sqlite", Path(rest).expanduser().absolute()
    if scheme in ("postgres", "postgresql"):
        return "postgres", given
    # Not repeated: it may hold a password.
    raise Invalid(
        "not a place for a store",
        where="PENSTOCK_STORE",
        next_move="sqlite:PATH, or postgresql://USER@HOST:PORT/DATABASE",
    )


def open_store(home: Home) -> Store:
    """The database that ``PENSTOCK_STORE`` names; without it, the file in the data folder."""
    name, place = store_place(home)
    store: Store = find("store", name)(place)
    return store


def open_witnesses(home: Home) -> list[Known]:
    """The witnesses that the settings name now."""
    http = find("witness", "http")
    return [
        Known(VerifierKey.cosigner(given.key), given.url, http(given.url))
        for given in home.settings.witnesses
    ]


def open_languages() -> dict[str, Language]:
    """Every installed policy language."""
    return {name: find("language", name)() for name in names("language")}


def open_builders(store: Path, sandbox: Sandbox) -> dict[str, Builder]:
    """Every installed builder, in alphabetical order of their names reversed: python before node."""
    ordered = sorted(names("builder"), reverse=True)
    return {name: around("Builder", find("builder", name)(sandbox, store)) for name in ordered}
