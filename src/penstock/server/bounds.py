"""Bounds what may be asked where no token is: how large it may be, and how often.

Wraps what an API server may ask (`app.create_admission_app`). Whoever reaches that port may try a digest and
learn whether it is signed off, and nothing else. What that costs is bounded for each address, so that one
which asks too much does not silence the others.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from penstock.errors import Invalid, PenstockError, Unavailable
from penstock.server.podimages import MOST_BYTES

#: Requests a second from one address; and, after a quiet moment, at once.
PER_SECOND, BURST = 200.0, 400.0
#: So many addresses are kept apart.
MOST_ADDRESSES = 1024


class Bounds:
    """ASGI middleware. *clock* is in seconds."""

    def __init__(self, app: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._clock = clock
        #: By address: what may be asked at once, and when that was so.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        if b"transfer-encoding" in headers or not length.isdigit() or int(length[:20]) > MOST_BYTES:
            error = Invalid(f"a request body has a Content-Length of at most {MOST_BYTES} bytes")
            await _answer(send, 413, error)
        elif not self._may(str((scope.get("client") or ("?",))[0])):
            await _answer(send, 429, Unavailable(f"more than {PER_SECOND:.0f} requests a second"))
        else:
            await self._app(scope, receive, send)

    def _may(self, address: str) -> bool:
        now = self._clock()
        left, since = self._left.pop(address, (BURST, now))
        left = min(BURST, left + (now - since) * PER_SECOND)
        self._left[address] = (max(0.0, left - 1), now)
        if len(self._left) > MOST_ADDRESSES:
            self._left.popitem(last=False)
        return left >= 1


async def _answer(send: Any, status: int, error: PenstockError) -> None:
    headers = [(b"content-type", b"application/problem+json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(error.to_wire()).encode()})
