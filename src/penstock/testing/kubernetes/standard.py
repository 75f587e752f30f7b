"""What an Istio gateway counts of its requests, as Prometheus reads it: Istio's standard metrics.

Called by `proxy`. A gateway is the client of what it leads to, so it reports as ``source``; the copies that
it sends to a mirror it does not count at all (those only a sidecar of whoever gets them would, as
``destination``). Facts of Istio 1.30, restated by hand.
"""

from __future__ import annotations

import itertools
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

#: Upper bounds in milliseconds: those of the proxy, unless ``sidecar.istio.io/statsHistogramBuckets`` says
#: otherwise.
BOUNDS = (
    *(0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0, 30_000.0),
    *(60_000.0, 300_000.0, 600_000.0, 1_800_000.0, 3_600_000.0),
)
UNKNOWN = "unknown"
#: When the agent beside the proxy began, in seconds since 1970; the two begin and end together.
STARTED = "istio_agent_process_start_time_seconds"

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Outcome:
    """One request of a user: *service* in *namespace* was chosen for it ("": none was), and an endpoint of it
    *answered* or not. *code* is 0 if the user left before there was one; *flags* are Envoy's own."""

    service: str
    namespace: str
    code: int
    flags: str = "-"
    answered: bool = True
    grpc_status: str = ""


@dataclass
class _Counted:
    requests: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0


class Standard:
    """The counts of one gateway, whose *workload* is in *namespace*, since it began."""

    def __init__(self, workload: str, namespace: str) -> None:
        self._source = (workload, namespace)
        self.restart()

    def restart(self) -> None:
        """Begin anew, as a pod does that was put in the place of another."""
        self.started = time.time()
        self._counted: dict[Labels, _Counted] = {}

    def count(self, outcome: Outcome, seconds: float) -> None:
        of = self._counted.setdefault(self._labels(outcome), _Counted())
        of.requests += 1
        of.buckets[bisect_left(BOUNDS, seconds * 1000)] += 1
        of.total += seconds * 1000

    def page(self) -> str:
        return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"# TYPE {STARTED} gauge"
        yield f"{STARTED} {self.started!r}"
        yield "# TYPE istio_requests_total counter"
        for labels, counted in self._counted.items():
            yield _line("istio_requests_total", labels, counted.requests)
        name = "istio_request_duration_milliseconds"
        yield f"# TYPE {name} histogram"
        edges = [*(f"{bound:.10g}" for bound in BOUNDS), "+Inf"]
        for labels, counted in self._counted.items():
            for edge, count in zip(edges, itertools.accumulate(counted.buckets), strict=True):
                yield _line(f"{name}_bucket", (*labels, ("le", edge)), count)
            yield _line(f"{name}_sum", labels, counted.total)
            yield _line(f"{name}_count", labels, counted.requests)

    def _labels(self, outcome: Outcome) -> Labels:
        """All of them, in Istio's order: what is not known says so."""
        workload, namespace = self._source
        service, its_namespace = outcome.service or UNKNOWN, outcome.namespace or UNKNOWN
        whole = f"{service}.{its_namespace}.svc.cluster.local" if outcome.service else UNKNOWN
        reached = service if outcome.answered else UNKNOWN
        found: Mapping[str, str] = {
            "reporter": "source",
            "source_workload": workload,
            "source_canonical_service": workload,
            "source_canonical_revision": "latest",
            "source_workload_namespace": namespace,
            "source_principal": UNKNOWN,
            "source_app": workload,
            "source_version": UNKNOWN,
            "source_cluster": "Kubernetes",
            "destination_workload": reached,
            "destination_workload_namespace": its_namespace if outcome.answered else UNKNOWN,
            "destination_principal": UNKNOWN,
            "destination_app": reached,
            "destination_version": UNKNOWN,
            "destination_service": whole,
            "destination_canonical_service": reached,
            "destination_canonical_revision": "latest",
            "destination_service_name": service,
            "destination_service_namespace": its_namespace,
            "destination_cluster": "Kubernetes" if outcome.answered else UNKNOWN,
            "request_protocol": "grpc" if outcome.grpc_status else "http",
            "response_code": str(outcome.code),
            "grpc_response_status": outcome.grpc_status,
            "response_flags": outcome.flags,
            "connection_security_policy": UNKNOWN,
        }
        return tuple(found.items())


def _line(name: str, labels: Labels, value: float) -> str:
    pairs = ",".join(f'{label}="{text}"' for label, text in labels)
    return f"{name}{{{pairs}}} {value!r}"
