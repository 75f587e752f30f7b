"""Witness: asks one over HTTP to cosign a checkpoint (c2sp.org/tlog-witness).

Found as ``penstock.witness: http``. It believes nothing of an answer: whose lines they are is checked by
`ledger.witnesses`. A witness is somebody else's server: answers are bounded in time and size, and redirects
are not followed.
"""

from __future__ import annotations

import base64
import functools
import re
import ssl
from collections.abc import Sequence

import httpx

from penstock.core.notes import WitnessedSize
from penstock.errors import Invalid, Refused, Unavailable

SECONDS = 20.0
MAX_ANSWER = 64 * 1024
SIZE_TYPE = "text/x.tlog.size"
SIZE = re.compile(r"(0|[1-9][0-9]{0,17})\n")
#: What the specification's refusals mean.
REFUSALS = {
    400: "says that the request is malformed",
    403: "does not trust the key that signed the checkpoint",
    404: "does not know this log: give its operator the log's origin and key",
    409: "saw another tree of this size: two histories of this ledger exist",
    422: "does not accept the proof that the ledger only grew",
}


@functools.cache
def _trusted() -> ssl.SSLContext:
    """Whom this machine trusts: reading them takes longer than to ask a witness."""
    return httpx.create_ssl_context()


class HttpWitness:
    def __init__(self, url: str, seconds: float = SECONDS) -> None:
        """*url* is the witness's submission prefix."""
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise Invalid(f"not a URL: {error}", where=url[:100]) from error
        if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query or parsed.fragment:
            raise Invalid("a witness has an http or https URL, without query or fragment", where=url[:100])
        self._url = url.rstrip("/") + "/add-checkpoint"
        self._seconds = seconds

    async def cosign(self, old_size: int, proof: Sequence[bytes], note: str) -> str:
        lines = [f"old {old_size}", *(base64.b64encode(step).decode() for step in proof), "", note]
        async with httpx.AsyncClient(
            timeout=self._seconds, follow_redirects=False, verify=_trusted()
        ) as client:
            try:
                status, kind, text = await self._post(client, "\n".join(lines).encode())
            except (httpx.HTTPError, httpx.InvalidURL, UnicodeDecodeError) as error:
                raise Unavailable(f"the witness does not answer: {error}", where=self._url) from error
        if status == 200:
            return text
        size = SIZE.fullmatch(text) if status == 409 and kind == SIZE_TYPE else None
        if size and int(size[1]) != old_size:
            raise WitnessedSize(f"the witness last saw {size[1]} entries", int(size[1]))
        if status in REFUSALS:
            raise Refused(f"the witness {REFUSALS[status]}", where=self._url)
        raise Unavailable(f"the witness answered {status}", where=self._url)

    async def _post(self, client: httpx.AsyncClient, body: bytes) -> tuple[int, str, str]:
        """(status, content type, text), reading no more than an honest answer has."""
        headers = {"content-type": "text/plain; charset=utf-8"}
        async with client.stream("POST", self._url, content=body, headers=headers) as answer:
            raw = b""
            async for part in answer.aiter_bytes():
                raw += part
                if len(raw) > MAX_ANSWER:
                    raise Unavailable(f"the witness answered more than {MAX_ANSWER} bytes", where=self._url)
            kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
            return answer.status_code, kind, raw.decode()
