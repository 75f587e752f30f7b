"""Counts in words, for messages that people read. Pure.

Called by whoever writes such a message. Must not be used in what a sign-off is computed from: those words are
computed again, for ever, and have to come out the same.
"""

from __future__ import annotations


def plural(count: int, one: str) -> str:
    """``1 test``, ``2 tests``; ``1 entry``, ``2 entries``."""
    many = f"{one[:-1]}ies" if one.endswith(("ry", "py")) else f"{one}s"
    return f"{count} {one if count == 1 else many}"
