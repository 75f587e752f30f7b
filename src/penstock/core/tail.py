"""The end of a long output, for people: bounded, whole lines where it can be. Pure."""

from __future__ import annotations

LIMIT = 8000


def tail(data: bytes, limit: int = LIMIT) -> str:
    """The last *limit* characters of some output; undecodable bytes are shown, not dropped."""
    text = data[-4 * limit :].decode(errors="replace")
    if len(text) <= limit:
        return text
    cut = text[-limit:]
    return cut.partition("\n")[2] or cut
