"""What a data plane has counted of a release: the values that cross the `Metrics` port.

A part of `traffic`, and imported from there. Pure; must not name a proxy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Led:
    """So many requests were led to the dark *release* since *epoch* (as in `Counters`): by its preview or,
    with a *caller*, by the chain of that dark release."""

    release: str
    epoch: str
    requests: int
    caller: str = ""


@dataclass(frozen=True)
class Counters:
    """Cumulative counts of one release since *epoch*, at the moment of reading.

    *requests* and *errors* (responses 5xx, gRPC calls that the server failed, and none at all) count user
    traffic only. *latency* maps an upper bound in milliseconds (as text) to the number of requests at or
    under it. *refused* requests were above the release's `Breakers`: the proxy answered them itself; None if
    there were none. *epoch* changes whenever the counts may have restarted; two readings with different
    epochs must not be subtracted.
    """

    release: str
    at: float
    epoch: str
    requests: int
    errors: int
    latency: Mapping[str, int] = field(default_factory=dict)
    refused: int | None = None
