"""Calls between two machines: whom a certificate names, when it is renewed, and who may call whom. Pure.

Called by deploy, by what issues certificates and by the proxy's driver; declared by `environmentconfig`.
Whose certificate counts is decided here and nowhere else. Must not name a proxy, or make a certificate.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

#: A certificate is good for so many seconds before it is made: the clocks of two machines differ.
SKEW = 300.0


def identity(domain: str, environment: str, service: str) -> str:
    """The name in the certificate of a service of the installation *domain*."""
    return f"spiffe://{domain}/{environment}/{service}"


def server_name(domain: str, environment: str, service: str) -> str:
    """What a caller asks a peer's listener for (SNI)."""
    return f"{service}.{environment}.{domain}"


def is_literal(host: str) -> bool:
    """Whether a host is an address itself, which nobody has to look up."""
    try:
        return ipaddress.ip_address(host).version == 4
    except ValueError:
        return False


@dataclass(frozen=True)
class Validity:
    """When a certificate was made, and when it ends; seconds since 1970."""

    made: float
    until: float

    @property
    def since(self) -> float:
        return self.made - SKEW

    def due(self, now: float) -> bool:
        """Whether it is to be renewed: from half of its life on, and where the clock was set back to a time
        at which it is not good yet."""
        return not self.since <= now < (self.made + self.until) / 2


# --- what a release has to do with other machines -----------------------------------------------------------


@dataclass(frozen=True)
class Remote:
    """Where calls to a service at a peer go. *domain* is the peer's name, *own* the one it knows us by;
    *trust* (PEM) is what its certificates must follow from."""

    own: str
    domain: str
    address: str
    trust: str


@dataclass(frozen=True)
class Admitted:
    """The *services* of the peer *domain* that may call; *trust* as in `Remote`."""

    domain: str
    trust: str
    services: tuple[str, ...]


@dataclass(frozen=True)
class Export:
    """A service that peers may call: where the proxy listens for them, as whom it answers, and whom."""

    own: str
    listen: str
    admitted: tuple[Admitted, ...]

    def callers(self, environment: str) -> tuple[str, ...]:
        """The certificates of those who may call, by name. All that decides it."""
        return tuple(
            identity(peer.domain, environment, service) for peer in self.admitted for service in peer.services
        )


@dataclass(frozen=True)
class Mesh:
    """A service's part: callees that are at a peer, and who of the peers may call it."""

    calls: Mapping[str, Remote] = field(default_factory=dict)
    export: Export | None = None

    def within(self, callees: Collection[str]) -> Mesh | None:
        """What is left of it for a service that calls *callees*."""
        calls = {callee: remote for callee, remote in self.calls.items() if callee in callees}
        return Mesh(calls, self.export) if calls or self.export else None


@dataclass(frozen=True)
class Issued:
    """A certificate (PEM, with any issuers in between after it), its private *key*, and what signed it."""

    chain: str
    key: str = field(repr=False)
    by: str
    validity: Validity
