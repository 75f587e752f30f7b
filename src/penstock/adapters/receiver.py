"""Receiver: posts a message to a URL.

Found as ``penstock.receiver: http``. It is somebody else's server: answers are bounded in time and size, only
their status is kept, and redirects are not followed: a message goes where it was meant to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import httpx

from penstock.errors import Invalid, Unavailable

SECONDS = 15.0
MAX_ANSWER = 64 * 1024


class HttpReceiver:
    def __init__(self, url: str, seconds: float = SECONDS) -> None:
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise Invalid(f"not a URL: {error}", where=url[:100]) from error
        if parsed.scheme not in ("http", "https") or not parsed.host or not 0 < (parsed.port or 80) < 65536:
            raise Invalid("a receiver has an http or https URL", where=url[:100])
        if parsed.userinfo:
            # Not repeated: it may hold a password, and URLs are shown.
            raise Invalid("a receiver's URL is shown to many; it must not hold a password", where=parsed.host)
        self._url = url
        self._seconds = seconds
        self._client: httpx.AsyncClient | None = None

    async def post(self, body: bytes, headers: Mapping[str, str]) -> int:
        if self._client is None:
            self._client = httpx.AsyncClient(timeout=self._seconds, follow_redirects=False)
        try:
            # The client's limit is for each part of the answer; this one is for all of it.
            async with asyncio.timeout(self._seconds):
                return await self._status(self._client, body, headers)
        except TimeoutError as error:
            raise Unavailable(f"no answer within {self._seconds:g} s", where=self._url) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            what = str(error) or type(error).__name__
            raise Unavailable(f"the receiver does not answer: {what}", where=self._url) from error

    async def _status(self, client: httpx.AsyncClient, body: bytes, headers: Mapping[str, str]) -> int:
        async with client.stream("POST", self._url, content=body, headers=dict(headers)) as answer:
            read = 0
            # Read to its end, so that the connection can be used again.
            async for part in answer.aiter_raw():
                read += len(part)
                if read > MAX_ANSWER:
                    break
            return answer.status_code

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()
