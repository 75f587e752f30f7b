"""What stands in for the world in a `playhouse`: the proxy, the platform, and a builder."""

from __future__ import annotations

from pathlib import Path

from penstock.config import ServiceConfig
from penstock.core.traffic import Backend, BackendState, Counters, TrafficState, Weight
from penstock.core.workload import Placement
from penstock.errors import Unavailable
from penstock.ports import BuildRequest, Built


class Proxy:
    """The data plane: remembers what the engine did to it. Unavailable while it is *away*."""

    def __init__(self) -> None:
        self.states: dict[str, TrafficState] = {}
        self.away = False
        self.asked = 0
        #: Seconds from one time that somebody asks to the next, and requests in each of them.
        self.every, self.rate = 1.0, 30.0

    async def read(self, service: str, environment: str) -> TrafficState:
        if self.away:
            raise Unavailable("the node agent does not answer", next_move="penstock up")
        return self.states.get(f"{service}/{environment}", TrafficState(service, environment))

    async def counters(self, service: str, environment: str) -> tuple[Counters, ...]:
        """Whoever has users has had as many as the others, and time goes by as often as somebody asks."""
        self.asked += 1
        state = await self.read(service, environment)
        passed = self.every * self.asked
        at, count = 1000.0 + passed, round(self.rate * passed)
        counts = {b.release: count if state.share(b.release) else 0 for b in state.backends}
        return tuple(Counters(release, at, "1", n, 0, {"5": n}) for release, n in counts.items())

    def show(self, service: str, environment: str, *weights: Weight, dark: str = "") -> None:
        """Users are there, and nobody is on the *dark* release."""
        names = [weight.release for weight in weights] + [dark] * bool(dark)
        backends = tuple(BackendState(Backend(name, ("127.0.0.1:1",)), 1, 1) for name in names)
        self.states[f"{service}/{environment}"] = TrafficState(
            service, environment, weights, backends, "http://127.0.0.1:8600"
        )


class Machines:
    """The platform: its instances write two lines; nothing is known of them but what a test says."""

    def __init__(self) -> None:
        self.placed: dict[str, Placement] = {}

    async def logs(self, release: str, lines: int) -> tuple[str, ...]:
        return (f"{release} listens", "<script>alert('log')</script>")[-lines:]

    async def observe(self, release: str) -> Placement | None:
        return self.placed.get(release)


class Anything:
    """A builder that recognises every repository; the scripted engine does the building."""

    def detect(self, tree: Path, config: ServiceConfig) -> str:
        return "anything"

    async def build(self, request: BuildRequest) -> Built:
        raise NotImplementedError
