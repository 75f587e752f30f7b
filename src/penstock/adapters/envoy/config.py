"""What Envoy reads, rendered from plans. Pure: values in, JSON-able mappings out.

Names: a service's routes are ``<service>.<environment>``; a release's clusters are its id (users) and
its id with ``+preview`` (dark traffic), so that the counters of the first count users alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.adapters.envoy import admission, tickets
from penstock.adapters.envoy.admission import CALLER_HEADER, CALLING_HEADER, INTERNAL_HEADERS
from penstock.core.traffic import HTTP2, MIRROR_HEADER, Backend

Json = dict[str, Any]
HTTP = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
GRPC_STATS = "type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig"
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
FILE_LOG = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
ASSIGNMENT = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
MUTATION = "type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
REQUEST_ID = "type.googleapis.com/envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig"
PROTOCOL = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
PROTOCOL_OPTIONS = f"type.googleapis.com/{PROTOCOL}"
#: Envoy reads no certificate without a name of its own.
NODE = {"id": "penstock", "cluster": "penstock"}
PREVIEW = "+preview"

#: Upper bounds of the latency histogram, milliseconds, of the two digits that Envoy keeps. From 2 ms to 15 s
#: each is at most half as much again as the one before: no quantile can be told more exactly.
BUCKETS = [1, 2, 3, 4, 5, 6, 7.5, 10, 12, 15, 20, 25, 30, 40, 50, 60, 75, 100, 120, 150, 200, 250, 300, 400]
BUCKETS += [500, 600, 750, 1000, 1500, 2000, 3000, 4000, 5000, 7500, 10000, 15000, 30000, 60000, 3600000]

#: An instance that five times on end cannot be reached, or gives 502, 503 or 504, is passed over for five
#: seconds and longer each time; never more than half of them. A 500 is an answer, which the judge counts.
OUTLIER = {
    "interval": "1s",
    "base_ejection_time": "5s",
    "max_ejection_percent": 50,
    "consecutive_gateway_failure": 5,
    "enforcing_consecutive_gateway_failure": 100,
    "enforcing_consecutive_5xx": 0,
    "enforcing_success_rate": 0,
}


def route_name(service: str, environment: str) -> str:
    return f"{service}.{environment}"


def bootstrap(folder: Path) -> Json:
    """The static part. Everything else comes from files that are replaced by renaming."""
    return {
        "node": NODE,
        "admin": {"address": {"pipe": {"path": str(folder / "admin.sock"), "mode": 0o600}}},
        "stats_flush_on_admin": True,
        "stats_config": {
            "histogram_bucket_settings": [{"match": {"safe_regex": {"regex": ".*"}}, "buckets": BUCKETS}]
        },
        "dynamic_resources": {
            "cds_config": file_source(folder / "cds.json"),
            "lds_config": file_source(folder / "lds.json"),
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


def clusters(backends: Iterable[Backend], folder: Path | None = None) -> list[Json]:
    """Both clusters of every backend. Where elastic ones are is read from files in *folder*, if given."""
    found = []
    for backend in backends:
        file = folder / endpoints_file(backend.release) if folder and backend.elastic else None
        found.append(_cluster(backend.release, backend, file, checked=True))
        found.append(_cluster(backend.release + PREVIEW, backend, file, checked=False))
    return found


def endpoints_file(release: str) -> str:
    return f"eds-{release}.json"


def assignment(name: str, backend: Backend) -> Json:
    """Where a backend is; what drains is still known, and gets nothing new."""
    there = [{"endpoint": {"address": address(item)}} for item in backend.addresses]
    leaving = [
        {"endpoint": {"address": address(item)}, "health_status": "DRAINING"} for item in backend.draining
    ]
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": there + leaving}]}


def _cluster(name: str, backend: Backend, file: Path | None, *, checked: bool) -> Json:
    cluster: Json = {
        "@type": CLUSTER,
        "name": name,
        "connect_timeout": "2s",
        "circuit_breakers": admission.thresholds(backend.breakers),
    }
    if file is None:
        cluster |= {"type": "STATIC", "load_assignment": assignment(name, backend)}
    else:
        # A changed cluster would count from nothing; one that is told where it is goes on. What was taken
        # away goes at once, and not only when it stops answering.
        found = {"eds_config": file_source(file), "service_name": backend.release}
        cluster |= {"type": "EDS", "eds_cluster_config": found, "ignore_health_on_host_removal": True}
    if backend.elastic or len(backend.addresses) > 1:  # of one there is nobody else to ask
        cluster["outlier_detection"] = OUTLIER
    if backend.protocol in HTTP2:
        options = {"@type": PROTOCOL_OPTIONS, "explicit_http_config": {"http2_protocol_options": {}}}
        cluster["typed_extension_protocol_options"] = {PROTOCOL: options}
    if checked:
        codec = {"codec_client_type": "HTTP2"} if backend.protocol in HTTP2 else {}
        cluster["health_checks"] = [_health_check(backend.health_path, codec)]
    return cluster


def _health_check(path: str, codec: Json) -> Json:
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
    return check | {"http_health_check": {"path": path, "expected_statuses": statuses, **codec}}


@dataclass(frozen=True)
class Listening:
    """One listener at *where* (``unix:/path`` or ``host:port``) that serves the routes *named* in *file*.

    It is the ingress of a service, or how *caller*, a release of the service *calling*, reaches it; *baggage*
    is added to what passes, if any.
    """

    name: str
    where: str
    named: str
    file: Path
    caller: str = ""
    baggage: str = ""
    calling: str = ""


def manager(of: Listening, log: Path) -> Json:
    """What a listener does with requests; those who serve others than users change it."""
    return {
        "@type": HTTP,
        "stat_prefix": of.name,
        "rds": {"route_config_name": of.named, "config_source": file_source(of.file)},
        "http_filters": [
            admission.limiter(),
            tickets.noting(),
            # Of every user's call, the status that it ended with; copies for a mirror do not come by here.
            _filter("grpc_stats", {"@type": GRPC_STATS, "stats_for_all_methods": False}),
            # Failed gRPC calls are not among the failed requests of all protocols (`tally`).
            _filter("router", {"@type": ROUTER, "suppress_grpc_request_failure_code_stats": True}),
        ],
        "access_log": [_access_log(log, of)],
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "local_reply_config": {"mappers": _own_replies()},
        "early_header_mutation_extensions": [_on_arrival(of)],
        # The request's id is a user's first ticket (`routes`): tracing must not write into it.
        "request_id_extension": {"typed_config": {"@type": REQUEST_ID, "pack_trace_reason": False}},
        "stream_idle_timeout": "300s",
        "drain_timeout": "5s",
    }


def _filter(name: str, config: Json) -> Json:
    return {"name": f"envoy.filters.http.{name}", "typed_config": config}


def network(manager: Json) -> Json:
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}


def listener(of: Listening, chains: Sequence[Json]) -> Json:
    listening = address(of.where)
    if "pipe" in listening:
        listening["pipe"]["mode"] = 0o600
    return {
        "@type": LISTENER,
        "name": of.name,
        "address": listening,
        # Or a second Envoy would share the port, and take half of the users, without a word.
        "enable_reuse_port": False,
        "filter_chains": [*chains],
        "per_connection_buffer_limit_bytes": 1 << 20,
    }


def _on_arrival(of: Listening) -> Json:
    """What a request says before its route is chosen: users cannot claim to be a release, or a copy."""
    if of.caller:
        said = ((CALLER_HEADER, of.caller), (CALLING_HEADER, of.calling))
        mutations = [_told(name, value) for name, value in said]
    else:
        mutations = [{"remove": name} for name in (*INTERNAL_HEADERS, MIRROR_HEADER)]
    if of.baggage:
        mutations.append(_set("baggage", of.baggage, "APPEND_IF_EXISTS_OR_ADD"))
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {"@type": MUTATION, "mutations": mutations},
    }


def _told(name: str, value: str) -> Json:
    """What the listener knows, and nobody else may say."""
    return _set(name, value, "OVERWRITE_IF_EXISTS_OR_ADD") if value else {"remove": name}


def _set(name: str, value: str, how: str) -> Json:
    return {"append": {"header": {"key": name, "value": value}, "append_action": how}}


def flagged(status: int = 400, op: str = "GE", flags: str = "%RESPONSE_FLAGS%") -> Json:
    """Envoy's own replies say why they are its own."""
    header = {"key": "x-penstock-flags", "value": flags}
    comparison = {"op": op, "value": {"default_value": status, "runtime_key": "penstock.flagged"}}
    return {
        "filter": {"status_code_filter": {"comparison": comparison}},
        "headers_to_add": [{"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
    }


def _own_replies() -> list[Json]:
    """The first that fits is taken. A rate is known by its status: Envoy flags it once it is answered."""
    limited = flagged(429, "EQ", admission.RATE) | admission.said(admission.RATE)
    full = flagged() | admission.only(admission.FULL) | admission.said(admission.FULL)
    return [limited, full, flagged()]


def _access_log(path: Path, of: Listening) -> Json:
    fields = {
        "time": "%START_TIME%",
        "service": of.named,
        "release": "%UPSTREAM_CLUSTER%",
        # Of what is refused: of everything else it is taken off on the way.
        "caller": f"%REQ({CALLING_HEADER})%",
        "method": "%REQ(:METHOD)%",
        # Without the query: it may hold what nobody else should read, a preview token for one.
        "path": "%PATH(NQ)%",
        "status": "%RESPONSE_CODE%",
        "flags": "%RESPONSE_FLAGS%",
        "ms": "%DURATION%",
        "id": "%REQ(X-REQUEST-ID)%",
    }
    if not of.caller:  # another service is nobody's user
        fields["ticket"] = tickets.TICKET
    return logged(path, fields)


def logged(path: Path, fields: Json) -> Json:
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


def file_source(path: Path) -> Json:
    return {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"}
