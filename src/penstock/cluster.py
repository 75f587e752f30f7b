"""A cluster that releases run in, as an installation knows it: what ``cluster.yaml`` says.

Kept in the settings, and handed to the adapters of a cluster when they are opened. `clusterfile` reads and
checks it. Values, nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Registry:
    """Images are put at *push* (a URL with the prefix), and pulled from *pull* (the prefix as nodes have it).
    *auth* is a Docker ``config.json``; "" is none."""

    push: str
    pull: str = ""
    auth: str = ""


@dataclass(frozen=True)
class Gateway:
    """What users come through: its *name* and *namespace*, a listener of it (*section*, "": all), and the
    *host* name of each service there."""

    name: str
    host: str
    namespace: str = ""
    section: str = ""


@dataclass(frozen=True)
class Counts:
    """The Prometheus that counts users, and the file with the token for it. *proxies* says by labels, as
    PromQL writes them, which proxies users come through ("": all that lead to releases)."""

    prometheus: str
    token_file: str = ""
    proxies: str = ""


@dataclass(frozen=True)
class Steps:
    """The project's own code runs in the cluster as Jobs of *image* (by digest) in *namespace* ("": that of
    the releases). Each may use so much; 0 is no limit."""

    image: str
    namespace: str = ""
    memory_mb: int = 0
    cpus: float = 0.0


@dataclass(frozen=True)
class Place:
    """What one environment has of its own; the rest is as the file says for all. *steps* are only those that
    ask its releases: what is built is built once for all of them."""

    kubeconfig: str = ""
    context: str = ""
    namespace: str = ""
    gateway: Gateway | None = None
    reach: str = ""
    neighbour: str = ""
    metrics: Counts | None = None
    steps: Steps | None = None


@dataclass(frozen=True)
class Cluster:
    """All of the file. Paths are absolute once it is read; *router* is an entry-point name. *bases* are
    images with an interpreter, by digest, for each ABI that artifacts are built for; without any, artifacts
    are run as they are. Without *steps*, builds and checks run beside the worker. *environments* have places
    of their own; every other environment is here."""

    images: Registry
    gateway: Gateway
    metrics: Counts
    kubeconfig: str = ""
    context: str = ""
    namespace: str = ""
    pull_secrets: tuple[str, ...] = field(default=())
    bases: Mapping[str, str] = field(default_factory=dict)
    router: str = "gateway-api"
    reach: str = ""
    neighbour: str = ""
    steps: Steps | None = None
    environments: Mapping[str, Place] = field(default_factory=dict)

    def of(self, environment: str) -> Cluster:
        """Where an environment's releases are. A context is one of its own kubeconfig, and not inherited by
        another file."""
        place = self.environments.get(environment, Place())
        return replace(
            self,
            kubeconfig=place.kubeconfig or self.kubeconfig,
            context=place.context or ("" if place.kubeconfig else self.context),
            namespace=place.namespace or self.namespace,
            gateway=place.gateway or self.gateway,
            reach=place.reach or self.reach,
            neighbour=place.neighbour or self.neighbour,
            metrics=place.metrics or self.metrics,
            environments={},
        )

    @property
    def name(self) -> str:
        """For people: where releases are."""
        named = f"context {self.context}" if self.context else self.kubeconfig or "as the environment says"
        usual = f"namespace {self.namespace}, {named}" if self.namespace else named
        return "; ".join((usual, *(f"{name}: {self.of(name).name}" for name in sorted(self.environments))))
