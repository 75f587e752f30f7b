"""What a Prometheus answers that has Istio's standard metrics of one gateway; a test may spoil it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

Sample = dict[str, Any]

JOB = {"job": "gateways", "instance": "10.0.0.5:15020"}
BOUNDS = ("0.5", "1", "5", "10", "+Inf")


def told(counts: Mapping[str, tuple[object, object]], *, at: float, start: float, now: float) -> list[Sample]:
    """Of each release (requests, errors); scraped *at* and counted since *start*, by the server's clock
    *now*."""

    def sample(part: str, value: object, **labels: str) -> Sample:
        return {"metric": {"is": part, **labels}, "value": [now, str(value)]}

    found = [
        sample("proxy", 3, **JOB),
        sample("scraped", at, **JOB),
        sample("started", start, **JOB),
    ]
    for release, (requests, errors) in counts.items():
        name = {"destination_service_name": release}
        rest = {"grpc_response_status": "", "response_flags": "-"}
        good = requests - errors if isinstance(requests, int) and isinstance(errors, int) else requests
        found.append(sample("requests", good, **name, **rest, response_code="200"))
        found.append(sample("requests", errors, **name, **rest, response_code="500"))
        found += [sample("latency", requests, **name, le=bound) for bound in BOUNDS]
    return found


def body(samples: Sequence[Sample], warnings: Sequence[str] = ()) -> bytes:
    said: dict[str, Any] = {"status": "success", "data": {"resultType": "vector", "result": list(samples)}}
    return json.dumps({**said, "warnings": list(warnings)} if warnings else said).encode()
