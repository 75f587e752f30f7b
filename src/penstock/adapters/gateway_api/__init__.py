"""Traffic by the Kubernetes Gateway API: one HTTPRoute (v1) for each service.

`rendering` makes a route of a plan, `reading` tells what a route does, `driver` writes it and waits until the
gateway has confirmed it. Found by the entry point ``penstock.router``: ``gateway-api``.
"""

from penstock.adapters.gateway_api.driver import GatewayApi
from penstock.adapters.gateway_api.rendering import Attached

__all__ = ["Attached", "GatewayApi"]
