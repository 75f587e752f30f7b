"""Platform: local processes, one sandbox for each instance.

Found as ``penstock.platform: processes``; runs inside the node agent. `driver` places and observes,
`images` unpacks artifacts, `instance` is one running copy, `shim` is what runs beside it in the sandbox.
"""

from penstock.adapters.processes.driver import Processes

__all__ = ["Processes"]
