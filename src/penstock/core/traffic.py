"""Who sees which release: the values that cross the `Router` and `Metrics` ports.

Shares are whole thousandths (0.1%), so that equality is exact. Must not name a proxy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from penstock.errors import Invalid

WHOLE = 1000


@dataclass(frozen=True)
class Weight:
    """*share* thousandths of a service's user traffic go to the release with id *release*."""

    release: str
    share: int


@dataclass(frozen=True)
class Egress:
    """Where calls of one release to the service *callee* enter the proxy.

    *address* is ``unix:/path`` or ``127.0.0.1:port``; it is this caller's own, so the listener
    tells who calls.
    """

    callee: str
    address: str


@dataclass(frozen=True)
class Backend:
    """One release that the proxy can reach.

    *addresses* are ``unix:/path`` or ``host:port``, one per instance. *health_path* is requested
    by the proxy itself to prove that it can reach the instance; "" means that connecting suffices.
    Before its addresses go, requests that it has are waited for, for *drain_seconds* at most.
    """

    release: str
    addresses: tuple[str, ...]
    health_path: str = ""
    egress: tuple[Egress, ...] = ()
    drain_seconds: float = 0.0


@dataclass(frozen=True)
class TrafficPlan:
    """All that one service wants of the proxy in one environment.

    Every backend is reachable by the preview route (headers `PREVIEW_HEADER` and `TOKEN_HEADER`);
    only those with a weight see users. *weights* is empty (nobody is served yet) or sums to `WHOLE`.
    """

    service: str
    environment: str
    backends: tuple[Backend, ...]
    weights: tuple[Weight, ...]

    def __post_init__(self) -> None:
        known = {backend.release for backend in self.backends}
        for weight in self.weights:
            if weight.release not in known:
                raise Invalid(f"traffic for {weight.release}, which has no backend", where=self.service)
            if not 0 < weight.share <= WHOLE:
                raise Invalid(f"share {weight.share} is not within 1..{WHOLE}", where=weight.release)
        if self.weights and sum(weight.share for weight in self.weights) != WHOLE:
            raise Invalid(f"shares must sum to {WHOLE} thousandths", where=self.service)


#: A request that carries both headers goes to the dark release it names, whatever the weights say.
PREVIEW_HEADER = "penstock-release"
TOKEN_HEADER = "penstock-preview-token"


@dataclass(frozen=True)
class BackendState:
    """A backend as the data plane has it: *ready* of *total* instances answer its health checks."""

    backend: Backend
    ready: int
    total: int

    @property
    def release(self) -> str:
        return self.backend.release


@dataclass(frozen=True)
class TrafficState:
    """What the data plane does now for one service, read back from it (never from our own files).

    *address* is the base URL at which users reach the service; *preview_token* opens the preview
    route. Both are empty while the data plane does not know the service.
    """

    service: str
    environment: str
    weights: tuple[Weight, ...] = ()
    backends: tuple[BackendState, ...] = ()
    address: str = ""
    preview_token: str = ""

    def share(self, release: str) -> int:
        """Thousandths of user traffic that *release* takes; 0 if none."""
        return sum(weight.share for weight in self.weights if weight.release == release)

    def ready(self, release: str) -> bool:
        """Whether every instance of *release* is proven ready (and there is at least one)."""
        found = [backend for backend in self.backends if backend.release == release]
        return bool(found) and found[0].total > 0 and found[0].ready == found[0].total

    def exposing(self, backend: Backend) -> TrafficPlan:
        """The plan that makes *backend* known (or brings it up to date) and moves nobody."""
        others = tuple(b.backend for b in self.backends if b.release != backend.release)
        return TrafficPlan(self.service, self.environment, (*others, backend), self.weights)

    def shifting(self, *weights: Weight) -> TrafficPlan:
        """The plan that moves users and changes nothing else. Weights of zero are left out."""
        known = tuple(b.backend for b in self.backends)
        kept = tuple(weight for weight in weights if weight.share)
        return TrafficPlan(self.service, self.environment, known, kept)

    def without(self, *releases: str) -> TrafficPlan:
        """The plan that forgets backends; `Invalid` if one of them still has users."""
        left = tuple(b.backend for b in self.backends if b.release not in releases)
        return TrafficPlan(self.service, self.environment, left, self.weights)


@dataclass(frozen=True)
class Counters:
    """Cumulative counts of one release since *epoch*, at the moment of reading.

    *requests* and *errors* (responses 5xx, and none at all) count user traffic only. *latency* maps
    an upper bound in milliseconds (as text) to the number of requests at or under it.
    *epoch* changes whenever the counts may have restarted; two readings with different epochs must
    not be subtracted.
    """

    release: str
    at: float
    epoch: str
    requests: int
    errors: int
    latency: Mapping[str, int] = field(default_factory=dict)
