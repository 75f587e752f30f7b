"""What Envoy reads, rendered from plans. Pure: values in, JSON-able mappings out.

Names: a service's routes are ``<service>.<environment>``; a release's clusters are its id (users) and
its id with ``+preview`` (dark traffic), so that the counters of the first count users alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from penstock.core.traffic import (
    PREVIEW_HEADER,
    TOKEN_HEADER,
    Backend,
    TrafficPlan,
)

Json = dict[str, Any]
HTTP = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
FILE_LOG = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
ROUTES = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
PREVIOUS_HOSTS = "envoy.retry_host_predicates.previous_hosts"
PREVIOUS_HOSTS_TYPE = (
    "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
)
PREVIEW = "+preview"

#: Upper bounds of the latency histogram, milliseconds.
BUCKETS = [1, 2, 3, 5, 7.5, 10, 15, 20, 30, 40, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 2000, 5000, 10000]


def route_name(service: str, environment: str) -> str:
    return f"{service}.{environment}"


def bootstrap(folder: Path) -> Json:
    """The static part. Everything else comes from files that are replaced by renaming."""
    return {
        "node": {"id": "penstock", "cluster": "penstock"},
        "admin": {"address": {"pipe": {"path": str(folder / "admin.sock"), "mode": 0o600}}},
        "stats_flush_on_admin": True,
        "stats_config": {
            "histogram_bucket_settings": [{"match": {"safe_regex": {"regex": ".*"}}, "buckets": BUCKETS}]
        },
        "dynamic_resources": {
            "cds_config": _file(folder / "cds.json"),
            "lds_config": _file(folder / "lds.json"),
        },
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.resource_monitors."
                        "downstream_connections.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": 20000,
                    },
                }
            ]
        },
    }


def document(version: str, resources: Iterable[Json]) -> str:
    """A discovery response, as text."""
    return json.dumps({"version_info": version, "resources": list(resources)})


def clusters(backends: Iterable[Backend]) -> list[Json]:
    """Both clusters of every backend."""
    found = []
    for backend in backends:
        found.append(_cluster(backend.release, backend, checked=True))
        found.append(_cluster(backend.release + PREVIEW, backend, checked=False))
    return found


def _cluster(name: str, backend: Backend, *, checked: bool) -> Json:
    endpoints = [{"endpoint": {"address": address(item)}} for item in backend.addresses]
    limit = {"max_connections": 4096, "max_pending_requests": 4096, "max_requests": 8192, "max_retries": 1024}
    cluster: Json = {
        "@type": CLUSTER,
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        "circuit_breakers": {"thresholds": [limit]},
    }
    if checked:
        cluster["health_checks"] = [_health_check(backend.health_path)]
    return cluster


def _health_check(path: str) -> Json:
    check: Json = {
        "timeout": "2s",
        "interval": "1s",
        "no_traffic_interval": "1s",
        "unhealthy_interval": "0.2s",
        "unhealthy_threshold": 5,
        "healthy_threshold": 1,
    }
    if not path:
        return check | {"tcp_health_check": {}}
    statuses = [{"start": 100, "end": 500}]
    return check | {"http_health_check": {"path": path, "expected_statuses": statuses}}


def routes(plan: TrafficPlan, token: str) -> Json:
    """The routes of one service, shared by its ingress and by every caller's egress listener."""
    previews = [_preview(backend.release, token) for backend in plan.backends]
    return {
        "@type": ROUTES,
        "name": route_name(plan.service, plan.environment),
        "validate_clusters": True,
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [*previews, _users(plan)]}],
    }


def no_routes(name: str) -> Json:
    """The routes of a service that has no plan yet."""
    host = {"name": "all", "domains": ["*"], "routes": [_nobody()]}
    return {"@type": ROUTES, "name": name, "validate_clusters": True, "virtual_hosts": [host]}


def _users(plan: TrafficPlan) -> Json:
    if not plan.weights:
        return _nobody()
    weighted = [
        {"name": weight.release, "weight": weight.share, **_told(weight.release)} for weight in plan.weights
    ]
    action = _action() | {"weighted_clusters": {"clusters": weighted}}
    return {"match": {"prefix": "/"}, "route": action, "request_headers_to_remove": [TOKEN_HEADER]}


def _preview(release: str, token: str) -> Json:
    headers = [
        {"name": PREVIEW_HEADER, "string_match": {"exact": release}},
        {"name": TOKEN_HEADER, "string_match": {"exact": token}},
    ]
    return {
        "match": {"prefix": "/", "headers": headers},
        "route": _action() | {"cluster": release + PREVIEW},
        "request_headers_to_remove": [TOKEN_HEADER],
        **_told(release),
    }


def _nobody() -> Json:
    text = {"inline_string": "no release of this service takes traffic\n"}
    return {"match": {"prefix": "/"}, "direct_response": {"status": 503, "body": text}}


def _action() -> Json:
    # Only requests that no instance has seen are sent again: nothing is done twice.
    retry = {
        "retry_on": "connect-failure,refused-stream,reset-before-request",
        "num_retries": 2,
        "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
        # Another instance, if there is one: the one that failed may be gone for good.
        "retry_host_predicate": [{"name": PREVIOUS_HOSTS, "typed_config": {"@type": PREVIOUS_HOSTS_TYPE}}],
        "host_selection_retry_max_attempts": 4,
    }
    return {"timeout": "15s", "retry_policy": retry}


def _told(release: str) -> Json:
    """Every answer says which release gave it."""
    header = {"key": "x-penstock-release", "value": release}
    return {"response_headers_to_add": [{"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]}


def listener(name: str, where: str, routes_file: Path, routes_named: str, log: Path) -> Json:
    """A listener at ``unix:/path`` or ``host:port`` that serves one service's routes."""
    manager: Json = {
        "@type": HTTP,
        "stat_prefix": name,
        "rds": {"route_config_name": routes_named, "config_source": _file(routes_file)},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}],
        "access_log": [_access_log(log, routes_named)],
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "local_reply_config": {"mappers": [_flagged()]},
        "stream_idle_timeout": "300s",
        "drain_timeout": "5s",
    }
    network = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    listening = address(where)
    if "pipe" in listening:
        listening["pipe"]["mode"] = 0o600
    return {
        "@type": LISTENER,
        "name": name,
        "address": listening,
        # Or a second Envoy would share the port, and take half of the users, without a word.
        "enable_reuse_port": False,
        "filter_chains": [{"filters": [network]}],
        "per_connection_buffer_limit_bytes": 1 << 20,
    }


def _flagged() -> Json:
    """Envoy's own replies say why they are its own."""
    header = {"key": "x-penstock-flags", "value": "%RESPONSE_FLAGS%"}
    comparison = {"op": "GE", "value": {"default_value": 400, "runtime_key": "penstock.flagged"}}
    return {
        "filter": {"status_code_filter": {"comparison": comparison}},
        "headers_to_add": [{"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
    }


def _access_log(path: Path, service: str) -> Json:
    fields = {
        "time": "%START_TIME%",
        "service": service,
        "release": "%UPSTREAM_CLUSTER%",
        "method": "%REQ(:METHOD)%",
        "path": "%REQ(:PATH)%",
        "status": "%RESPONSE_CODE%",
        "flags": "%RESPONSE_FLAGS%",
        "ms": "%DURATION%",
        "id": "%REQ(X-REQUEST-ID)%",
    }
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {"@type": FILE_LOG, "path": str(path), "log_format": {"json_format": fields}},
    }


def address(text: str) -> Json:
    """``unix:/path`` or ``host:port`` as Envoy writes it."""
    if text.startswith("unix:"):
        return {"pipe": {"path": text.removeprefix("unix:")}}
    host, _, port = text.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


def address_text(rendered: Mapping[str, Any]) -> str:
    """The inverse of `address`, for what is read back."""
    if "pipe" in rendered:
        return f"unix:{rendered['pipe']['path']}"
    inner = rendered["socket_address"]
    return f"{inner['address']}:{inner['port_value']}"


def _file(path: Path) -> Json:
    return {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"}
