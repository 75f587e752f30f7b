"""Router and Metrics: a local Envoy, configured by files (filesystem xDS).

Found as ``penstock.router: envoy``. `config` renders what Envoy reads (pure), `admin` asks it what it
does, `process` keeps it alive, `driver` moves traffic in the safe order.
"""

from penstock.adapters.envoy.driver import Envoy

__all__ = ["Envoy"]
