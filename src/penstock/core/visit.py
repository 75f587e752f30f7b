"""One request of a user, as far as the data plane tells what it was. Crosses the `Metrics` port."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Visit:
    """A user asked for *path* by GET, at *at* (seconds since 1970): neither the query, nor who it was."""

    at: float
    path: str
