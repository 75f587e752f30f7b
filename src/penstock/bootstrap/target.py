"""Where releases run and users are led: this machine's node agent, or a cluster. One installation has one, in
which environments may have places of their own.

Called by `control`, and by ``up``, which checks a cluster before it is used. Adapters are found by name. What
a cluster must be looked after for, every process with a worker does: its driver says how they keep out of one
another's way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from penstock.bootstrap.boundaries import around
from penstock.bootstrap.environments import Drivers, Meterings, Platforms, Routers, Sandboxes
from penstock.bootstrap.home import Home
from penstock.bootstrap.plugins import find, names, open_prometheus
from penstock.cluster import Cluster
from penstock.errors import Invalid, PenstockError
from penstock.node.client import NodeClient, NodeMeter, NodeMetrics, NodePlatform, NodeRouter
from penstock.ports import Meter, Metrics, Platform, Router, Sandbox

log = logging.getLogger(__name__)

#: Between two looks at what a cluster has too much of.
LOOK_SECONDS = 1.0
#: Platform, router and metrics; Any, as `find` gives them.
Three = tuple[Any, Any, Any]


@dataclass(frozen=True)
class Target:
    """*sandbox* runs builds and checks there; None: they run beside the worker. Each of *tend* does what has
    to be done now and then, unless somebody else does; *letting_go* is done at the end. What runs goes on."""

    router: Router
    metrics: Metrics
    platform: Platform
    meters: Mapping[str, Meter]
    sandbox: Sandbox | None = None
    tend: tuple[Callable[[], Awaitable[None]], ...] = ()
    letting_go: tuple[Callable[[], Awaitable[None]], ...] = ()

    @property
    def powers(self) -> Mapping[str, object]:
        """The ports, by the names that actions and checks ask for."""
        ports = {"router": self.router, "metrics": self.metrics, "platform": self.platform}
        return {**ports, "meters": self.meters}

    async def close(self) -> None:
        for let_go in self.letting_go:
            await let_go()

    async def look_after(self) -> None:
        """Tend until cancelled; what is away keeps nobody from the rest."""
        await asyncio.gather(*map(_look_after, self.tend))


async def _look_after(tend: Callable[[], Awaitable[None]]) -> None:
    """A trouble is told once, until there is another or none."""
    told = ""
    while True:
        try:
            await tend()
            told = ""
        except PenstockError as error:
            if str(error) != told:
                log.error("the cluster is not looked after: %s", error)
            told = str(error)
        except Exception:  # whatever it is, deliveries go on
            log.exception("the cluster is not looked after")
        await asyncio.sleep(LOOK_SECONDS)


def open_target(home: Home) -> Target:
    """What the settings name."""
    cluster = home.settings.cluster
    return open_node(home) if cluster is None else open_cluster(home, cluster)


def open_node(home: Home) -> Target:
    """The node agent's ports, over its socket."""
    node = NodeClient(home.node_socket)
    own = NodeMeter(node)
    return Target(
        around("Router", NodeRouter(node)),
        NodeMetrics(node),
        around("Platform", NodePlatform(node)),
        {"exposed": own, "logs": own, **_meters(home)},
    )


def open_cluster(home: Home, cluster: Cluster) -> Target:
    """The drivers of a cluster, and of each environment that has a place of its own; nothing is asked of them
    yet."""
    usual = _drivers(home, cluster.of(""))
    named = {name: _drivers(home, cluster.of(name)) for name in cluster.environments}
    every = (usual, *named.values())
    platform, router, metrics = usual
    if named:
        each = [Drivers(usual[i], {name: drivers[i] for name, drivers in named.items()}) for i in range(3)]
        platform, router, metrics = Platforms(each[0]), Routers(each[1]), Meterings(each[2])
    ports = around("Router", router), metrics, around("Platform", platform)
    steps = _steps(cluster)
    sandbox = steps.get("")
    if len(steps) > 1:
        sandbox = Sandboxes(Drivers(steps[""], steps))
    closing = tuple(driver.close for drivers in (*every, steps.values()) for driver in drivers)
    return Target(*ports, _meters(home), sandbox, tuple(drivers[0].tend for drivers in every), closing)


async def check_cluster(home: Home, cluster: Cluster) -> None:
    """Raise what keeps releases or steps from running, or users from being led, in this cluster or in one of
    its environments' own."""
    await _everywhere(home, cluster, lambda drivers: drivers[:2])
    for name, sandbox in _steps(cluster).items():
        await _checked(name, (sandbox,), (sandbox,))


async def check_around(home: Home, cluster: Cluster) -> None:
    """Raise what keeps images from being pushed, or users from being counted: registry and Prometheus."""
    await _images(home, cluster).check()
    await _everywhere(home, cluster, lambda drivers: drivers[2:])


async def _everywhere(home: Home, cluster: Cluster, which: Callable[[Three], tuple[Any, ...]]) -> None:
    for name in ("", *cluster.environments):
        drivers = _drivers(home, cluster.of(name))
        await _checked(name, which(drivers), drivers)


async def _checked(environment: str, asked: tuple[Any, ...], opened: tuple[Any, ...]) -> None:
    """Ask some of what was *opened*, and close all of it; an error names the environment."""
    try:
        for driver in asked:
            await driver.check()
    except PenstockError as error:
        if not environment:
            raise
        what = f"environment {environment}: {error.what}"
        raise type(error)(what, where=error.where, next_move=error.next_move) from error
    finally:
        for driver in opened:
            await driver.close()


def _drivers(home: Home, cluster: Cluster) -> Three:
    kind, counts = find("router", cluster.router), cluster.metrics
    if not hasattr(kind, "of"):
        known = ", ".join(name for name in names("router") if hasattr(find("router", name), "of"))
        raise Invalid(f"{cluster.router} leads nobody in a cluster; there are: {known}", where="router")
    artifacts = find("artifacts", "layout")(home.artifacts)
    platform = find("platform", "kubernetes").of(cluster, around("Images", _images(home, cluster)), artifacts)
    router = kind.of(cluster)
    count = find("metrics", "istio")
    metrics = count(
        counts.prometheus, router, platform.namespace, token=_file(counts.token_file), proxies=counts.proxies
    )
    return platform, router, metrics


def _steps(cluster: Cluster) -> dict[str, Any]:
    """What runs builds and checks in the cluster, as "", and what runs those of an environment in its own;
    none if that is not wanted."""
    if not cluster.steps:
        return {}
    jobs = find("sandbox", "kubernetes")
    own = {name: place.steps for name, place in cluster.environments.items() if place.steps}
    there = {name: jobs.of(replace(cluster.of(name), steps=steps)) for name, steps in own.items()}
    return {"": jobs.of(cluster), **there}


def _images(home: Home, cluster: Cluster) -> Any:
    at = cluster.images
    return find("images", "registry")(home.artifacts, at.push, at.pull, _file(at.auth))


def _file(name: str) -> Path | None:
    return Path(name) if name else None


def _meters(home: Home) -> dict[str, Meter]:
    """By name, what is installed and counts metrics of services' own."""
    found: dict[str, Meter] = {n: find("meter", n)() for n in names("meter") if n != "prometheus"}
    if home.settings.prometheus is not None:
        found["prometheus"] = open_prometheus(home.settings.prometheus)
    return found
