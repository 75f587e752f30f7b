"""Parsers of what meters are told: counters as text, lines of logs, answers of a Prometheus."""

from __future__ import annotations

from penstock.adapters.istio_metrics import counters_of
from penstock.adapters.prometheus import value_of
from penstock.core.canaryconfig import Metric
from penstock.core.exposed import selector, told
from penstock.core.loglines import bad_lines

PAID = selector('paid_total{outcome="failed"}')


def exposed_counter(data: bytes) -> None:
    found = told(data.decode(errors="replace"), PAID)
    assert found is None or found.value >= 0


def counter_selector(data: bytes) -> None:
    selector(data.decode(errors="replace"))


def log_lines(data: bytes) -> None:
    lines = data.splitlines()
    assert 0 <= bad_lines(Metric("m", "logs", contains=("ERROR",), level="warning"), lines) <= len(lines)


def prometheus_answer(data: bytes) -> None:
    found = value_of(data, "metrics.example")
    assert found is None or found[1] >= 0


def istio_answer(data: bytes) -> None:
    for found in counters_of(data, ("shop-1", "shop-2"), "metrics.example", "shop"):
        assert 0 <= found.errors <= found.requests
