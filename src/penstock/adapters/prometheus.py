"""Meter: a Prometheus, or whatever answers its HTTP API (Thanos, Mimir, VictoriaMetrics).

Found as ``penstock.meter: prometheus``. A metric's queries *bad* and *total* are cumulative counters, each
one series for a release; ``{release}``, ``{service}`` and ``{environment}`` in them stand for names. Both are
asked for one moment, which is the server's. It is somebody else's server: answers are bounded in time and
size, redirects are not followed, and one that asks to be left alone is.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx

from penstock.core.canary import Count, Part
from penstock.core.canaryconfig import Metric
from penstock.errors import Invalid, Unavailable

SECONDS = 10.0
MAX_ANSWER = 1024 * 1024
#: Nobody is left alone for longer, whatever it asks.
LONGEST_WAIT = 600.0
MOST_WORDS = 200
#: Answers that tell to come back later.
LATER = (429, 502, 503, 504)

#: A moment, by the server's clock, and what a query gives then.
Point = tuple[float, int]


class Prometheus:
    """*url* is the server's, with its prefix if it has one; *token* a file with a bearer token."""

    def __init__(self, url: str, token: Path | None = None, seconds: float = SECONDS) -> None:
        parsed = _checked(url)
        self._url = f"{url.rstrip('/')}/api/v1/query"
        self._name = parsed.host
        self._token = token
        self._seconds = seconds
        self._client: httpx.AsyncClient | None = None
        self._again = 0.0

    async def count(self, metric: Metric, service: str, environment: str, release: str) -> Count | None:
        names = {"{release}": release, "{service}": service, "{environment}": environment}
        bad = await self._value(metric, _filled(metric.bad, names), None)
        if bad is None:
            return None
        total = await self._value(metric, _filled(metric.total, names), bad[0])
        return Count(release, bad[0], "", (Part("series", bad[1], total[1]),)) if total else None

    async def close(self) -> None:
        """Let go of connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _value(self, metric: Metric, query: str, at: float | None) -> Point | None:
        """One query *at* a moment (None: now, by the server's clock); None if nothing answers to it."""
        left = self._again - time.monotonic()
        if left > 0:
            raise Unavailable(f"asked to be left alone for {left:.0f} s more", where=self._name)
        given = {"query": query, "lookback_delta": f"{metric.fresh_seconds:g}s"}
        if at is not None:
            given["time"] = f"{at:.3f}"
        try:
            # The client's limit is for each part of the answer; this one is for all of it.
            async with asyncio.timeout(self._seconds):
                status, headers, body = await self._ask(given)
        except TimeoutError as error:
            raise Unavailable(f"no answer in {self._seconds:g} s", where=self._name) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unavailable(f"no answer: {error or type(error).__name__}", where=self._name) from error
        self._refused(status, headers, body)
        return value_of(body, self._name)

    async def _ask(self, given: Mapping[str, str]) -> tuple[int, httpx.Headers, bytes]:
        if self._client is None:
            # Without TLS there is nobody to verify, and authorities need not be loaded.
            verify = self._url.startswith("https:")
            self._client = httpx.AsyncClient(timeout=self._seconds, follow_redirects=False, verify=verify)
        headers = {"accept-encoding": "identity", **self._authorization()}
        async with self._client.stream("POST", self._url, data=given, headers=headers) as answer:
            body = b""
            async for part in answer.aiter_raw():
                body += part
                if len(body) > MAX_ANSWER:
                    raise Unavailable(f"an answer of more than {MAX_ANSWER} bytes", where=self._name)
            return answer.status_code, answer.headers, body

    def _authorization(self) -> dict[str, str]:
        if self._token is None:
            return {}
        try:
            token = self._token.read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            move = "penstock up --prometheus-token FILE"
            raise Unavailable(
                f"its token cannot be read: {error}", where=self._name, next_move=move
            ) from error
        return {"authorization": f"Bearer {token}"}

    def _refused(self, status: int, headers: httpx.Headers, body: bytes) -> None:
        """Raise what a status says that is not 200."""
        if status == 200:
            return
        where = self._name
        if status == 400:
            raise Invalid(f"it does not take the query: {_reason(body)}", where=where)
        if status == 422:
            raise Unavailable(f"it could not work the query out: {_reason(body)}", where=where)
        if status in (401, 403):
            move = "penstock up --prometheus-token FILE"
            raise Unavailable(f"it does not let us in ({status})", where=where, next_move=move)
        wait = _wait(headers.get("retry-after", "")) if status in LATER else 0.0
        self._again = time.monotonic() + wait if wait else self._again
        asks = f", and asks to be left alone for {wait:.0f} s" if wait else ""
        raise Unavailable(f"answered {status}{asks}", where=where)


def _checked(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise Invalid(f"not a URL: {error}", where="--prometheus") from error
    if parsed.scheme not in ("http", "https") or not parsed.host or not 0 < (parsed.port or 80) < 65536:
        raise Invalid("a Prometheus has an http or https URL", where="--prometheus")
    if parsed.userinfo or parsed.query or parsed.fragment:
        # Not repeated: it may hold a password, and settings are shown.
        move = "a token is a file of its own: --prometheus-token FILE"
        raise Invalid("a URL and nothing else", where="--prometheus", next_move=move)
    return parsed


def _filled(query: str, names: Mapping[str, str]) -> str:
    for placeholder, name in names.items():
        query = query.replace(placeholder, name)
    return query


def _wait(text: str) -> float:
    """Seconds from ``Retry-After``: a number of them, or a date. 0 if it says nothing."""
    try:
        seconds = float(text) if text.isdecimal() else parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), LONGEST_WAIT)


def _reason(body: bytes) -> str:
    """The server's own word for what is wrong with a query, cut."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return "it does not say why"
    text = said.get("error") if isinstance(said, dict) else None
    return text[:MOST_WORDS] if isinstance(text, str) else "it does not say why"


def value_of(body: bytes, where: str) -> Point | None:
    """What an answer to an instant query says; None if nothing answered to it. `Unavailable` with what is
    wrong with it."""
    return _point(_answer(body, where), where)


def _answer(body: bytes, where: str) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Unavailable("an answer that is no JSON", where=where) from error
    if (
        not isinstance(said, dict)
        or said.get("status") != "success"
        or not isinstance(said.get("data"), dict)
    ):
        raise Unavailable("an answer that is none of Prometheus's API", where=where)
    if said.get("warnings"):
        # A part of the data is not there (Thanos, for one, says so in this way).
        raise Unavailable(f"it warns: {str(said['warnings'])[:MOST_WORDS]}", where=where)
    data: dict[str, Any] = said["data"]
    return data


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
        case [int() | float() as at, str() as text] if math.isfinite(at):
            return float(at), _whole(text, where)
        case _:
            raise Unavailable("an answer without a time and a value", where=where)


def _whole(text: str, where: str) -> int:
    try:
        found = float(text)
    except ValueError as error:
        raise Unavailable("an answer whose value is no number", where=where) from error
    if not 0 <= found < math.inf or found != math.floor(found):
        raise Unavailable(f"a count of {text[:20]}: no whole number from 0", where=where)
    return int(found)
