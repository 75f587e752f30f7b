"""Where releases run and users are led: this machine's node agent, or a cluster. One installation has one.

Called by `control`, and by ``up``, which checks a cluster before it is used. Adapters are found by name. What
a cluster must be looked after for, every process with a worker does: its driver says how they keep out of one
another's way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.bootstrap.boundaries import around
from penstock.bootstrap.home import Home
from penstock.bootstrap.plugins import find, names, open_prometheus
from penstock.cluster import Cluster
from penstock.errors import Invalid, PenstockError
from penstock.node.client import NodeClient, NodeMeter, NodeMetrics, NodePlatform, NodeRouter
from penstock.ports import Meter, Metrics, Platform, Router, Sandbox

log = logging.getLogger(__name__)

#: Between two looks at what a cluster has too much of.
LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Target:
    """*sandbox* runs builds and checks there; None: they run beside the worker. *tend* does what has to be
    done now and then, unless somebody else does; *letting_go* is done at the end. What runs goes on."""

    router: Router
    metrics: Metrics
    platform: Platform
    meters: Mapping[str, Meter]
    sandbox: Sandbox | None = None
    tend: Callable[[], Awaitable[None]] | None = None
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
        """Tend until cancelled. A trouble is told once, until there is another or none."""
        told = ""
        while self.tend is not None:
            try:
                await self.tend()
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
    """The drivers of a cluster; nothing is asked of it yet."""
    platform, router, metrics = _drivers(home, cluster)
    sandbox = _steps(cluster)
    closing = tuple(driver.close for driver in (platform, router, metrics, sandbox) if driver)
    ports = around("Router", router), metrics, around("Platform", platform)
    return Target(*ports, _meters(home), sandbox, platform.tend, closing)


async def check_cluster(home: Home, cluster: Cluster) -> None:
    """Raise what keeps releases or steps from running, or users from being led, in this cluster."""
    platform, router, metrics = _drivers(home, cluster)
    drivers = [driver for driver in (platform, router, _steps(cluster)) if driver]
    try:
        for driver in drivers:
            await driver.check()
    finally:
        for driver in (*drivers, metrics):
            await driver.close()


def _drivers(home: Home, cluster: Cluster) -> tuple[Any, Any, Any]:
    """Platform, router and metrics. Any, as `find` gives them."""
    kind, at, counts = find("router", cluster.router), cluster.images, cluster.metrics
    if not hasattr(kind, "of"):
        known = ", ".join(name for name in names("router") if hasattr(find("router", name), "of"))
        raise Invalid(f"{cluster.router} leads nobody in a cluster; there are: {known}", where="router")
    images = find("images", "registry")(home.artifacts, at.push, at.pull, _file(at.auth))
    artifacts = find("artifacts", "layout")(home.artifacts)
    platform = find("platform", "kubernetes").of(cluster, around("Images", images), artifacts)
    router = kind.of(cluster)
    count = find("metrics", "istio")
    metrics = count(
        counts.prometheus, router, platform.namespace, token=_file(counts.token_file), proxies=counts.proxies
    )
    return platform, router, metrics


def _steps(cluster: Cluster) -> Any:
    """What runs builds and checks there; None if that is not wanted."""
    return find("sandbox", "kubernetes").of(cluster) if cluster.steps else None


def _file(name: str) -> Path | None:
    return Path(name) if name else None


def _meters(home: Home) -> dict[str, Meter]:
    """By name, what is installed and counts metrics of services' own."""
    found: dict[str, Meter] = {n: find("meter", n)() for n in names("meter") if n != "prometheus"}
    if home.settings.prometheus is not None:
        found["prometheus"] = open_prometheus(home.settings.prometheus)
    return found
