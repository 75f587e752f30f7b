"""Traffic by Istio: a VirtualService for each service, and a DestinationRule for a release that has limits.

`rendering` makes them of a plan, `reading` tells what a VirtualService does, `driver` writes. Found by the
entry point ``penstock.router``: ``istio``.
"""

from penstock.adapters.istio.driver import Istio
from penstock.adapters.istio.rendering import Meshed

__all__ = ["Istio", "Meshed"]
