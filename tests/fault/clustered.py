"""The rig whose releases run in a cluster: the same deliveries, other victims, and other checks afterwards.

Used by `matrix`. *api* is the connection to the cluster, cut for everybody; *pods* are all of them, ended
without notice. What an API may say is no victim of a kill, but stands among them: *busy*, *quota*, *meddler*
(a conflict) and *history* (a watch's 410).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from penstock.adapters._kubernetes.previews import service_of
from penstock.adapters._meshes.backends import OF_SERVICE
from penstock.adapters.gateway_api.rendering import NOBODY
from penstock.adapters.kubernetes.record import RELEASE
from penstock.testing.kubernetes.kinds import Object
from tests.e2e.machine import SERVICE
from tests.fakes.postgres import PostgresServer
from tests.fakes.town import GATEWAY_API, ISTIO
from tests.fakes.web import free_port
from tests.fault.checks import View, predecessor, traffic_wrong
from tests.fault.listening import Reached
from tests.fault.rig import NODE, Configuration, Rig
from tests.fault.town import SAID, Town

#: What a release is made of, each of its name.
MADE = ("deployments.apps", "services", "configmaps", "poddisruptionbudgets.policy")
#: What the cluster makes of it, one for each release.
FOLLOWS = ("replicasets.apps", "endpointslices.discovery.k8s.io", "pods")
#: Of which there is another one, for previews of the release.
TWICE = ("services", "endpointslices.discovery.k8s.io")
#: What the whole service has, by kind.
LASTING = {
    "services": (NOBODY,),
    "serviceaccounts": ("shop",),
    "gateways.gateway.networking.k8s.io": ("public",),
    "httproutes.gateway.networking.k8s.io": ("shop.production",),
}
#: And where Istio leads users.
IN_A_MESH = {"serviceaccounts": ("shop",), "virtualservices.networking.istio.io": ("shop.production",)}
#: Pods have addresses of their own.
SERVE = SERVICE.replace('"127.0.0.1"', 'os.environ["HOST"]')


class Clustered(Rig):
    def __init__(self, configuration: Configuration, postgres: PostgresServer | None) -> None:
        super().__init__(configuration, postgres)
        router = ISTIO if configuration.target == ISTIO else GATEWAY_API
        self.town = Town(self.folder / "town", self._listener.come_by, router)

    def open(self) -> None:
        self.town.open()
        super().open()

    def close(self, *, keep: bool = False) -> None:
        self.town.come_back()
        super().close(keep=keep)
        self.town.close()

    @property
    def _options(self) -> list[str]:
        return ["--port", str(free_port()), "--cluster", str(self.town.file)]

    @property
    def _locks(self) -> dict[tuple[str, ...], Path]:
        return {command: lock for command, lock in super()._locks.items() if command != NODE}

    def _kill(self, victim: str, reached: Reached) -> None:
        if victim == "api":
            self.town.cut_off()
        elif victim == "pods":
            self.town.end_pods()
        elif victim in SAID:
            self.town.answer(SAID[victim])
        elif victim == "meddler":
            self.town.meddle(reached.name)
        elif victim == "history":
            self.town.forget()
        else:
            super()._kill(victim, reached)

    def _commit(self) -> str:
        self.files["serve__py"] = SERVE.replace('"v1"', f'"v{self.versions + 1}"')
        return super()._commit()

    def _await_end(self, delivery: str) -> View:
        view = super()._await_end(delivery)
        self.town.come_back()
        return view

    # --- what must hold -------------------------------------------------------------------------------

    def _world_wrong(self, view: View) -> list[str]:
        releases = {str(view["release"]), predecessor(view)}
        wrong = traffic_wrong(self.machine, view, releases)
        lasting = IN_A_MESH if self.configuration.target == ISTIO else LASTING
        return wrong + cluster_wrong(self.town.objects(), releases, lasting) + self._users_wrong()

    def _users_wrong(self) -> list[str]:
        """What somebody sees who asks at the gateway now."""
        wanted = f"v{self.versions}"
        try:
            said = httpx.get(self.town.proxy.url, headers={"host": "shop.example.org"}, trust_env=False)
            seen = said.json()["version"] if said.status_code == 200 else said.status_code
        except httpx.HTTPError as error:
            seen = repr(error)
        return [] if seen == wanted else [f"users see {seen}, not {wanted}"]

    def _settled(self, view: View) -> list[str]:
        return super()._settled(view) + self.town.fences_fell()


def cluster_wrong(
    objects: Sequence[tuple[str, Object]],
    releases: set[str],
    lasting: Mapping[str, tuple[str, ...]] = LASTING,
) -> list[str]:
    """What is there and should not be, and what is not there."""
    named = {kind: Counter[str]() for kind in (*MADE, *FOLLOWS, *lasting)}
    for kind, found in objects:
        if kind != "events":
            named.setdefault(kind, Counter())[_whose(kind, found)] += 1
    wrong = []
    previews = [service_of(release) for release in releases]
    for kind, names in named.items():
        wanted = Counter([*(releases if kind in (*MADE, *FOLLOWS) else ()), *lasting.get(kind, ())])
        wanted.update(previews if kind in TWICE else ())
        if names != wanted:
            wrong.append(f"{kind}: {dict(names)}, not {dict(wanted)}")
    return wrong


def _whose(kind: str, found: Object) -> str:
    """Its own name, or that of what the cluster made it for."""
    name, labels = str(found["metadata"]["name"]), found["metadata"].get("labels", {})
    return name if kind in MADE else str(labels.get(OF_SERVICE) or labels.get(RELEASE) or name)
