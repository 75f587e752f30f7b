"""Router and Metrics in memory, with the rules of a real one. For tests of whatever moves traffic.

`up` says which addresses answer; `ask` is a user's request. Must not do I/O.
"""

from __future__ import annotations

import ipaddress
from collections import Counter

from penstock.core.fence import Fence
from penstock.core.traffic import (
    PREVIEW_HEADER,
    TOKEN_HEADER,
    WHOLE,
    Backend,
    BackendState,
    Counters,
    TrafficPlan,
    TrafficState,
)
from penstock.errors import Invalid, Unavailable

TOKEN = "the-preview-token"


class FakeRouter:
    """An instance is ready if its address is in *up*. *applied* keeps every plan that changed something."""

    def __init__(self) -> None:
        self.up: set[str] = set()
        self.applied: list[TrafficPlan] = []
        self.fences: list[Fence] = []
        self.tended = 0
        self.stopped = False
        self.time = 0.0
        self._plans: dict[tuple[str, str], TrafficPlan] = {}
        self._turn = 0
        self._requests: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()

    # --- Router ------------------------------------------------------------------------------------

    async def read(self, service: str, environment: str) -> TrafficState:
        plan = self._plans.get((service, environment))
        if plan is None:
            return TrafficState(service, environment)
        return TrafficState(
            service=service,
            environment=environment,
            weights=plan.weights,
            backends=tuple(
                BackendState(backend, self._ready(backend), len(backend.addresses))
                for backend in plan.backends
            ),
            address=f"http://{service}.{environment}",
            preview_token=TOKEN,
        )

    async def apply(self, plan: TrafficPlan, *, fence: Fence) -> TrafficState:
        self.fences.append(fence)
        key = (plan.service, plan.environment)
        old = self._plans.get(key)
        if old != plan:
            self._check(plan, {weight.release for weight in old.weights} if old else set())
            self._plans[key] = plan
            self.applied.append(plan)
        return await self.read(*key)

    def _check(self, plan: TrafficPlan, had: set[str]) -> None:
        for backend in plan.backends:
            for address in (*backend.addresses, *(egress.address for egress in backend.egress)):
                _check_address(address)
        wanted = {weight.release for weight in plan.weights} - had
        unready = [b.release for b in plan.backends if b.release in wanted and not self._ready(b)]
        if unready:
            raise Unavailable(f"the proxy cannot reach {', '.join(unready)}: no traffic was moved")

    def _ready(self, backend: Backend) -> int:
        return sum(address in self.up for address in backend.addresses)

    # --- Metrics -----------------------------------------------------------------------------------

    async def counters(self, service: str, environment: str) -> tuple[Counters, ...]:
        self.time += 1.0
        plan = self._plans.get((service, environment))
        return tuple(
            Counters(b.release, self.time, "1", self._requests[b.release], self._errors[b.release])
            for b in (plan.backends if plan else ())
        )

    # --- looked after by the agent -------------------------------------------------------------------

    async def tend(self) -> None:
        self.tended += 1

    async def stop(self) -> None:
        self.stopped = True

    # --- a user --------------------------------------------------------------------------------------

    def ask(self, address: str, headers: dict[str, str], path: str = "/") -> tuple[int, str]:
        """(status, release) of one request at an ingress or egress *address*; "" if nobody answers."""
        plan = self._behind(address)
        known = {backend.release for backend in plan.backends} if plan else set()
        named = headers.get(PREVIEW_HEADER)
        if named in known and headers.get(TOKEN_HEADER) == TOKEN:
            return self._status(path), str(named)
        if plan is None or not plan.weights:
            return 503, ""
        release = self._choose(plan)
        self._requests[release] += 1
        self._errors[release] += self._status(path) >= 500
        return self._status(path), release

    def _behind(self, address: str) -> TrafficPlan | None:
        for (service, environment), plan in self._plans.items():
            if address == f"http://{service}.{environment}":
                return plan
            for egress in (egress for backend in plan.backends for egress in backend.egress):
                if egress.address == address:
                    return self._plans.get((egress.callee, environment))
        return None

    def _choose(self, plan: TrafficPlan) -> str:
        # A step that is coprime to the whole visits every thousandth once in a thousand requests.
        self._turn = (self._turn + 617) % WHOLE
        left = self._turn
        for weight in plan.weights:
            left -= weight.share
            if left < 0:
                return weight.release
        raise AssertionError("weights sum to the whole")

    @staticmethod
    def _status(path: str) -> int:
        return 500 if "err" in path else 200


def _check_address(address: str) -> None:
    if address.startswith("unix:"):
        return
    host, _, port = address.rpartition(":")
    try:
        ipaddress.ip_address(host)
        int(port)
    except ValueError as error:
        raise Invalid(f"refused: {error}", where=address) from error
