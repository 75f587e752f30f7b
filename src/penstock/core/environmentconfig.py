"""``environments/<name>.yaml``: the values of services, and what they have to do with other machines.

A part of `config`, which reads it; shipping makes environment data of it. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from penstock.core.mesh import Admitted, Export, Mesh, Remote, is_literal
from penstock.core.release import Value
from penstock.errors import Invalid

NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", re.IGNORECASE)


@dataclass(frozen=True)
class PeerConfig:
    """Another installation: *address* (``host:port``) of its listener, and what its ``penstock mesh trust``
    prints."""

    address: str
    trust: str


@dataclass(frozen=True)
class MeshConfig:
    """This installation's name among its peers, where it listens for them (``host:port``), and the peers."""

    domain: str
    listen: str = ""
    peers: Mapping[str, PeerConfig] = field(default_factory=dict)

    def check(self, where: str) -> None:
        """Raise `Invalid` if no proxy could do it."""
        for name in (self.domain, *self.peers):
            if not NAME.fullmatch(name):
                raise Invalid(f"{name!r} is no name (lower-case letters, digits, dashes)", where=where)
        if self.domain in self.peers:
            raise Invalid(f"{self.domain!r} is this installation and a peer too", where=where)
        if self.listen:
            _check_address(self.listen, f"{where}.listen", literal=True)
        for name, peer in self.peers.items():
            _check_address(peer.address, f"{where}.peers.{name}")
            _check_trust(peer.trust, f"{where}.peers.{name}")

    def of(self, calls: Mapping[str, str], exports: Mapping[str, tuple[str, ...]], where: str) -> Mesh | None:
        """The part of a service whose *calls* go to peers (service → peer), and that *exports* itself
        (peer → its services); None if it has none."""
        remotes = {callee: self._remote(callee, name, where) for callee, name in sorted(calls.items())}
        admitted = tuple(self._admitted(name, who, where) for name, who in sorted(exports.items()))
        if admitted and not self.listen:
            what = "exported, and nothing is said of where to listen"
            raise Invalid(what, where=where, next_move="set mesh.listen, such as 0.0.0.0:8843")
        export = Export(self.domain, self.listen, admitted) if admitted else None
        return Mesh(remotes, export) if remotes or export else None

    def _remote(self, callee: str, name: str, where: str) -> Remote:
        if not NAME.fullmatch(callee):
            raise Invalid(f"{callee!r} is not a service name", where=where)
        peer = self._peer(name, where)
        return Remote(self.domain, name, peer.address, peer.trust)

    def _admitted(self, name: str, services: tuple[str, ...], where: str) -> Admitted:
        peer = self._peer(name, where)
        if not services:
            raise Invalid(f"exported to nobody of {name}", where=where, next_move="name its services")
        for service in services:
            if not NAME.fullmatch(service):
                raise Invalid(f"{service!r} is not a service name", where=where)
        return Admitted(name, peer.trust, tuple(sorted(set(services))))

    def _peer(self, name: str, where: str) -> PeerConfig:
        if name not in self.peers:
            known = ", ".join(sorted(self.peers)) or "none"
            raise Invalid(f"{name!r} is no peer (peers: {known})", where=where)
        return self.peers[name]


@dataclass(frozen=True)
class ServiceValues:
    """One service in an environment document: its values; the *peers* at which services that it calls are;
    and what it *exports*: for each peer, the services that may call it."""

    values: Mapping[str, Value] = field(default_factory=dict)
    peers: Mapping[str, str] = field(default_factory=dict)
    exports: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class EnvironmentConfig:
    """All of one ``environments/<name>.yaml`` in an organisation repository."""

    environment: str
    services: Mapping[str, ServiceValues] = field(default_factory=dict)
    mesh: MeshConfig | None = None

    def mesh_of(self, service: str) -> Mesh | None:
        """What a service has to do with other machines; None if nothing."""
        given, where = self.services[service], f"environments/{self.environment}.yaml"
        if self.mesh is None:
            if given.peers or given.exports:
                what = f"{service} names peers, and the document has no mesh"
                raise Invalid(what, where=where, next_move="see docs/guides/mesh-between-machines.md")
            return None
        if not NAME.fullmatch(self.environment):
            raise Invalid(f"{self.environment!r} cannot be in the name of a certificate", where=where)
        self.mesh.check(f"{where}: mesh")
        return self.mesh.of(given.peers, given.exports, f"{where}: services.{service}")


def _check_address(address: str, where: str, *, literal: bool = False) -> None:
    host, _, port = address.rpartition(":")
    good = is_literal(host) or (not literal and HOST.fullmatch(host) is not None)
    if not (good and port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        example = "an address such as 0.0.0.0:8843" if literal else "a place such as east.internal:8843"
        raise Invalid(f"{address!r} is not {example}", where=where)


def _check_trust(text: str, where: str) -> None:
    """Nothing that should have stayed at home. (Whether they are certificates is asked where it is read.)"""
    if "PRIVATE KEY" in text:
        raise Invalid(
            "a private key: whoever reads this can be any service of that peer",
            where=where,
            next_move="there: penstock mesh rotate, then --switch; hand over what penstock mesh trust prints",
        )
