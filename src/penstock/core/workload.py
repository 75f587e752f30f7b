"""Where a release runs: the values that cross the `Platform` and `Sandbox` ports.

Must not name a process manager or an orchestrator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from penstock.core.traffic import Backend, Egress


class Isolation(StrEnum):
    """What keeps a workload from reading other people's files. Told, never assumed."""

    BUBBLEWRAP = "bubblewrap"
    NONE = "none"


@dataclass(frozen=True)
class Workload:
    """One release to be run.

    *artifact* is the digest of an image already in the artifact store. *command* runs in the image's
    working directory with *env* plus ``PORT`` (where it must listen on 127.0.0.1) and one
    ``<CALLEE>_URL`` for each name in *calls*.
    """

    service: str
    environment: str
    release: str
    artifact: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    calls: tuple[str, ...] = ()
    health_path: str = ""
    replicas: int = 1
    start_seconds: float = 30.0


class Phase(StrEnum):
    """The life of one instance. FAILED: it ended by itself more often than restarts are allowed."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True)
class Instance:
    """One running copy. *address* as in `traffic.Backend`; *exit_code* of its last end, if any."""

    id: str
    address: str
    phase: Phase
    restarts: int = 0
    exit_code: int | None = None


@dataclass(frozen=True)
class Placement:
    """A release as the platform observes it. *reason* says why it failed, with its own last output."""

    release: str
    instances: tuple[Instance, ...]
    egress: tuple[Egress, ...] = ()
    isolation: Isolation = Isolation.NONE
    reason: str = ""
    health_path: str = ""

    @property
    def backend(self) -> Backend:
        """This placement as something that traffic can be sent to."""
        addresses = tuple(instance.address for instance in self.instances)
        return Backend(self.release, addresses, self.health_path, self.egress)

    @property
    def ready(self) -> bool:
        return bool(self.instances) and all(i.phase is Phase.READY for i in self.instances)

    @property
    def failed(self) -> bool:
        return any(i.phase is Phase.FAILED for i in self.instances)


@dataclass(frozen=True)
class Mount:
    """*source* of the host appears at *target* inside; read-only unless *writable*."""

    source: str
    target: str
    writable: bool = False


@dataclass(frozen=True)
class Step:
    """One command to run to its end in a sandbox: a build step, a test suite, a scanner.

    *argv* and *cwd* are paths as seen inside. Only *mounts* (and the system's own programs, read-only)
    can be seen. The network is off unless *network*. *seconds* bounds its whole life. *secrets* are values
    that must not appear in what is kept of its output.
    """

    argv: tuple[str, ...]
    cwd: str
    mounts: tuple[Mount, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    network: bool = False
    seconds: float = 600.0
    secrets: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class StepResult:
    """How a step ended. *tail* is the end of its merged output (at most 8,000 characters)."""

    exit_code: int
    tail: str
    seconds: float
    timed_out: bool = False
