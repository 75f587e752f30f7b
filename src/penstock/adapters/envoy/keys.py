"""The secrets of one Envoy: what opens its dark releases, and what keeps a call in its chain.

Called by the driver and by `routes`, which writes them into what Envoy matches. Pure.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass


@dataclass(frozen=True)
class Keys:
    """Secrets of one Envoy, all made from one."""

    secret: str

    def preview(self, route: str) -> str:
        """Opens the dark releases of one service, and of no other."""
        return self._of(f"preview {route}")

    def chain(self, caller: str) -> str:
        """A member of W3C baggage: whoever forwards it stays in the chain of *caller*."""
        return f"penstock-chain={caller}.{self._of(f'chain {caller}')}"

    def _of(self, purpose: str) -> str:
        return hmac.new(self.secret.encode(), purpose.encode(), hashlib.sha256).hexdigest()[:40]
