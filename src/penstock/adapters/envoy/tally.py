"""What users saw of each release, of Envoy's own counters. No I/O.

Called by the driver. Envoy counts what a circuit breaker answered among the errors of the release, which
never had those requests: they are taken off. The two numbers are not of one moment, so that a difference may
be one or two lower than the last one was; that one is then said again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from penstock.core.traffic import Counters

#: What circuit breakers of a cluster answered: each request is in one of them, and among the errors, too.
OVERFLOWS = ("upstream_rq_active_overflow", "upstream_rq_pending_overflow")


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
    full = sum(counters.get(f"cluster.{release}.{name}", 0) for name in OVERFLOWS)
    requests = counters.get(f"cluster.{release}.external.upstream_rq_completed", 0) - full
    errors = counters.get(f"cluster.{release}.external.upstream_rq_5xx", 0) - full
    return Counters(release, at, epoch, max(0, requests), max(0, errors), latency, full or None)


def _no_less(now: Counters, last: Counters | None) -> Counters:
    if last is None or last.epoch != now.epoch:
        return now
    return replace(now, requests=max(now.requests, last.requests), errors=max(now.errors, last.errors))
