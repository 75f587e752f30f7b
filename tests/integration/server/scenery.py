"""What stands in for the world in a `playhouse`: the proxy, the platform, and a builder."""

from __future__ import annotations

from pathlib import Path

from penstock.config import ServiceConfig
from penstock.core.traffic import Backend, BackendState, Counters, TrafficState, Weight
from penstock.errors import Unavailable
from penstock.ports import BuildRequest, Built


class Proxy:
    """The data plane: remembers what the engine did to it. Unavailable while it is *away*."""

    def __init__(self) -> None:
        self.states: dict[str, TrafficState] = {}
        self.away = False
        self.asked = 0

    async def read(self, service: str, environment: str) -> TrafficState:
        if self.away:
            raise Unavailable("the node agent does not answer", next_move="penstock up")
        return self.states.get(f"{service}/{environment}", TrafficState(service, environment))

    async def counters(self, service: str, environment: str) -> tuple[Counters, ...]:
        """Thirty requests a second of whoever has users, and a second for each time somebody asks."""
        self.asked += 1
        state = await self.read(service, environment)
        at, count = 1000.0 + self.asked, 30 * self.asked
        return tuple(Counters(w.release, at, "1", count, 0, {"5": count}) for w in state.weights)

    def show(self, service: str, environment: str, *weights: Weight) -> None:
        backends = tuple(BackendState(Backend(w.release, ("127.0.0.1:1",)), 1, 1) for w in weights)
        self.states[f"{service}/{environment}"] = TrafficState(
            service, environment, weights, backends, "http://127.0.0.1:8600"
        )


class Machines:
    """The platform: its instances write two lines."""

    async def logs(self, release: str, lines: int) -> tuple[str, ...]:
        return (f"{release} listens", "<script>alert('log')</script>")[-lines:]


class Anything:
    """A builder that recognises every repository; the scripted engine does the building."""

    def detect(self, tree: Path, config: ServiceConfig) -> str:
        return "anything"

    async def build(self, request: BuildRequest) -> Built:
        raise NotImplementedError
