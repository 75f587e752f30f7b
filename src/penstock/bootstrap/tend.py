"""The node agent's process: keeps this machine's workloads and its proxy.

Called by ``penstock node``, which `up` starts. What it keeps outlives it.
"""

from __future__ import annotations

import asyncio

from penstock.bootstrap.boundaries import around
from penstock.bootstrap.home import Home
from penstock.bootstrap.loop import log_to_stderr
from penstock.bootstrap.plugins import find, open_issuer, open_sandbox
from penstock.bootstrap.processes import reporting
from penstock.errors import Invalid
from penstock.node.agent import Agent


def tend(home: Home) -> None:
    """The node agent's process: local drivers, handed to the agent."""
    home.create()
    log_to_stderr()
    settings = home.settings
    if settings.cluster is not None:
        raise Invalid("releases run in a cluster: no node agent is needed", where=str(home.path))
    with reporting(home, "node"):
        sandbox = open_sandbox(settings.sandbox)
        platform = find("platform", "processes")(home.node / "w", home.artifacts, sandbox)
        proxy = find("router", "envoy")(home.node / "envoy", settings.ingress_port, open_issuer(home))
        router, metrics = around("Router", proxy), proxy
        agent = Agent(home.node, platform=around("Platform", platform), router=router, metrics=metrics)
        asyncio.run(agent.serve())
