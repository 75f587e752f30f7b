"""What the control plane may ask of a node agent: one frozen value for each call.

Called by ``node`` on both ends of its socket: a call is one line of JSON, told apart by ``kind``, and so
is its answer. Must not know how calls travel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from penstock.core.admission import Refused
from penstock.core.canary import Count
from penstock.core.canaryconfig import Metric
from penstock.core.experiment import Goal, Users
from penstock.core.fence import Fence
from penstock.core.traffic import Counters, Led, TrafficPlan, TrafficState, Visit
from penstock.core.workload import Afterwards, Placement, Workload


@dataclass(frozen=True)
class Place:
    kind: Literal["place"]
    workload: Workload
    fence: Fence


@dataclass(frozen=True)
class Observe:
    kind: Literal["observe"]
    release: str


@dataclass(frozen=True)
class Scale:
    kind: Literal["scale"]
    release: str
    replicas: int
    fence: Fence
    then: Afterwards = ()


@dataclass(frozen=True)
class Remove:
    kind: Literal["remove"]
    release: str
    fence: Fence


@dataclass(frozen=True)
class Logs:
    kind: Literal["logs"]
    release: str
    lines: int


@dataclass(frozen=True)
class ReadTraffic:
    kind: Literal["read-traffic"]
    service: str
    environment: str


@dataclass(frozen=True)
class ApplyTraffic:
    kind: Literal["apply-traffic"]
    plan: TrafficPlan
    fence: Fence


@dataclass(frozen=True)
class ReadCounters:
    kind: Literal["read-counters"]
    service: str
    environment: str


@dataclass(frozen=True)
class ReadVisits:
    kind: Literal["read-visits"]
    service: str
    environment: str
    since: float


@dataclass(frozen=True)
class ReadUsers:
    kind: Literal["read-users"]
    service: str
    environment: str
    salt: str
    goal: Goal


@dataclass(frozen=True)
class ReadRefused:
    kind: Literal["read-refused"]
    service: str
    environment: str


@dataclass(frozen=True)
class ReadLed:
    kind: Literal["read-led"]
    service: str
    environment: str


@dataclass(frozen=True)
class ReadCount:
    kind: Literal["read-count"]
    metric: Metric
    release: str


@dataclass(frozen=True)
class StopEverything:
    """End workloads and proxy, keep all records: what ``penstock down`` asks for."""

    kind: Literal["stop-everything"]


Read = (
    Observe | Logs | ReadTraffic | ReadCounters | ReadVisits | ReadUsers | ReadRefused | ReadLed | ReadCount
)
Call = Read | Place | Scale | Remove | ApplyTraffic | StopEverything


@dataclass(frozen=True)
class Answer:
    """Exactly one field is set; all of them None answers a call that gives nothing."""

    placement: Placement | None = None
    traffic: TrafficState | None = None
    counters: tuple[Counters, ...] | None = None
    led: tuple[Led, ...] | None = None
    lines: tuple[str, ...] | None = None
    visits: tuple[Visit, ...] | None = None
    refused: tuple[Refused, ...] | None = None
    count: Count | None = None
    users: Users | None = None


@dataclass(frozen=True)
class Envelope:
    """A call on its way."""

    call: Call
