"""How much of something may be going on at once: for everybody together, or for each who asks.

Called by `guard` for event streams, which last as long as their readers want, and by the API for what takes
a processor for itself. Must not let anybody wait: who gets none is told so at once.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator


class Slots:
    """*most* at once for each name that is given."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: Counter[str] = Counter()

    @contextlib.contextmanager
    def one(self, name: str = "") -> Iterator[bool]:
        """A slot for as long as the block runs; False if there is none left."""
        if self._taken[name] >= self._most:
            yield False
            return
        self._taken[name] += 1
        try:
            yield True
        finally:
            self._taken[name] -= 1
            if not self._taken[name]:
                del self._taken[name]
