"""Meter: a Prometheus, or whatever answers its HTTP API (Thanos, Mimir, VictoriaMetrics).

Found as ``penstock.meter: prometheus``. A metric's queries *bad* and *total* are cumulative counters, each
one series for a release; ``{release}``, ``{service}`` and ``{environment}`` in them stand for names. Both are
asked for one moment, which is the server's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock.adapters._prometheus import FAR, SECONDS, Server, data_of, whole
from penstock.core.canary import Count, Part
from penstock.core.canaryconfig import Metric
from penstock.errors import Unavailable

#: A moment, by the server's clock, and what a query gives then.
Point = tuple[float, int]


class Prometheus:
    """*url* is the server's, with its prefix if it has one; *token* a file with a bearer token."""

    def __init__(self, url: str, token: Path | None = None, seconds: float = SECONDS) -> None:
        self._server = Server(url, token, seconds)

    async def count(self, metric: Metric, service: str, environment: str, release: str) -> Count | None:
        names = {"{release}": release, "{service}": service, "{environment}": environment}
        bad = await self._value(metric, _filled(metric.bad, names), None)
        if bad is None:
            return None
        total = await self._value(metric, _filled(metric.total, names), bad[0])
        return Count(release, bad[0], "", (Part("series", bad[1], total[1]),)) if total else None

    async def close(self) -> None:
        """Let go of connections."""
        await self._server.close()

    async def _value(self, metric: Metric, query: str, at: float | None) -> Point | None:
        """One query *at* a moment (None: now, by the server's clock); None if nothing answers to it."""
        options = {"lookback_delta": f"{metric.fresh_seconds:g}s"}
        if at is not None:
            options["time"] = f"{at:.3f}"
        return value_of(await self._server.ask(query, **options), self._server.name)


def _filled(query: str, names: Mapping[str, str]) -> str:
    for placeholder, name in names.items():
        query = query.replace(placeholder, name)
    return query


def value_of(body: bytes, where: str) -> Point | None:
    """What an answer to an instant query says; None if nothing answered to it. `Unavailable` with what is
    wrong with it."""
    return _point(data_of(body, where), where)


def _point(data: Mapping[str, Any], where: str) -> Point | None:
    kind, result = data.get("resultType"), data.get("result")
    if kind == "vector" and isinstance(result, list):
        if len(result) > 1:
            what = f"{len(result)} series where one is expected"
            raise Unavailable(what, where=where, next_move="sum(…) makes one of them")
        if not result:
            return None
        value = result[0].get("value") if isinstance(result[0], dict) else None
    elif kind == "scalar":
        value = result
    else:
        raise Unavailable("an answer that is no instant vector", where=where)
    match value:
        case [int() | float() as at, str() as text] if abs(at) < FAR:
            return float(at), whole(text, where)
        case _:
            raise Unavailable("an answer without a time and a value", where=where)
