"""Asks a running Envoy what it does, over its admin socket (0600).

Called by the driver. Must not change anything but through the few verbs here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from penstock.adapters.envoy.admission import breakers_of
from penstock.adapters.envoy.tally import COUNTED
from penstock.core.admission import NO_BREAKERS, Breakers
from penstock.errors import Unavailable

#: More names than this are not put into an expression.
FEW = 8


@dataclass(frozen=True)
class Hosts:
    """Where a cluster is: addresses by which there is, and what is in flight at each. *ready* is how many of
    those that do not drain answer its health checks; *breakers* are its limits."""

    ready: int
    addresses: tuple[str, ...]
    draining: tuple[str, ...]
    active: Mapping[str, int]
    breakers: Breakers = NO_BREAKERS


class Admin:
    def __init__(self, socket: Path) -> None:
        self._socket = socket
        # One client, a connection for each request: Envoy may be another process by the next one.
        transport = httpx.AsyncHTTPTransport(
            uds=str(socket), verify=False, limits=httpx.Limits(max_keepalive_connections=0)
        )
        self._client = httpx.AsyncClient(transport=transport, base_url="http://envoy", timeout=5.0)

    async def get(self, path: str) -> httpx.Response:
        return await self._ask("GET", path)

    async def post(self, path: str) -> httpx.Response:
        return await self._ask("POST", path)

    async def _ask(self, method: str, path: str, *, absent: bool = False) -> httpx.Response:
        try:
            response = await self._client.request(method, path)
            if not (absent and response.status_code == 404):
                response.raise_for_status()
        except httpx.HTTPError as error:
            raise Unavailable(
                f"Envoy does not answer: {error or type(error).__name__}",
                where=str(self._socket),
                next_move="its last words are in envoy.log beside this socket",
            ) from error
        return response

    async def answers(self) -> bool:
        try:
            return (await self.get("/ready")).status_code == 200
        except Unavailable:
            return False

    async def dump(self, resource: str, *names: str) -> list[dict[str, Any]]:
        """Active resources of a kind, from the configuration dump: those with one of *names*, or all."""
        only = f"&name_regex={_any_of(names)}" if names else ""
        response = await self._ask("GET", f"/config_dump?resource={resource}{only}", absent=True)
        if response.status_code == 404:  # before the first listener there is no such section
            return []
        return list(response.json().get("configs", []))

    async def routes(self, name: str) -> tuple[str, dict[str, Any]] | None:
        """(version, active routes) of one service; None if Envoy has none."""
        for item in await self.dump("dynamic_route_configs", name):
            found = item.get("route_config", {})
            if found.get("name") == name:
                return str(item.get("version_info", "")), found
        return None

    async def births(self, *names: str) -> dict[str, str]:
        """When each of these clusters was added or last changed, by name; those that there are."""
        active = await self.dump("dynamic_active_clusters", *_few(names)) if names else ()
        found = {str(item["cluster"]["name"]): str(item["last_updated"]) for item in active}
        return {name: found[name] for name in names if name in found}

    async def texts(self, pattern: str) -> dict[str, str]:
        """Text readouts (the versions of configuration) whose name matches, by name."""
        response = await self.get(f"/stats?format=json&type=TextReadouts&filter={quote(pattern)}")
        return {stat["name"]: str(stat["value"]) for stat in response.json()["stats"] if "name" in stat}

    async def counters(self, pattern: str) -> dict[str, int]:
        """Counters whose name matches, by name."""
        response = await self.get(f"/stats?format=json&type=Counters&filter={quote(pattern)}")
        return {stat["name"]: int(stat["value"]) for stat in response.json()["stats"] if "value" in stat}

    async def led(self, host: str, *prefixes: str) -> dict[str, int]:
        """How many requests took routes that are counted under these names; those that are."""
        names = "|".join(re.escape(prefix) for prefix in prefixes)
        head, tail = f"vhost.{host}.route.", ".upstream_rq_total"
        found = await self.counters(rf"^{re.escape(head)}({names}){re.escape(tail)}$") if names else {}
        return {name.removeprefix(head).removesuffix(tail): count for name, count in found.items()}

    async def in_flight(self) -> int:
        """How many requests of users and callers are not answered yet."""
        return await self._gauges(r"^http\.(in|out)\..*\.downstream_rq_active$")

    async def waiting(self, *clusters: str) -> int:
        """How many requests of users and callers these clusters have not answered yet."""
        names = "|".join(re.escape(cluster) for cluster in clusters)
        return await self._gauges(rf"^cluster\.({names})\.upstream_rq_active$")

    async def _gauges(self, pattern: str) -> int:
        response = await self.get(f"/stats?format=json&type=Gauges&filter={quote(pattern)}")
        return sum(int(stat["value"]) for stat in response.json()["stats"] if "value" in stat)

    async def health(self, *names: str) -> Mapping[str, Hosts]:
        """How each of these clusters is, by name; those that there are."""
        if not names:
            return {}
        response = await self.get(f"/clusters?format=json&filter={_any_of(names)}")
        found = response.json().get("cluster_statuses", [])
        return {str(cluster["name"]): _hosts(cluster) for cluster in found}

    async def users(self, *clusters: str) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
        """What users saw of these clusters: counters by name, and by cluster the cumulative counts of
        requests by upper bound (ms), none before the first."""
        counted = "|".join(map(re.escape, COUNTED))
        counters = await self.counters(_of(clusters, counted))
        # Asked second: histograms are up to date only once somebody has asked for statistics.
        pattern = quote(_of(clusters, r"external\.upstream_rq_time"))
        path = f"/stats?format=json&histogram_buckets=cumulative&type=Histograms&filter={pattern}"
        found = [h for stat in (await self.get(path)).json()["stats"] for h in stat.get("histograms", [])]
        return counters, {_cluster_of(histogram["name"]): _buckets(histogram) for histogram in found}


def _few(names: Sequence[str]) -> Sequence[str]:
    """Names to ask for, or none: Envoy refuses a long expression, and then is asked for all."""
    return names if len(names) <= FEW else ()


def _any_of(names: Sequence[str]) -> str:
    """For a query: exactly one of these. Envoy then looks at nothing else, however much there is."""
    return quote(f"^({'|'.join(re.escape(name) for name in names)})$")


def _of(clusters: Sequence[str], what: str) -> str:
    names = "|".join(re.escape(cluster) for cluster in _few(clusters)) or "[^.]+"
    return rf"^cluster\.({names})\.({what})$"


def _cluster_of(stat: str) -> str:
    return stat.removeprefix("cluster.").removesuffix(".external.upstream_rq_time")


def _hosts(cluster: Mapping[str, Any]) -> Hosts:
    statuses: Sequence[Mapping[str, Any]] = cluster.get("host_statuses", [])
    draining = [host for host in statuses if _eds(host) == "DRAINING"]
    there = [host for host in statuses if _eds(host) != "DRAINING"]
    return Hosts(
        ready=sum(1 for host in there if _healthy(host.get("health_status", {}))),
        addresses=tuple(_address(host) for host in there),
        draining=tuple(_address(host) for host in draining),
        active={_address(host): _active(host) for host in statuses},
        breakers=breakers_of(cluster.get("circuit_breakers", {})),
    )


def _eds(host: Mapping[str, Any]) -> str:
    return str(host.get("health_status", {}).get("eds_health_status", "HEALTHY"))


def _active(host: Mapping[str, Any]) -> int:
    counted = (stat for stat in host.get("stats", []) if stat.get("name") == "rq_active")
    return sum(int(stat.get("value", 0)) for stat in counted)


def _healthy(status: Mapping[str, Any]) -> bool:
    return status.get("eds_health_status", "HEALTHY") == "HEALTHY" and not status.get(
        "failed_active_health_check", False
    )


def _address(host: Mapping[str, Any]) -> str:
    found = host.get("address", {})
    if "pipe" in found:
        return f"unix:{found['pipe']['path']}"
    inner = found.get("socket_address", {})
    return f"{inner.get('address')}:{inner.get('port_value')}"


def _buckets(histogram: Mapping[str, Any]) -> dict[str, int]:
    return {f"{bucket['upper_bound']:g}": int(bucket["cumulative"]) for bucket in histogram["buckets"]}
