"""Metrics as text: the Prometheus exposition format, version 0.0.4, which every scraper reads.

Called by `server.metrics`. Writes what it is given and keeps nothing: every number is read from the database
when it is asked for, so there is no registry to share between processes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True)
class Sample:
    """One line. *suffix* is added to the family's name (``_bucket``)."""

    value: float
    labels: Mapping[str, str] = field(default_factory=dict)
    suffix: str = ""


@dataclass(frozen=True)
class Family:
    """Every sample of one name. *meaning* is one sentence without a line break."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    samples: tuple[Sample, ...]


def write(families: Iterable[Family]) -> str:
    """The whole page."""
    return "".join(line + "\n" for family in families for line in _lines(family))


def histogram(
    labels: Mapping[str, str], bounds: Sequence[float], counts: Sequence[int], total: float
) -> tuple[Sample, ...]:
    """The samples of one histogram. *counts* has one number for each bound and one for what is beyond."""
    edges = [*(f"{bound:g}" for bound in bounds), "+Inf"]
    sums = list(itertools.accumulate(counts))
    buckets = [Sample(n, {**labels, "le": edge}, "_bucket") for edge, n in zip(edges, sums, strict=True)]
    return (*buckets, Sample(total, labels, "_sum"), Sample(sums[-1], labels, "_count"))


def _lines(family: Family) -> Iterable[str]:
    yield f"# HELP {family.name} {family.meaning}"
    yield f"# TYPE {family.name} {family.kind}"
    for sample in family.samples:
        pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in sample.labels.items())
        yield f"{family.name}{sample.suffix}{{{pairs}}} {sample.value!r}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
