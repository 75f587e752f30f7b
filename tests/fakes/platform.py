"""Platform in memory: its workloads are scripts of one word. For tests of whatever places releases.

The last word of a command says what the workload does: ``serve`` (listen), ``fail`` (print and end with 3),
``stubborn`` (listen, and not end when told to) or ``deaf`` (never listen). Time passes by one second with
each `tend`. Must not start a process.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

from penstock.core.fence import Fence
from penstock.core.traffic import Egress
from penstock.core.workload import RECENT_SECONDS, Afterwards, Instance, Isolation, Phase, Placement, Workload
from penstock.errors import Invalid

GREETING = "hello from the workload"
MAX_CRASHES = 5


@dataclass
class _Release:
    workload: Workload
    instances: list[Instance]
    since: dict[str, float]
    said: list[str] = field(default_factory=list)
    reason: str = ""
    cut: str = ""
    ending: dict[str, str] = field(default_factory=dict)
    asked: int = 0
    later: Afterwards = ()
    told: float = 0.0
    ends: list[tuple[str, float]] = field(default_factory=list)


class FakePlatform:
    """Runs until it is stopped; *fences* keeps what every mutating call carried."""

    def __init__(self) -> None:
        self.fences: list[Fence] = []
        self.now = 0.0
        self.stopped = False
        self._releases: dict[str, _Release] = {}

    # --- Platform ------------------------------------------------------------------------------------

    async def place(self, workload: Workload, *, fence: Fence) -> Placement:
        self.fences.append(fence)
        if workload.release not in self._releases:
            found = _Release(workload, [], {})
            self._releases[workload.release] = found
            found.asked = workload.begin_with or workload.replicas
            for number in range(found.asked):
                self._start(found, str(number))
        known = self._releases[workload.release]
        for number, instance in enumerate(known.instances):
            if instance.phase is Phase.FAILED:
                known.instances[number] = replace(instance, phase=Phase.STARTING, crashes=0)
                known.since[instance.id] = self.now
        return self._placement(known)

    async def observe(self, release: str) -> Placement | None:
        found = self._releases.get(release)
        return self._placement(found) if found else None

    async def scale(self, release: str, replicas: int, *, fence: Fence, then: Afterwards = ()) -> Placement:
        self.fences.append(fence)
        placement = await self._resize(release, replicas)
        found = self._releases[release]
        if (found.asked, found.later) != (replicas, then):
            found.asked, found.later, found.told = replicas, then, self.now
        return replace(placement, asked=replicas, later=found.later)

    async def resize(self, release: str, count: int) -> Placement:
        """What the node agent asks for when load changes."""
        found = self._releases.get(release)
        least, most = (found.asked, found.workload.most) if found else (0, 0)
        return await self._resize(release, max(least, min(count, most)))

    async def _resize(self, release: str, replicas: int) -> Placement:
        found = self._releases.get(release)
        if found is None:
            raise Invalid(f"{release} is not placed; placed: {', '.join(self._releases) or 'none'}")
        while len(found.instances) < replicas:
            self._start(found, str(max((int(i.id) for i in found.instances), default=-1) + 1))
        if found.workload.command[-1:] == ("stubborn",) and found.instances[replicas:]:
            which = f"{release}: instance {', '.join(i.id for i in found.instances[replicas:])}"
            seconds = found.workload.drain_seconds
            found.cut = f"{which} was still at work {seconds:g} s after SIGTERM, and was killed"
        del found.instances[replicas:]
        return self._placement(found)

    async def remove(self, release: str, *, fence: Fence) -> None:
        self.fences.append(fence)
        self._releases.pop(release, None)

    async def logs(self, release: str, lines: int) -> tuple[str, ...]:
        found = self._releases.get(release)
        return tuple(found.said[-lines:]) if found else ()

    # --- looked after by the agent -------------------------------------------------------------------

    async def tend(self) -> None:
        if self.stopped:
            return
        self.now += 1.0
        for found in self._releases.values():
            due = [later for later in found.later if found.told + later.seconds <= self.now]
            found.asked = min([found.asked, *(later.replicas for later in due)])
            found.later = tuple(later for later in found.later if later not in due)
            found.instances = [self._tended(found, instance) for instance in found.instances]

    async def stop(self) -> None:
        self.stopped = True

    def _tended(self, found: _Release, instance: Instance) -> Instance:
        behaviour = found.workload.command[-1] if found.workload.command else "serve"
        if instance.id in found.ending:
            return self._ended(found, instance, found.ending.pop(instance.id))
        if instance.phase is not Phase.STARTING:
            return instance
        if behaviour == "fail":
            found.said.append("cannot go on")
            return self._ended(found, instance)
        if behaviour in ("serve", "stubborn"):
            return replace(instance, phase=Phase.READY)
        limit = found.workload.start_seconds
        if self.now <= found.since[instance.id] + limit:
            return instance
        found.reason = f"not ready after {limit:g} s; its output:\n{_last(found.said)}"
        return replace(instance, phase=Phase.FAILED)

    def _ended(self, found: _Release, instance: Instance, how: str = "ended with exit code 3") -> Instance:
        found.reason = f"{how}; its output:\n{_last(found.said)}"
        found.ends.append((instance.id, self.now))
        ended = replace(instance, exit_code=3, crashes=instance.crashes + 1)
        if ended.crashes >= MAX_CRASHES:
            return replace(ended, phase=Phase.FAILED)
        found.said += _greeting(found.workload)
        return replace(ended, phase=Phase.STARTING, restarts=instance.restarts + 1)

    def _start(self, found: _Release, number: str) -> None:
        address = f"unix:/fake/{found.workload.release}/{number}"
        found.instances.append(Instance(number, address, Phase.STARTING))
        found.since[number] = self.now
        found.said += _greeting(found.workload)

    def _placement(self, found: _Release) -> Placement:
        name = found.workload.release
        late = [number for number, at in found.ends if at > self.now - RECENT_SECONDS]
        return Placement(
            release=name,
            instances=tuple(replace(one, recent=late.count(one.id)) for one in found.instances),
            egress=tuple(
                Egress(callee, f"unix:/fake/{name}/out/{callee}") for callee in found.workload.calls
            ),
            isolation=Isolation.NONE,
            reason=found.reason if found.instances else found.cut,
            health_path=found.workload.health_path,
            admission=found.workload.admission,
            breakers=found.workload.breakers,
            drain_seconds=found.workload.drain_seconds,
            full=found.workload.replicas,
            asked=found.asked,
            later=found.later,
            most=found.workload.most,
            scaling=found.workload.scaling,
            protocol=found.workload.protocol,
        )

    def change(self, release: str, life: str) -> None:
        """Copies that are started from now on lead another life."""
        found = self._releases[release]
        found.workload = replace(found.workload, command=(life,))

    # --- a user --------------------------------------------------------------------------------------

    def ask(self, address: str, path: str) -> str:
        """What an instance answers: its variables. ``/crash`` ends it, ``/hang`` and ``/eat`` soon do."""
        for found in self._releases.values():
            for number, instance in enumerate(found.instances):
                if instance.address == address and instance.phase is Phase.READY:
                    if path in ("/hang", "/eat"):
                        found.ending[instance.id] = _trouble(found.workload, path)
                    if path == "/crash":
                        found.instances[number] = self._ended(found, instance)
                    return json.dumps(_environment(found.workload))
        raise ConnectionError(address)


def _greeting(workload: Workload) -> list[str]:
    token = workload.env.get("TOKEN", "")
    return [f"its token is {'***' if token in workload.secrets else token}", GREETING]


def _last(said: list[str]) -> str:
    return "\n".join(said[-20:])


def _trouble(workload: Workload, path: str) -> str:
    if path == "/eat":
        limit = workload.limits.memory_mb
        return f"out of memory: it used {limit + 1} MB, its limit is {limit} MB, and it was ended"
    asked = f"{workload.liveness.failures} times at {workload.liveness.path}"
    return f"did not answer, asked {asked}, and was ended"


def _environment(workload: Workload) -> dict[str, str]:
    urls = {f"{callee.upper().replace('-', '_')}_URL": "http://127.0.0.1:1" for callee in workload.calls}
    return {**workload.env, "HOST": "127.0.0.1", "PORT": "1", **urls}
