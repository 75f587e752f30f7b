"""One service on a real node agent, and deliveries' actions upon it. Used by `benchmarks/switching.py`.

Everything is real but three things: nobody decides (`switching` calls the actions one after another), the
image is `fakes.image`'s with a server of its own, and what describes it reads nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from fakes.image import put_image
from penstock.bootstrap.home import Home, Settings
from penstock.config import ServiceConfig
from penstock.core.fence import Fence
from penstock.core.pipeline import Intent, State
from penstock.core.release import Artifact, Change, EnvironmentData, Release
from penstock.core.traffic import TrafficState
from penstock.errors import Unavailable
from penstock.node.client import NodeClient, NodeMetrics, NodePlatform, NodeRouter
from penstock.ports import Image, Outcome, Task

SERVICE, ENVIRONMENT = "web", "bench"
#: Keeps connections, as servers do; answers /slow after a while; ends at once when it is told to, as many do.
SERVER = """
import http.server, os, time

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        if self.path.startswith("/slow"):
            time.sleep(0.3)
        self.send_response(200)
        self.send_header("content-length", "3")
        self.end_headers()
        self.wfile.write(b"ok\\n")

    def log_message(self, *words):
        pass

http.server.ThreadingHTTPServer.request_queue_size = 256
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
COMMAND = ("python3", "-c", SERVER)


class OneImage:
    """Artifacts with one image in it."""

    async def describe(self, artifact: str) -> Image:
        return Image(COMMAND, ServiceConfig(SERVICE, health="/health"))


@dataclass
class Street:
    home: Home
    artifact: str
    client: NodeClient
    made: int = 0
    calls: int = 0
    platform: NodePlatform = field(init=False)
    router: NodeRouter = field(init=False)
    metrics: NodeMetrics = field(init=False)
    artifacts: OneImage = field(default_factory=OneImage)

    def __post_init__(self) -> None:
        self.platform = NodePlatform(self.client)
        self.router = NodeRouter(self.client)
        self.metrics = NodeMetrics(self.client)

    def task(self, baseline: Release | None) -> Task:
        """A delivery of the next release, to where *baseline* serves."""
        self.made += 1
        data = EnvironmentData(SERVICE, ENVIRONMENT, {"NUMBER": self.made})
        return Task(
            delivery=f"web-{self.made}",
            intent=Intent("", ""),
            change=Change("code", SERVICE, ENVIRONMENT, "/repo", "1" * 40, "ada", "A change"),
            config=ServiceConfig(SERVICE),
            fence=Fence(f"{SERVICE}/{ENVIRONMENT}", 1, ""),
            work=self.home.work,
            log=self.home.logs / "log",
            data=data,
            artifact=Artifact(SERVICE, self.artifact),
            release=Release(SERVICE, ENVIRONMENT, self.artifact, data.digest),
            baseline=baseline,
        )

    def told(self, task: Task, verb: str, share: int = 0) -> Task:
        """The same delivery at one of its steps."""
        self.calls += 1
        fence = replace(task.fence, key=f"{task.delivery}/{verb}/{self.calls}")
        return replace(task, fence=fence, intent=Intent(verb, verb, 0, share))

    async def state(self) -> TrafficState:
        return await self.router.read(SERVICE, ENVIRONMENT)

    @property
    def access_log(self) -> Path:
        return self.home.node / "envoy" / "access.log"


def succeeded(outcome: Outcome) -> Outcome:
    assert outcome.state is State.SUCCESS, outcome.reason
    return outcome


@contextlib.asynccontextmanager
async def street(home: Home, ingress_port: int) -> AsyncIterator[Street]:
    """A node agent in a process of its own, with nothing on it; ended with all it runs."""
    home.create()
    home.keep(Settings(ingress_port=ingress_port))
    environment = {**os.environ, "PENSTOCK_HOME": str(home.path)}
    with (home.logs / "node.log").open("wb") as log:
        agent = subprocess.Popen(
            [sys.executable, "-m", "penstock.cli.main", "node"], env=environment, stdout=log, stderr=log
        )
    client = NodeClient(home.node_socket)
    try:
        await _answering(client, agent)
        yield Street(home, put_image(home.artifacts, COMMAND), client)
    finally:
        with contextlib.suppress(Unavailable):
            await client.stop_everything()
        agent.terminate()
        await asyncio.to_thread(agent.wait, 30)


async def _answering(client: NodeClient, agent: subprocess.Popen[bytes]) -> None:
    router = NodeRouter(client)
    async with asyncio.timeout(30):
        while agent.poll() is None:
            with contextlib.suppress(Unavailable):
                await router.read(SERVICE, ENVIRONMENT)
                return
            await asyncio.sleep(0.05)
    raise SystemExit("the node agent did not start")
