"""The fencing token that every mutating call carries. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fence:
    """A fencing token: *number* rises each time the work on *scope* changes hands.

    *scope* is ``service/environment``. *key* is the idempotency key of this one call.
    """

    scope: str
    number: int
    key: str
