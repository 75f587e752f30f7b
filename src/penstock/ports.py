"""Every socket that Penstock plugs something into. Read this file first.

An adapter implements one of these protocols and is found by entry-point name in the group
``penstock.<port>`` (``penstock.platform``, ``penstock.router`` …): ours like everyone's. Adapters
import only this file, ``config``, ``core`` and ``errors``; they do not know one another.

Rules that hold for every port:
 * values that cross are frozen ``core`` values; no ``dict[str, Any]``;
 * a mutating call carries a `Fence`; a lower number than one already seen for the same scope raises
   `Conflict`, and the same idempotency key twice has the effect of once;
 * errors are the five words of ``errors``; the lower library's errors do not leave the adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from penstock.config import ServiceConfig
from penstock.core.admission import Refused
from penstock.core.canary import Count
from penstock.core.canaryconfig import Metric
from penstock.core.chain import Link
from penstock.core.evidence import Statement
from penstock.core.experiment import Goal, Plan, Users, Weighed
from penstock.core.fence import Fence
from penstock.core.mesh import Issued
from penstock.core.pipeline import NO_CANARY, Canary, Detail, Intent, Looked, Measured, State
from penstock.core.policy import PolicyDocument, Rules
from penstock.core.release import Artifact, Change, EnvironmentData, Release
from penstock.core.selection import Question
from penstock.core.traffic import Counters, Led, TrafficPlan, TrafficState, Visit
from penstock.core.workload import Afterwards, Isolation, Mount, Placement, Step, StepResult, Workload


class Source(Protocol):
    """Where changes come from."""

    async def resolve(self, location: str, revision: str) -> SourceRevision:
        """The commit that *revision* ("" = the default branch's head) names at *location* (path or URL).

        Raises `Invalid` if there is no such repository or commit, `Unavailable` if it cannot be reached.
        """

    async def checkout(self, found: SourceRevision, destination: Path) -> None:
        """Write the commit's tree (no git metadata) into the empty folder *destination*."""

    async def touched(self, found: SourceRevision, path: str) -> SourceRevision:
        """The last commit, *found* or before it, that changed *path* (a file or folder from the root).

        Where branches were merged, the one that made *path* what it is: a merge that takes one side's
        version did not change it, and may so bring an older version back. `Invalid` if there is none.
        """


@dataclass(frozen=True)
class SourceRevision:
    """One commit, and what it says of itself (the claims of `core.release.Change`). *tree_digest* is the id
    of its tree, so that equal trees are known to be equal. *signing_key* is no claim but checked: the raw
    ed25519 public key, in hex, whose SSH signature this commit carries."""

    location: str
    revision: str
    tree_digest: str
    author: str
    title: str
    authored_at: str
    committed_epoch: int
    reviewers: tuple[str, ...] = ()
    work_items: tuple[str, ...] = ()
    signing_key: str = ""


#: Keeps bytes readable at the file descriptor that it returns, for a process that will inherit it.
Hand = Callable[[bytes], int]


class Sandbox(Protocol):
    """Runs other people's code. `isolation` says what it really enforces."""

    isolation: Isolation

    def enclose(self, step: Step, *, outlives_us: bool = False, hand: Hand | None = None) -> tuple[str, ...]:
        """The host command line that runs *step* inside. Nothing is started. A step ends with this
        process unless it *outlives_us*. With *hand*, the environment is not part of the command line.

        Without a real sandbox the mounts cannot be made; paths under a mount's target are then
        rewritten to its source in argv, cwd and env.
        """

    async def run(self, step: Step, log: Path) -> StepResult:
        """Run *step* to its end, appending its merged output to *log*, in the shape of `core.steplog` and
        with its secrets masked.

        A command that fails is a result, not an error. The whole process group ends with the step,
        and with this process.
        """


@dataclass(frozen=True)
class BuildRequest:
    """What to build: the checked-out *tree*, and the folder *work* for scratch files and caches.

    *epoch* is the commit's time in seconds: it is the only clock a build may see.
    """

    change: Change
    config: ServiceConfig
    tree: Path
    work: Path
    log: Path
    epoch: int
    fence: Fence | None = None


@dataclass(frozen=True)
class Built:
    """An image in the artifact store. *lock* holds the resolved dependencies by name, for the provenance."""

    digest: str
    builder: str
    isolation: Isolation
    lock: Mapping[str, str]
    network: bool


class Builder(Protocol):
    """Makes one immutable image of a source tree."""

    def detect(self, tree: Path, config: ServiceConfig) -> str | None:
        """What this builder would do with the tree, in words ("Python, Procfile"); None if nothing."""

    async def build(self, request: BuildRequest) -> Built:
        """Build the image and put it in the artifact store.

        The digest is a function of commit, resolved lock, builder, base and platform. Raises `Invalid`
        with the last lines of the log if the project's own build fails.
        """


@dataclass(frozen=True)
class Image:
    """What an artifact says of itself, covered by its digest. *contracts*: what it needs of each callee.
    *abi* is the interpreter that it needs and does not hold (``cp311``, ``node22``; "": none), *env* what
    that is given, and *platform* what it runs on (``linux/amd64``)."""

    command: tuple[str, ...]
    config: ServiceConfig
    contracts: Mapping[str, str] = field(default_factory=dict)
    abi: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    platform: str = ""


@dataclass(frozen=True)
class Surplus:
    """Images and bytes of the artifact store that nobody needs."""

    images: tuple[str, ...]
    bytes: int


class Artifacts(Protocol):
    """Reads the artifact store, and tidies it."""

    async def describe(self, artifact: str) -> Image:
        """The image with this digest; `Invalid` if the store does not have it, `Broken` if it is damaged."""

    async def prune(self, keep: Collection[str], before: float, *, dry: bool = False) -> Surplus:
        """Remove images that are not in *keep* and that nobody has put there since *before* (seconds since
        1970); with *dry*, only say which. What an image that stays shares with one that goes stays too."""


class Language(Protocol):
    """A policy language. The one port that is not async: it is arithmetic.

    It is *at_once* if what it compiles decides within milliseconds, whatever the policy and the facts: who
    must not be held up then calls it as it is. Otherwise from a thread, and never in a transaction.
    """

    at_once: bool

    def compile(self, policy: PolicyDocument) -> Rules:
        """Check and compile. Raises `Invalid` with rule, line and column."""


class Platform(Protocol):
    """Runs releases."""

    async def place(self, workload: Workload, *, fence: Fence) -> Placement:
        """Start the release if it is not there, or failed for good; return at once with what is there."""

    async def observe(self, release: str) -> Placement | None:
        """The release as it is now; None if it is not placed."""

    async def scale(self, release: str, replicas: int, *, fence: Fence, then: Afterwards = ()) -> Placement:
        """Change the number of instances; *then* is asked for later, unless something else is said meanwhile.
        `Invalid` if the release is not placed."""

    async def remove(self, release: str, *, fence: Fence) -> None:
        """Stop and forget the release. Removing one that is not there is done already."""

    async def logs(self, release: str, lines: int) -> tuple[str, ...]:
        """The last *lines* lines that its instances wrote; empty if it is not placed."""


class Images(Protocol):
    """Has artifacts where the nodes of a cluster can pull them."""

    async def publish(self, service: str, artifact: str) -> str:
        """Have the image there, byte for byte; returns the name, by digest, under which nodes pull it.

        Again, and by several at once, has the effect of once. `Invalid` if the artifact store does not have
        it, `Broken` if it is damaged, `Unavailable` or `Refused` if it cannot be sent.
        """


class Router(Protocol):
    """Moves user traffic."""

    async def read(self, service: str, environment: str) -> TrafficState:
        """What the data plane does now. `Unavailable` if it cannot be asked."""

    async def apply(self, plan: TrafficPlan, *, fence: Fence) -> TrafficState:
        """Make the data plane do *plan*, in an order that loses no request, each step confirmed.

        Returns what was read back. Raises `Invalid` if the data plane rejects it (it then keeps the
        last good configuration), `Unavailable` if it did not confirm in time.
        """


class Tended(Protocol):
    """A local driver that needs looking after: the node agent calls it several times a second."""

    async def tend(self) -> None:
        """Bring what should run back to life: adopt, restart with backoff, give up when told so."""

    async def stop(self) -> None:
        """End what runs, and remember that it should run: the next agent starts it again."""


class Metrics(Protocol):
    """Counts what users saw."""

    async def counters(self, service: str, environment: str) -> tuple[Counters, ...]:
        """Cumulative counters of each of the service's releases; a window is the difference of two."""

    async def refused(self, service: str, environment: str) -> tuple[Refused, ...]:
        """What rules of the service's have refused, before any release had it: none of it is in counters."""

    async def led(self, service: str, environment: str) -> tuple[Led, ...]:
        """Requests led to each release that it knows: by previews, and by each chain that goes there."""

    async def visits(self, service: str, environment: str, since: float) -> tuple[Visit, ...]:
        """The last that users asked for by GET after *since*, oldest first; empty if nobody can tell."""

    async def users(self, service: str, environment: str, salt: str, goal: Goal) -> Users:
        """The users of the experiment *salt* (of its plan) since this was first asked, each counted once.

        Asked before the plan is applied, it misses nobody. Asked with another salt or goal it begins anew.
        `Unavailable` if nobody can tell.
        """


class Meter(Protocol):
    """Counts bad events among events, by release: what canaries judge beside the proxy's `Metrics`."""

    async def count(self, metric: Metric, service: str, environment: str, release: str) -> Count | None:
        """What it has counted of *release* so far; None if nothing is known of it.

        `Unavailable` with what is wrong if it cannot be told (no answer, one that is no whole number from 0,
        more than there may be), `Invalid` if *metric* asks for what no such meter can count.
        """


class Issuer(Protocol):
    """Vouches for the services of this installation before its peers. It works while nothing else does: the
    node agent asks it. Not async: it is arithmetic on keys that are here."""

    @property
    def by(self) -> str:
        """Names the authority that signs now; what another one signed is to be issued anew.

        `Conflict` if its key is gone.
        """

    def issue(self, identity: str) -> Issued:
        """A new key, and a short-lived certificate that it is *identity* (a URI) for both ends of a call."""

    def trust(self) -> str:
        """The certificates (PEM) from which all that it issues follows: what a peer is given."""


@dataclass(frozen=True)
class Signature:
    """*keyid* is the SHA-256 of the raw public key, in hex."""

    keyid: str
    value: bytes


class Signer(Protocol):
    """Signs as one identity; the private key never leaves it."""

    keyid: str
    public_key: bytes

    def sign(self, payload: bytes) -> Signature:
        """Sign the exact bytes."""


class Witness(Protocol):
    """Somebody outside who saw that the ledger only ever grew, and says so under a checkpoint."""

    async def cosign(self, old_size: int, proof: Sequence[bytes], note: str) -> str:
        """Signature lines under the checkpoint in *note*; the caller checks whose they are.

        *proof* shows that its tree begins with that of *old_size* entries. `core.notes.WitnessedSize` if the
        witness last saw another size, `Refused` if it will not sign, `Unavailable` if it does not answer.
        """


class Receiver(Protocol):
    """Somebody outside who is sent messages over HTTP: a webhook's receiver, a collector of traces."""

    async def post(self, body: bytes, headers: Mapping[str, str]) -> int:
        """Send, and give back the status of the answer, whatever it is; redirects are not followed.
        `Unavailable` if no answer comes in time."""

    async def close(self) -> None:
        """Let go of connections."""


Row = tuple[object, ...]


class Transaction(Protocol):
    """One open transaction. Parameters are ``?``. Only ``ledger``, ``engine`` and ``telemetry`` write SQL."""

    async def execute(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Run one statement and return its rows."""

    async def changed(self, sql: str, parameters: Sequence[object] = ()) -> int:
        """Run one statement and return how many rows it changed."""

    async def now(self) -> float:
        """Seconds since 1970: the later of the database's clock and the last committed time. All that one
        transaction decides has one time: that of the first call."""


class Store(Protocol):
    """The one database: ledger and journal live in it together."""

    def transaction(self, *, write: bool = True) -> AbstractAsyncContextManager[Transaction]:
        """Commit on leaving the block, roll back on an error. Writers exclude one another."""

    async def migrate(self, component: str, steps: Sequence[str]) -> None:
        """Bring *component*'s tables forward; a newer schema than *steps* knows is `Conflict`."""

    async def backup(self, destination: Path) -> None:
        """A consistent copy, also while transactions run."""

    async def wake(self, seconds: float) -> None:
        """Return when somebody committed something, or after *seconds*."""

    async def close(self) -> None:
        """Release files and connections."""


class Restorer(Protocol):
    """Puts a copy that `Store.backup` made where a store of the same kind will be."""

    async def vacant(self) -> None:
        """`Conflict` if anything is there already."""

    async def restore(self, copy: Path) -> None:
        """All of it, or nothing; only where it is `vacant`."""

    async def clear(self) -> None:
        """Take away what `restore` has just put there."""


@dataclass(frozen=True)
class Task:
    """All that an action or check may know of its delivery.

    *work* is a scratch folder of the delivery, *log* the file its output belongs in. The fields that
    are None are not known yet at that stage of the pipeline. *looked* are the looks of the canary so far,
    each with the new release's share then. *waits_until* is when the gate before this stage stops waiting
    for evidence, if it waits already. *chain* are the dark releases that are tested too, *callers* the
    services that call this one, where it says who may. *variants* are the releases of an *experiment*, in its
    order; *release* is that of its stage, or the first.
    """

    delivery: str
    intent: Intent
    change: Change
    config: ServiceConfig
    fence: Fence
    work: Path
    log: Path
    source: SourceRevision | None = None
    data: EnvironmentData | None = None
    artifact: Artifact | None = None
    release: Release | None = None
    baseline: Release | None = None
    measured: Measured | None = None
    looked: tuple[tuple[int, Looked], ...] = ()
    canary: Canary = NO_CANARY
    reason: str = ""
    waits_until: float = 0.0
    chain: tuple[Link, ...] = ()
    callers: tuple[str, ...] = ()
    experiment: Plan | None = None
    variants: tuple[Release, ...] = ()
    weighed: tuple[Weighed, ...] = ()

    @property
    def secrets(self) -> tuple[str, ...]:
        """What this delivery must not show in its logs."""
        return self.data.secrets if self.data else ()

    @property
    def fresh(self) -> str:
        """The name of the fresh baseline that the canary compares with; "" if it has none."""
        return self.baseline.fresh if self.baseline and self.canary.baseline else ""

    @property
    def involved(self) -> tuple[str, ...]:
        """The names of what users may be on while it moves them: new and stable release, variants, fresh
        baseline."""
        pairs = (self.release, *self.variants, self.baseline)
        names = (*(pair.id for pair in pairs if pair), self.fresh)
        return tuple(dict.fromkeys(filter(None, names)))

    @property
    def tree(self) -> Path:
        """The checked-out commit of a code change; read-only for everybody."""
        return self.work / "tree"


@dataclass(frozen=True)
class Outcome:
    """How an intent ended: *state*, words for people, what is now evidence, and what later stages need.

    An answer that *rests_on* a question is recorded only if it would still be asked in the same way.
    """

    state: State
    reason: str = ""
    statements: tuple[Statement, ...] = ()
    detail: Detail | None = None
    rests_on: Question | None = None


@dataclass(frozen=True)
class Prepared:
    """What a command of the project's own needs beside its tree at ``/app``: to be added to its `Step`."""

    mounts: tuple[Mount, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


class Tools(Protocol):
    """What checks may use that outlives their delivery."""

    async def prepare(self, task: Task) -> Prepared:
        """The project's dependencies and those of its tests, installed; no network if they are known.

        Raises `Invalid` with the last lines of the log if they cannot be resolved or installed.
        """

    def cache(self, name: str) -> Path:
        """A folder for a tool of the platform's own (never for code of the change), kept for next time."""


class Performer(Protocol):
    """An action or a check. Its keyword-only parameters are its powers: the engine injects those ports
    by name, and no others."""

    async def __call__(self, task: Task, /, **powers: object) -> Outcome:
        """Do it. Idempotent: it is called again if nobody could record that it was done."""
