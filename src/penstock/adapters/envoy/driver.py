"""Moves traffic: the safe order, each step confirmed by Envoy before the next.

Called by the node agent, which checks fences and looks after it (`tend`). The order, and why: clusters
first and proven ready, or users meet a cluster that is not there (NC) or not up (UH); then listeners;
then the routes, one rename for all of a service's listeners; only then are old clusters forgotten.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from penstock.adapters.envoy import config, endpoints
from penstock.adapters.envoy.admin import Admin
from penstock.adapters.envoy.admission import REFUSED, refusals
from penstock.adapters.envoy.config import Listening
from penstock.adapters.envoy.files import Files
from penstock.adapters.envoy.keys import Keys
from penstock.adapters.envoy.peers import Peers
from penstock.adapters.envoy.process import Process
from penstock.adapters.envoy.rehearsal import rehearse
from penstock.adapters.envoy.routes import (
    HOST,
    Active,
    active,
    chains,
    kept_by,
    led,
    no_routes,
    routes,
    wanted,
)
from penstock.adapters.envoy.sharing import Shared
from penstock.adapters.envoy.state import State
from penstock.adapters.envoy.tally import Tally, counted
from penstock.adapters.envoy.users import Folds
from penstock.adapters.envoy.visits import read_visits
from penstock.adapters.envoy.watches import check_room, watched
from penstock.core.admission import Refused
from penstock.core.experiment import Goal, Users
from penstock.core.fence import Fence
from penstock.core.traffic import (
    Backend,
    Counters,
    Egress,
    Led,
    TrafficPlan,
    TrafficState,
    Visit,
)
from penstock.errors import Invalid, Unavailable
from penstock.ports import Issuer

READY_SECONDS = 10.0


class Envoy:
    """Router and Metrics on one local Envoy, all of whose state is under *folder*."""

    def __init__(self, folder: Path, first_port: int = 8600, issuer: Issuer | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._admin = Admin(folder / "admin.sock")
        self._process = Process(folder, self._admin)
        self._lock = asyncio.Lock()
        self._stopped = False
        #: The Envoy that has all clusters and listeners as they were last wanted; "" if that is not known.
        self._confirmed = ""
        self._state = State.of(folder, first_port)
        self._files = Files(folder, self._admin, self._state.next, self._process.last_words)
        self._keys = Keys(self._state.token)
        self._peers = Peers(folder, issuer)
        self._tally = Tally()
        self._users = Shared(self._read_users)
        self._folds = Folds(folder)
        for file in ("cds.json", "lds.json"):
            if not (folder / file).exists():
                self._files.write(file, [])

    # --- Router --------------------------------------------------------------------------------------

    async def read(self, service: str, environment: str) -> TrafficState:
        name = config.route_name(service, environment)
        plan = self._state.plans.get(name)
        port = self._state.known_port(name)
        if plan is None or port is None:
            return TrafficState(service, environment)
        releases = [backend.release for backend in plan.backends]
        found, health = await self._admin.routes(name), await self._admin.health(*releases)
        missing = [backend.release for backend in plan.backends if backend.release not in health]
        if found is None or missing:
            # Taken for "no traffic", this would become everybody's next plan.
            raise Unavailable("Envoy has not loaded its configuration yet", where=", ".join(missing) or name)
        users = active(found[1])
        states = [endpoints.state(b, health[b.release]) for b in plan.backends]
        as_told = all(health[b.release].breakers == b.breakers for b in plan.backends)
        self._confirmed = self._confirmed if as_told else ""  # the next plan has to mend clusters too
        return TrafficState(
            service=service,
            environment=environment,
            backends=tuple(states),
            address=f"http://127.0.0.1:{port}",
            preview_token=self._keys.preview(name),
            asked=None if as_told and users in map(wanted, self._state.known(name)) else plan,
            **vars(users),
        )

    async def apply(self, plan: TrafficPlan, *, fence: Fence) -> TrafficState:
        name = config.route_name(plan.service, plan.environment)
        await self._drained(name, plan)
        async with self._lock:
            self._stopped = False
            await self._process.ready()
            await self._move(name, plan)
        return await self.read(plan.service, plan.environment)

    async def _drained(self, name: str, plan: TrafficPlan) -> None:
        """Wait until what lost its users, and is to lose its addresses now, has answered those it had: its
        instances are told to end next, and not all of them wait then. Other services need not wait."""
        if (known := self._state.plans.get(name)) is None:
            return
        kept = {weight.release for weight in known.weights}
        kept |= {b.release for b in plan.backends if b.addresses or b.draining}
        had = (b for b in known.backends if b.addresses or b.draining)
        leaving = {b.release: b.drain_seconds for b in had if b.release not in kept}
        deadline = time.monotonic() + max(leaving.values(), default=0.0)
        with contextlib.suppress(Unavailable):  # an Envoy that is gone has nobody waiting
            while leaving and time.monotonic() < deadline and await self._admin.waiting(*leaving):
                await asyncio.sleep(0.02)

    async def _move(self, name: str, plan: TrafficPlan) -> None:
        known = self._state.plans.get(name)
        settled = self._confirmed == self._process.identity
        if settled and known and _same_shape(known, plan):
            # Envoy has every cluster and listener: what this costs does not depend on how many there are.
            try:
                await self._endpoints(plan)
                await self._await_ready(name, plan)
            except (Invalid, Unavailable):
                await self._endpoints(known)
                raise
            self._state.begin(name, plan)
            await self._routes(name, plan)
            self._keep({**self._state.plans, name: plan})
        else:
            await self._rebuild(name, plan)

    async def _rebuild(self, name: str, plan: TrafficPlan) -> None:
        before = dict(self._state.plans)
        both = _union(before.get(name), plan)
        self._peers.prepare(plan, [*before.values()])
        check_room(len(watched([plan]) - watched(before.values())))
        if not (name in before and endpoints.shape(plan.backends) <= endpoints.shape(before[name].backends)):
            await self._rehearse(plan)
        called = [callee for callee in before if self._chained(callee, before.get(name), plan)]
        if not self._confirmed:  # a driver before us may have died before it had led calls elsewhere
            called = [callee for callee in before if callee != name]
        self._confirmed = ""
        self._files.forget()
        # Kept before anything moves: should we die on the way, no cluster that has users is forgotten.
        self._keep({**before, name: both})
        try:
            await self._endpoints(both)
            await self._clusters(self._state.plans)
            await self._await_ready(name, plan)
            await self._listeners(self._state.plans)
            await self._lead(called)
            self._state.begin(name, plan)
            await self._routes(name, plan)
        except (Invalid, Unavailable):
            self._keep(before)
            await self._lead(called)
            await self._listeners(before)
            await self._endpoints(before.get(name))
            await self._clusters(before)
            raise
        self._keep({**before, name: plan})
        await self._lead(called)
        await self._listeners(self._state.plans)
        await self._endpoints(plan)
        await self._clusters(self._state.plans)
        self._peers.forget(self._state.plans.values())
        self._confirmed = self._process.identity

    async def _lead(self, services: Collection[str]) -> None:
        """Lead the calls of dark releases to *services* as the plans now say. Before a caller gets users, or
        they would meet dark releases."""
        for name in services:
            found = await self._admin.routes(name)
            if found is not None:  # its users stay where they are: they are moved service by service
                await self._routes(name, kept_by(active(found[1]), self._state.plans[name]))

    def _chained(self, name: str, *callers: TrafficPlan | None) -> bool:
        """Whether a release of the service *name* is in a chain of a release of *callers*."""
        return bool(chains((caller for caller in callers if caller), self._state.plans[name]))

    def _keep(self, plans: dict[str, TrafficPlan]) -> None:
        self._state.keep(plans)

    async def _routes(self, name: str, plan: TrafficPlan) -> None:
        rendered = self._rendered(plan)
        await self._files.put(
            self._file(name).name, [rendered], lambda: self._route_version(name), f".rds.{name}.update_"
        )

    def _rendered(self, plan: TrafficPlan) -> config.Json:
        return routes(plan, self._keys, chains(self._state.plans.values(), plan))

    async def _await_ready(self, name: str, plan: TrafficPlan) -> None:
        """Nobody is sent to a release that Envoy itself cannot reach."""
        found = await self._admin.routes(name)
        had = active(found[1]) if found else Active()
        wanted = plan.serving - {
            w.release for w in (*had.weights, *(w for r in had.rules for w in r.weights))
        }
        deadline = time.monotonic() + READY_SECONDS
        while wanted:
            health = await self._admin.health(*wanted)
            waiting = [name for name in wanted if name not in health or not health[name].ready]
            if not waiting:
                return
            if time.monotonic() > deadline:
                raise Unavailable(f"the proxy cannot reach {', '.join(waiting)}: no traffic was moved")
            await asyncio.sleep(0.05)

    async def _clusters(self, plans: dict[str, TrafficPlan]) -> None:
        backends = [backend for plan in plans.values() for backend in plan.backends]
        await self._files.put(
            "cds.json",
            config.clusters(backends, self._folder) + self._peers.clusters(plans.values()),
            self._clusters_version,
            "cluster_manager.cds.update_",
        )
        needed = {config.endpoints_file(backend.release) for backend in backends if backend.elastic}
        for file in self._folder.glob("eds-*.json"):
            if file.name not in needed:
                file.unlink()

    async def _endpoints(self, plan: TrafficPlan | None) -> None:
        """Say where elastic releases are. A cluster that is new to Envoy reads it when it comes."""
        for backend in endpoints.elastic(plan):
            file, scope = config.endpoints_file(backend.release), f"cluster.{backend.release}"
            resources = [endpoints.resource(backend)]
            if self._files.has(file) and await self._files.version(scope):
                await self._files.put(
                    file, resources, functools.partial(self._files.version, scope), f"{scope}.update_"
                )
            else:
                self._files.write(file, resources)

    async def _listeners(self, plans: dict[str, TrafficPlan]) -> None:
        rendered = [self._ingress(name, self._state.port(name)) for name in plans]
        rendered += [listener for plan in plans.values() for listener in self._egresses(plan)]
        rendered += self._peers.listeners(plans.values())
        await self._files.put(
            "lds.json",
            rendered,
            lambda: self._files.version("listener_manager.lds"),
            "listener_manager.lds.update_",
        )

    async def _rehearse(self, plan: TrafficPlan) -> None:
        """What Envoy would refuse never reaches the one that serves."""
        name = config.route_name(plan.service, plan.environment)
        port = self._state.known_port(name) or 0  # a port is chosen when there is something to reach
        listeners = [self._ingress(name, port), *self._egresses(plan), *self._peers.listeners([plan])]
        clusters = config.clusters(plan.backends) + self._peers.clusters([plan])
        await rehearse(self._folder, clusters, listeners, self._rendered(plan))

    def _egresses(self, plan: TrafficPlan) -> list[config.Json]:
        return [self._egress(plan, backend, egress) for backend in plan.backends for egress in backend.egress]

    def _ingress(self, name: str, port: int) -> config.Json:
        return self._listener(Listening(f"in.{name}", f"127.0.0.1:{port}", name, self._file(name)))

    def _egress(self, plan: TrafficPlan, backend: Backend, egress: Egress) -> config.Json:
        name = config.route_name(egress.callee, plan.environment)
        baggage = self._keys.chain(backend.release) if backend.chain else ""
        called = f"out.{backend.release}.{egress.callee}"
        of = Listening(called, egress.address, name, self._file(name), backend.release, baggage, plan.service)
        return self._peers.egress(plan, backend, egress, of) or self._listener(of)

    def _listener(self, of: Listening) -> config.Json:
        if not of.file.exists():  # it must be there before a listener asks for it
            self._files.write(of.file.name, [no_routes(of.named)])
        manager = config.manager(of, self._folder / "access.log")
        return config.listener(of, [{"filters": [config.network(manager)]}])

    def _file(self, name: str) -> Path:
        return self._folder / f"rds-{name}.json"

    async def _clusters_version(self) -> str:
        """Empty until every cluster is through its first health check: before, it is not there for users."""
        warming = await self._admin.dump("dynamic_warming_clusters")
        return "" if warming else await self._files.version("cluster_manager.cds")

    async def _route_version(self, name: str) -> str:
        found = await self._admin.routes(name)
        return found[0] if found else ""

    # --- Metrics -------------------------------------------------------------------------------------

    async def counters(self, service: str, environment: str) -> tuple[Counters, ...]:
        """Cumulative counts of user traffic for each release of a service."""
        plan = self._state.plans.get(config.route_name(service, environment))
        if plan is None:
            return ()
        releases = [backend.release for backend in plan.backends]
        found = await self._users.ask(releases)
        readings = (found[release] for release in releases if release in found)
        return self._tally.of(config.route_name(service, environment), readings)

    async def _read_users(self, releases: Collection[str]) -> dict[str, Counters]:
        while True:
            births = await self._admin.births(*releases)
            numbers, latency = await self._admin.users(*births)
            at, envoy = time.time(), self._process.identity
            if await self._admin.births(*releases) == births:  # else some may be of before and some of after
                break
        # A cluster that changes (one more instance, say) starts to count afresh.
        epochs = {release: f"{envoy}-{birth}" for release, birth in births.items()}
        return {r: counted(r, at, epoch, numbers, latency.get(r, {})) for r, epoch in epochs.items()}

    async def refused(self, service: str, environment: str) -> tuple[Refused, ...]:
        name = config.route_name(service, environment)
        if name not in self._state.plans:
            return ()
        return refusals(name, await self._admin.counters(rf"^{REFUSED}\.{re.escape(name)}\."))

    async def visits(self, service: str, environment: str, since: float) -> tuple[Visit, ...]:
        name = config.route_name(service, environment)
        return await asyncio.to_thread(read_visits, self._folder / "access.log", name, since)

    async def users(self, service: str, environment: str, salt: str, goal: Goal) -> Users:
        return await self._folds.users(config.route_name(service, environment), salt, goal)

    async def led(self, service: str, environment: str) -> tuple[Led, ...]:
        """What was led to the dark releases of a service: Envoy counts it for each route."""
        plan = self._state.plans.get(config.route_name(service, environment))
        if plan is None:
            return ()
        ways = [(backend.release, "") for backend in plan.backends]
        ways += [(chain.release, chain.caller) for chain in chains(self._state.plans.values(), plan)]
        names = {way: led(*way) for way in ways}
        epoch = self._process.identity
        counted = await self._admin.led(HOST, *names.values())
        return tuple(Led(way[0], epoch, counted.get(name, 0), way[1]) for way, name in names.items())

    # --- looked after by the agent ---------------------------------------------------------------------

    async def tend(self) -> None:
        """Envoy runs whenever somebody has asked for traffic, with the last good files."""
        if not self._stopped and self._state.plans:
            try:  # before Envoy starts: it refuses what shows a certificate that is not there
                self._peers.renew(self._state.plans.values())
            finally:
                self._process.ensure()
            await self._folds.follow({name: plan.sticky for name, plan in self._state.plans.items()})
            with contextlib.suppress(Unavailable):
                await self._process.rotate()

    async def stop(self) -> None:
        self._stopped = True
        async with self._lock:
            await self._process.stop()


def _same_shape(known: TrafficPlan, plan: TrafficPlan) -> bool:
    """Whether both need the same clusters and listeners."""
    return known.export == plan.export and endpoints.shape(known.backends) == endpoints.shape(plan.backends)


def _union(old: TrafficPlan | None, new: TrafficPlan) -> TrafficPlan:
    """What users have so far, with every backend of both; the new one's version of it where both have it."""
    if old is None:
        return TrafficPlan(new.service, new.environment, new.backends, ())
    names = {backend.release for backend in new.backends}
    kept = (backend for backend in old.backends if backend.release not in names)
    return replace(old, backends=(*kept, *new.backends))
