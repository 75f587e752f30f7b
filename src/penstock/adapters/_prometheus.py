"""A server that answers Prometheus's HTTP API, and what it says, checked: for the adapters that ask one.

Called by `prometheus` and `istio_metrics`. It is somebody else's server: answers are bounded in time and
size, redirects are not followed, one that asks to be left alone is, and one that warns has not said
everything. Must not know what is counted.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx

from penstock.errors import Invalid, Unavailable

SECONDS = 10.0
MAX_ANSWER = 1024 * 1024
#: Nobody is left alone for longer, whatever it asks.
LONGEST_WAIT = 600.0
MOST_WORDS = 200
#: No time is further from 1970, in seconds.
FAR = 1e12
#: Answers that tell to come back later.
LATER = (429, 502, 503, 504)


@dataclass(frozen=True)
class SetBy:
    """Where people say the server's *url*, and how they give a *token*: for errors."""

    url: str = "--prometheus"
    token: str = "penstock up --prometheus-token FILE"


OPTIONS = SetBy()


class Server:
    """*url* is the server's, with its prefix if it has one; *token* a file with a bearer token."""

    def __init__(
        self, url: str, token: Path | None = None, seconds: float = SECONDS, *, set_by: SetBy = OPTIONS
    ) -> None:
        parsed = _checked(url, set_by)
        self.name = parsed.host
        self._url = f"{url.rstrip('/')}/api/v1/query"
        self._token = token
        self._seconds = seconds
        self._move = set_by.token
        self._client: httpx.AsyncClient | None = None
        self._again = 0.0

    async def ask(self, query: str, **options: str) -> bytes:
        """What an instant query is answered, as it came; *options* are parameters of the API. `Invalid` if
        the server does not take the query, `Unavailable` if it does not answer it."""
        left = self._again - time.monotonic()
        if left > 0:
            raise Unavailable(f"asked to be left alone for {left:.0f} s more", where=self.name)
        try:
            # The client's limit is for each part of the answer; this one is for all of it.
            async with asyncio.timeout(self._seconds):
                status, headers, body = await self._post({"query": query, **options})
        except TimeoutError as error:
            raise Unavailable(f"no answer in {self._seconds:g} s", where=self.name) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unavailable(f"no answer: {error or type(error).__name__}", where=self.name) from error
        self._refused(status, headers, body)
        return body

    async def close(self) -> None:
        """Let go of connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _post(self, given: Mapping[str, str]) -> tuple[int, httpx.Headers, bytes]:
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
                    raise Unavailable(f"an answer of more than {MAX_ANSWER} bytes", where=self.name)
            return answer.status_code, answer.headers, body

    def _authorization(self) -> dict[str, str]:
        if self._token is None:
            return {}
        try:
            token = self._token.read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            what = f"its token cannot be read: {error}"
            raise Unavailable(what, where=self.name, next_move=self._move) from error
        return {"authorization": f"Bearer {token}"}

    def _refused(self, status: int, headers: httpx.Headers, body: bytes) -> None:
        """Raise what a status says that is not 200."""
        if status == 200:
            return
        where = self.name
        if status == 400:
            raise Invalid(f"it does not take the query: {_reason(body)}", where=where)
        if status == 422:
            raise Unavailable(f"it could not work the query out: {_reason(body)}", where=where)
        if status in (401, 403):
            raise Unavailable(f"it does not let us in ({status})", where=where, next_move=self._move)
        wait = _wait(headers.get("retry-after", "")) if status in LATER else 0.0
        self._again = time.monotonic() + wait if wait else self._again
        asks = f", and asks to be left alone for {wait:.0f} s" if wait else ""
        raise Unavailable(f"answered {status}{asks}", where=where)


def _checked(url: str, set_by: SetBy) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise Invalid(f"not a URL: {error}", where=set_by.url) from error
    if parsed.scheme not in ("http", "https") or not parsed.host or not 0 < (parsed.port or 80) < 65536:
        raise Invalid("a Prometheus has an http or https URL", where=set_by.url)
    if parsed.userinfo or parsed.query or parsed.fragment:
        # Not repeated: it may hold a password, and settings are shown.
        move = f"a token is a file of its own: {set_by.token}"
        raise Invalid("a URL and nothing else", where=set_by.url, next_move=move)
    return parsed


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


def data_of(body: bytes, where: str) -> dict[str, Any]:
    """The data of an answer. `Unavailable` with what is wrong with it."""
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


def whole(text: str, where: str) -> int:
    """A count; `Unavailable` for what is none."""
    try:
        found = float(text)
    except ValueError as error:
        raise Unavailable("an answer whose value is no number", where=where) from error
    if not 0 <= found < math.inf or found != math.floor(found):
        raise Unavailable(f"a count of {text[:20]}: no whole number from 0", where=where)
    return int(found)
