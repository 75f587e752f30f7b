"""Where a release runs: the values that cross the `Platform` and `Sandbox` ports.

Must not name a process manager or an orchestrator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from penstock.core.admission import ANYBODY, NO_BREAKERS, Admission, Breakers
from penstock.core.fence import Fence
from penstock.core.traffic import HTTP1, AppProtocol, Backend, Egress
from penstock.core.variables import NUL, check_variable
from penstock.errors import Invalid


class Isolation(StrEnum):
    """What keeps a workload from reading other people's files. Told, never assumed."""

    BUBBLEWRAP = "bubblewrap"
    CONTAINER = "container"
    NONE = "none"


@dataclass(frozen=True)
class Liveness:
    """How an instance that runs and does no work is found out. Without a *path*, that its process lives is
    enough.

    It is asked there every *every* seconds once it is ready, and ended and started again when *failures*
    answers in a row were 500 or above, or did not come within *timeout* seconds.
    """

    path: str = ""
    every: float = 5.0
    timeout: float = 2.0
    failures: int = 3


#: Nobody waits longer than this, in seconds, for what is in flight.
MOST_DRAIN = 300.0

#: The default: whatever runs is taken to live.
PROCESS_LIVES = Liveness()


@dataclass(frozen=True)
class Limits:
    """What one instance, with all that it starts, may use; 0 is no limit.

    *open_files* is for each process.
    """

    memory_mb: int = 0
    cpus: float = 0.0
    open_files: int = 0


NO_LIMITS = Limits()


@dataclass(frozen=True)
class Scaling:
    """How load sets the number of copies: more while each has more than *in_flight* requests of users, or all
    of them together use more than *cpu* percent of the processor time that their limit gives them, up to
    *most*; fewer where those would have done for *idle_seconds*. 0 or None: not by that. Which of the two a
    platform goes by is its own matter, and what it does not go by is advisory.
    """

    most: int = 0
    in_flight: int = 0
    #: What is None is not written down: a release of Penstock that does not know it reads the rest.
    cpu: int | None = None
    idle_seconds: float = 60.0


NO_SCALING = Scaling()


@dataclass(frozen=True)
class Later:
    """*seconds* after it was said, at most *replicas* copies are asked for any more."""

    replicas: int
    seconds: float


#: In the order of their times.
Afterwards = tuple[Later, ...]


@dataclass(frozen=True)
class Workload:
    """One release to be run.

    *artifact* is the digest of an image already in the artifact store. *command* runs in the image's
    working directory with *env* plus ``HOST`` and ``PORT`` (where it must listen) and one
    ``<CALLEE>_URL`` for each name in *calls*. An instance that is to end gets SIGTERM, *drain_seconds* for
    what is in flight, and then SIGKILL. *secrets* are values that must not be shown in what it writes.
    *admission* and *breakers* are handed on to the proxy.
    *replicas* is for all users; *begin_with* is how many are started first (0: all of them).
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
    liveness: Liveness = PROCESS_LIVES
    drain_seconds: float = 30.0
    limits: Limits = NO_LIMITS
    protocol: AppProtocol = HTTP1
    secrets: tuple[str, ...] = field(default=(), repr=False)
    admission: Admission = ANYBODY
    breakers: Breakers = NO_BREAKERS
    begin_with: int = 0
    scaling: Scaling = NO_SCALING

    @property
    def most(self) -> int:
        """More copies than this are never run."""
        return max(self.replicas, self.scaling.most)


class Phase(StrEnum):
    """The life of one instance. FAILED: it ended by itself more often than restarts are allowed."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True)
class Instance:
    """One running copy. *address* as in `traffic.Backend`; *exit_code* of its last end, if any.

    *crashes* counts its ends in a row, until it has been ready for a while; *recent* those of the last
    `RECENT_SECONDS`, whatever came in between.
    """

    id: str
    address: str
    phase: Phase
    restarts: int = 0
    exit_code: int | None = None
    crashes: int = 0
    recent: int = 0


#: So many ends in a row, or of late, are no accident, whether or not it comes back each time.
CRASH_LOOP = 3
RECENT_SECONDS = 60.0


@dataclass(frozen=True)
class Placement:
    """A release as the platform observes it. *reason* says why it failed, with its own last output.

    *advisory* names what was declared and does nothing here: limits, measures of load. *full* is the number
    of copies for all users, *asked* how many there must be now, and *later* what will be asked for; load may
    add more, up to *most*. *base* is the image that holds the interpreter, where that is another than the
    artifact's. *lacks*: what *reason* tells of is wanting around it (room, a node): no word on the release.
    """

    release: str
    instances: tuple[Instance, ...]
    egress: tuple[Egress, ...] = ()
    isolation: Isolation = Isolation.NONE
    reason: str = ""
    health_path: str = ""
    advisory: tuple[str, ...] = ()
    drain_seconds: float = 0.0
    admission: Admission = ANYBODY
    breakers: Breakers = NO_BREAKERS
    full: int = 1
    asked: int = 1
    later: Afterwards = ()
    most: int = 1
    scaling: Scaling = NO_SCALING
    protocol: AppProtocol = HTTP1
    base: str = ""
    #: What is None is not written down: a node agent of an older release does not know it.
    lacks: bool | None = None

    @property
    def backend(self) -> Backend:
        """This placement as something that traffic can be sent to."""
        return Backend(
            self.release,
            tuple(instance.address for instance in self.instances),
            self.health_path,
            self.egress,
            drain_seconds=self.drain_seconds,
            admission=self.admission,
            breakers=self.breakers,
            elastic=self.elastic,
            protocol=self.protocol,
        )

    @property
    def elastic(self) -> bool:
        """Whether the number of its copies may change while it has users."""
        return self.most > 1

    @property
    def floor(self) -> int:
        """The fewest copies that are asked for, now or later."""
        return min((self.asked, *(later.replicas for later in self.later)))

    @property
    def able(self) -> int:
        """How many copies are ready."""
        return sum(instance.phase is Phase.READY for instance in self.instances)

    @property
    def ready(self) -> bool:
        return bool(self.instances) and all(i.phase is Phase.READY for i in self.instances)

    @property
    def failed(self) -> bool:
        return any(i.phase is Phase.FAILED for i in self.instances)

    @property
    def crash_looping(self) -> bool:
        """Whether it ends again and again: no time will make it a release for users."""
        return self.failed or any(max(i.crashes, i.recent) >= CRASH_LOOP for i in self.instances)

    @property
    def ended(self) -> str:
        """How it last ended by itself, with its own last output; "" if it never did."""
        restless = any(instance.restarts or instance.crashes for instance in self.instances)
        return f"{self.release} ended by itself: {self.reason}" if restless else ""

    @property
    def unrest(self) -> str:
        """That it keeps ending, as short as for a table; "" if it does not."""
        if not self.crash_looping:
            return ""
        worst = max(self.instances, key=lambda one: (max(one.recent, one.crashes), one.recent))
        how = "" if worst.exit_code is None else f"exit {worst.exit_code}, "
        if worst.recent < worst.crashes:  # it is started again ever later
            return f"keeps ending: {how}{worst.crashes} times in a row"
        times = "once" if worst.recent == 1 else f"{worst.recent} times"
        return f"keeps ending: {how}{times} in the last minute"

    @property
    def verdict(self) -> str:
        """Why this can be no release for users, with its own last output; "" if nothing says so."""
        if not self.crash_looping:
            return ""
        most = max(instance.restarts for instance in self.instances)
        return f"{self.release} keeps ending ({most} restarts of one instance): {self.reason}"


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
    that must not appear in what is kept of its output. *fence* is that of the work it belongs to: where a
    step could outlive who began it, nobody with a lower one puts a step in its place. *environment* is that
    whose releases it asks, "" if it asks none: it must be run where it can reach them. `Invalid` for words
    that no process can be given: a sandbox that is told its settings with NUL between them would take the
    rest of such a word for a setting.
    """

    argv: tuple[str, ...]
    cwd: str
    mounts: tuple[Mount, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    network: bool = False
    seconds: float = 600.0
    secrets: tuple[str, ...] = field(default=(), repr=False)
    fence: Fence | None = None
    environment: str = ""

    def __post_init__(self) -> None:
        for name, value in self.env.items():
            check_variable(name, value)
        for word in (*self.argv, self.cwd, *(part for m in self.mounts for part in (m.source, m.target))):
            if NUL in word:
                raise Invalid("a command cannot hold NUL", where=word.replace(NUL, "\\0")[:80])


@dataclass(frozen=True)
class StepResult:
    """How a step ended. *tail* is the end of its merged output (at most 8,000 characters)."""

    exit_code: int
    tail: str
    seconds: float
    timed_out: bool = False
