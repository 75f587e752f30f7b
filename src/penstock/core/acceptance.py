"""What the tests in production found, as evidence: one frozen class for each part.

Called by the check `acceptance`, which makes them, and by `core.factfinding`, which reads them. `Accepted` is
released: a part that it did not have from the beginning is None where it was not asked for, so that the bytes
of earlier evidence stay what they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from penstock.core.chain import Met
from penstock.core.codec import json_name

#: Lists of examples are cut here; the counts beside them are never cut.
MOST_EXAMPLES = 20


@dataclass(frozen=True)
class Bucket:
    """*count* requests took at most *ms* milliseconds, and longer than those of the bucket before."""

    ms: float
    count: int


@dataclass(frozen=True)
class Count:
    """How often: a path was asked, or something went wrong."""

    name: str
    count: int


@dataclass(frozen=True)
class Sent:
    """Requests that Penstock made itself, at *per_second* (0: one after another), and the *paths* it asked.

    A latency begins when the request was due, not when a connection was free for it. *errors* were answered
    5xx, by another release or not at all; *late_ms* is how late the generator itself was (99th percentile).
    """

    per_second: float = field(metadata=json_name("perSecond"))
    seconds: float
    requests: int
    errors: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    late_ms: float
    histogram: tuple[Bucket, ...]
    paths: tuple[Count, ...]
    problems: tuple[Count, ...]


@dataclass(frozen=True)
class Contract:
    """The service's answers against an OpenAPI document (*document* is the digest of its bytes): its own, or
    what the live release of *consumer* needs of it.

    *skipped* operations may have effects, and nobody declared that they may be asked. Each of *problems* ends
    with the request as a curl line.
    """

    document: str
    version: str
    operations: int
    failed: int
    requests: int
    seed: int
    skipped: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    consumer: str | None = None


@dataclass(frozen=True)
class Compared:
    """The same requests to the stable and the dark release at the same moment.

    *different* of *pairs* differ in status, content type or body beyond what *ignored* names; *untold* could
    not be compared: the stable release failed, or no longer answers in the same way itself. *first* are the
    first differences, without the values. Latencies are medians and 95th percentiles, milliseconds.
    """

    pairs: int
    different: int
    untold: int
    ignored: tuple[str, ...]
    first: tuple[str, ...]
    stable_p50_ms: float
    dark_p50_ms: float
    stable_p95_ms: float
    dark_p95_ms: float
    paths: int
    sampled: int


@dataclass(frozen=True)
class Accepted:
    """Tests in production against the dark release (*together* with others), and generated traffic.

    What fails in *contract*, *load* or *compared* is among *failed_tests* too.
    """

    TYPE: ClassVar[str] = "urn:penstock:acceptance:v1"
    passed: int
    failed: int
    failed_tests: tuple[str, ...] = field(metadata=json_name("failedTests"))
    requests: int = 0
    errors: int = 0
    p95_ms: float = 0.0
    p95_limit_ms: float = 0.0
    traffic: Literal["generated"] = "generated"
    at: float | None = None
    together: tuple[Met, ...] | None = None
    generated: Sent | None = None
    contract: Contract | None = None
    load: Sent | None = None
    compared: Compared | None = None
    consumers: tuple[Contract, ...] | None = None
