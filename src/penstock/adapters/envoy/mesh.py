"""Calls between machines as Envoy is told of them: TLS clusters to peers, and the listener for peers. Pure.

Called by `peers`. Both ends show certificates: a caller's cluster takes nobody else for the service that it
calls; the listener takes no connection without a certificate of a peer, and a service no request of a caller
that it is not exported to. There is no cluster and no listener here without TLS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from penstock.adapters.envoy import config
from penstock.adapters.envoy.admission import INTERNAL_HEADERS, LIMIT
from penstock.adapters.envoy.config import Json, Listening, route_name
from penstock.adapters.envoy.exported import asking
from penstock.adapters.envoy.routes import action
from penstock.core.mesh import Export, Remote, identity, is_literal, server_name
from penstock.core.traffic import LONGEST, TOKEN_HEADER, Backend, Egress, Handling, TrafficPlan

TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
SPIFFE = f"{TLS}SPIFFECertValidatorConfig"
INSPECTOR = "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
#: No connection outlives what was true when it was made for longer than this. The caller lets go first, so
#: that no request meets a connection that is being closed.
CALLER_SECONDS, LISTENER_SECONDS = 1800, 3600
#: The name in the certificate of whoever calls.
CALLER = "%DOWNSTREAM_PEER_URI_SAN%"
#: What is told of each connection of peers: who was refused learns nothing but that.
CONNECTION = {
    "time": "%START_TIME%",
    "from": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "asked": "%REQUESTED_SERVER_NAME%",
    "caller": CALLER,
    "refused": "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%",
    "details": "%CONNECTION_TERMINATION_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
}
#: A peer that has gone without a word is noticed while requests wait for it.
ALIVE = {"interval": "10s", "timeout": "5s"}


@dataclass(frozen=True)
class Way:
    """How one release calls a service of a peer."""

    plan: TrafficPlan
    backend: Backend
    egress: Egress
    remote: Remote

    @property
    def cluster(self) -> str:
        return f"{self.backend.release}+{self.remote.domain}.{self.egress.callee}"

    @property
    def identity(self) -> str:
        return identity(self.remote.own, self.plan.environment, self.plan.service)


def ways(plans: Iterable[TrafficPlan]) -> Iterator[Way]:
    """Every way that leads to a peer."""
    for plan in plans:
        for backend in plan.backends:
            for egress in backend.egress:
                if egress.remote is not None:
                    yield Way(plan, backend, egress, egress.remote)


def exports(plans: Iterable[TrafficPlan]) -> Iterator[tuple[TrafficPlan, Export]]:
    """Every service that peers may call, as whoever serves it says."""
    return ((plan, plan.export) for plan in plans if plan.export is not None)


def identities(plans: Iterable[TrafficPlan]) -> set[str]:
    """Whose certificates Envoy has to show."""
    known = list(plans)
    found = {way.identity for way in ways(known)}
    return found | {identity(e.own, plan.environment, plan.service) for plan, e in exports(known)}


# --- a caller's end ----------------------------------------------------------------------------------------


def clusters(plans: Iterable[TrafficPlan], secret: Callable[[str], Path]) -> list[Json]:
    return [_cluster(way, secret) for way in ways(plans)]


def _cluster(way: Way, secret: Callable[[str], Path]) -> Json:
    remote, called = way.remote, (way.plan.environment, way.egress.callee)
    host, _, port = remote.address.rpartition(":")
    endpoint = {"endpoint": {"address": config.address(f"{host}:{port}")}}
    http2 = {"allow_connect": True, "connection_keepalive": ALIVE}
    tls = {
        "@type": f"{TLS}UpstreamTlsContext",
        "sni": server_name(remote.domain, *called),
        "max_session_keys": 0,  # each connection proves itself anew
        "common_tls_context": _common(
            _shown(way.identity, secret), {remote.domain: remote.trust}, identity(remote.domain, *called)
        ),
    }
    return {
        "@type": config.CLUSTER,
        "name": way.cluster,
        "type": "STATIC" if is_literal(host) else "STRICT_DNS",
        "dns_lookup_family": "V4_PREFERRED",  # what `listen` can be
        "connect_timeout": "2s",
        "load_assignment": {"cluster_name": way.cluster, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "circuit_breakers": {"thresholds": [LIMIT]},
        "typed_extension_protocol_options": {
            config.PROTOCOL: {
                "@type": config.PROTOCOL_OPTIONS,
                "common_http_protocol_options": {"max_connection_duration": f"{CALLER_SECONDS}s"},
                "explicit_http_config": {"http2_protocol_options": http2},
            }
        },
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
    }


def egress(way: Way, of: Listening, log: Path) -> Json:
    """A caller's own listener for a service of a peer: all of it goes there, whatever it says."""
    # What opens dark releases here is nobody's business there.
    manager = config.manager(replace(of, baggage=""), log)
    del manager["rds"]
    # The peer's own proxy says how long an answer may take.
    patient = Handling(timeout_seconds=LONGEST, idle_seconds=LONGEST)
    route = {
        "match": {"prefix": "/"},
        "route": action(patient) | {"cluster": way.cluster},
        "request_headers_to_remove": [TOKEN_HEADER, *INTERNAL_HEADERS],
    }
    host = {"name": "all", "domains": ["*"], "routes": [route]}
    manager["route_config"] = {"name": of.name, "validate_clusters": False, "virtual_hosts": [host]}
    where = f"{way.egress.callee} at the peer {way.remote.domain} ({way.remote.address})"
    manager["local_reply_config"] = _replies(f"{where}: %RESPONSE_CODE_DETAILS%\n", 400)
    return config.listener(of, [{"filters": [config.network(manager)]}])


# --- the end that is called --------------------------------------------------------------------------------


def listeners(plans: Iterable[TrafficPlan], folder: Path, secret: Callable[[str], Path]) -> list[Json]:
    """One listener for each address at which peers are listened for; a caller names the service by SNI."""
    chains: dict[str, list[Json]] = {}
    for plan, export in exports(plans):
        chains.setdefault(export.listen, []).append(_chain(plan, export, folder, secret))
    return [_listener(where, found, folder) for where, found in chains.items()]


def _listener(where: str, chains: list[Json], folder: Path) -> Json:
    name = f"mesh.{where}"
    inspector = {"name": "envoy.filters.listener.tls_inspector", "typed_config": {"@type": INSPECTOR}}
    return config.listener(Listening(name, where, name, folder), chains) | {
        "listener_filters": [inspector],
        "listener_filters_timeout": "5s",
        "access_log": [config.logged(folder / "access.log", CONNECTION)],
    }


def _chain(plan: TrafficPlan, export: Export, folder: Path, secret: Callable[[str], Path]) -> Json:
    name = route_name(plan.service, plan.environment)
    own = identity(export.own, plan.environment, plan.service)
    bundles = {peer.domain: peer.trust for peer in export.admitted}
    tls = {
        "@type": f"{TLS}DownstreamTlsContext",
        "require_client_certificate": True,
        # A session that is taken up again would not show its certificate, which may have ended.
        "disable_stateless_session_resumption": True,
        "disable_stateful_session_resumption": True,
        "common_tls_context": _common(_shown(own, secret), bundles),
    }
    # A caller, as far as routes can tell, and no user; of whose name there is none here.
    of = Listening(f"in.mesh.{name}", export.listen, name, folder / f"rds-{name}.json", CALLER)
    return {
        "name": name,
        "filter_chain_match": {"server_names": [server_name(export.own, plan.environment, plan.service)]},
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
        "transport_socket_connect_timeout": "5s",
        "filters": [config.network(_manager(plan, of, folder / "access.log"))],
    }


def _manager(plan: TrafficPlan, of: Listening, log: Path) -> Json:
    manager = config.manager(of, log)
    manager["http_filters"].insert(0, asking())
    manager["http2_protocol_options"] = {"allow_connect": True, "connection_keepalive": ALIVE}
    manager["common_http_protocol_options"] = {"max_connection_duration": f"{LISTENER_SECONDS}s"}
    manager["access_log"][0]["typed_config"]["log_format"]["json_format"]["caller"] = CALLER
    refused = f"{plan.service} is not exported to {CALLER} in {plan.environment}\n"
    others = manager["local_reply_config"]["mappers"]
    manager["local_reply_config"] = {"mappers": [*_replies(refused, 403, "EQ")["mappers"], *others]}
    return manager


# --- both --------------------------------------------------------------------------------------------------


def _common(shown: Json, bundles: Mapping[str, str], named: str = "") -> Json:
    """A peer's authority vouches for names of that peer alone."""
    domains = [
        {"name": domain, "trust_bundle": {"inline_string": trust}} for domain, trust in bundles.items()
    ]
    spiffe = {
        "name": "envoy.tls.cert_validator.spiffe",
        "typed_config": {"@type": SPIFFE, "trust_domains": domains},
    }
    validation: dict[str, Any] = {"custom_validator_config": spiffe}
    if named:
        validation["match_typed_subject_alt_names"] = [{"san_type": "URI", "matcher": {"exact": named}}]
    return {
        # Both: a caller's default is 1.2 at most.
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3",
            "tls_maximum_protocol_version": "TLSv1_3",
        },
        "alpn_protocols": ["h2"],
        "tls_certificate_sds_secret_configs": [shown],
        "validation_context": validation,
    }


def _shown(name: str, secret: Callable[[str], Path]) -> Json:
    return {"name": name, "sds_config": config.file_source(secret(name))}


def _replies(text: str, status: int, op: str = "GE") -> Json:
    """Envoy's own replies, with a reason in words."""
    body = {"text_format_source": {"inline_string": text}}
    return {"mappers": [config.flagged(status, op) | {"body_format_override": body}]}
