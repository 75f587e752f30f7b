"""What users saw of each release, computed from Envoy's own counters. No I/O.

Called by the driver. Envoy counts the answers of a circuit breaker as errors of the release, although the
release never got those requests: they are subtracted. The two counters are not read at the same moment, so a
difference may come out one or two lower than the last time; then the last one is given again.

A failed gRPC call has HTTP status 200 and its own status in the trailers, which a filter counts for each
cluster. When Envoy itself answers such a call (nobody was there, or nobody answered in time), it is in both
counts: a 5xx for the router, UNAVAILABLE for the filter. So the larger of those two is taken; what a service
answers itself is only ever in one. A gRPC status is counted when the call ends, its request when the answer
begins: so errors are held back until there are as many requests, for no more can fail than were asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from penstock.core.traffic import Counters

#: What circuit breakers of a cluster answered: each request is in one of them, and among the errors, too.
OVERFLOWS = ("upstream_rq_active_overflow", "upstream_rq_pending_overflow")
#: Requests of users, answered 5xx; and those of them that were no gRPC calls.
FAILED, FAILED_HTTP = "external.upstream_rq_5xx", "upstream_rq_5xx"
#: Statuses by which a server says that it failed, and not whoever asked (OpenTelemetry's semantic conventions
#: for gRPC servers): UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, DATA_LOSS; and UNAVAILABLE.
GRPC_FAILED, UNAVAILABLE = tuple(f"grpc.{status}" for status in (2, 4, 12, 13, 15)), "grpc.14"
#: All that is needed of a cluster's counters.
COUNTED = ("external.upstream_rq_completed", FAILED, FAILED_HTTP, *GRPC_FAILED, UNAVAILABLE, *OVERFLOWS)


class Tally:
    """Counts that never shrink while Envoy counts on."""

    def __init__(self) -> None:
        self._last: dict[str, dict[str, Counters]] = {}

    def of(self, service: str, readings: Iterable[Counters]) -> tuple[Counters, ...]:
        """The *readings* of all releases of a service, none of them lower than the last one."""
        last = self._last.get(service, {})
        found = tuple(_no_less(reading, last.get(reading.release)) for reading in readings)
        self._last[service] = {counters.release: counters for counters in found}
        return found


def counted(
    release: str, at: float, epoch: str, counters: Mapping[str, int], latency: Mapping[str, int]
) -> Counters:
    """What users saw of a release, from counters by name."""
    of = {name: counters.get(f"cluster.{release}.{name}", 0) for name in COUNTED}
    full = sum(of[name] for name in OVERFLOWS)
    requests = max(0, of["external.upstream_rq_completed"] - full)
    http = min(of[FAILED], of[FAILED_HTTP])
    failed = http + max(of[FAILED] - http, of[UNAVAILABLE]) + sum(of[name] for name in GRPC_FAILED)
    return Counters(release, at, epoch, requests, max(0, failed - full), latency, full or None)


def _no_less(now: Counters, last: Counters | None) -> Counters:
    if last is None or last.epoch != now.epoch:
        return replace(now, errors=min(now.errors, now.requests))
    requests = max(now.requests, last.requests)
    errors = min(now.errors, last.errors + requests - last.requests)
    return replace(now, requests=requests, errors=max(errors, last.errors))
