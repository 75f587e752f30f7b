"""Who sees which release: the values that cross the `Router` and `Metrics` ports.

Shares are whole thousandths (0.1%), so that equality is exact. Must not name a proxy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from penstock.core.admission import ANYBODY, NO_BREAKERS, Admission, Breakers
from penstock.core.counters import Counters as Counters
from penstock.core.counters import Led as Led
from penstock.core.mesh import Export, Remote
from penstock.core.visit import Visit as Visit
from penstock.errors import Invalid

WHOLE = 1000
#: Seconds that an answer may take to begin, or be silent, at most.
LONGEST = 3600

#: What a service speaks: HTTP/1.1, HTTP/2 without TLS, or gRPC over that.
AppProtocol = Literal["http/1.1", "h2c", "grpc"]
HTTP1: AppProtocol = "http/1.1"
HTTP2: tuple[AppProtocol, ...] = ("h2c", "grpc")


def thousandths(per_cent: float) -> int:
    """A share as people write it (per cent) in the unit that crosses ports."""
    return round(per_cent * WHOLE / 100)


@dataclass(frozen=True)
class Weight:
    """*share* thousandths of a service's user traffic go to the release with id *release*."""

    release: str
    share: int


@dataclass(frozen=True)
class Egress:
    """Where calls of one release to the service *callee* enter the proxy.

    *address* is ``unix:/path`` or ``127.0.0.1:port``; it is this caller's own, so the listener
    tells who calls. With *remote* they go to a peer's service of that name, and never to one of ours.
    """

    callee: str
    address: str
    remote: Remote | None = None


@dataclass(frozen=True)
class Backend:
    """One release that the proxy can reach.

    *addresses* are ``unix:/path`` or ``host:port``, one per instance. *health_path* is requested by the proxy
    itself to prove that it can reach the instance; "" means that connecting does. Before its addresses go,
    what it has is waited for, for *drain_seconds* at most. Users and callers need not know its *protocol*.
    *chain* names dark releases of other services that are tested together with this one while it is dark
    too: its calls to those services go to them. *admission* and *export* hold for the service while this is
    its live release: whom it lets in, and which services of peers may call; *breakers* hold for this release,
    dark or not; *handling* holds once it has everybody (None: what held before goes on). The addresses of
    one that is *elastic* come and go while it serves, and its counts go on; those *draining* get nothing new,
    and are known until what they have is answered.
    """

    release: str
    addresses: tuple[str, ...]
    health_path: str = ""
    egress: tuple[Egress, ...] = ()
    chain: tuple[str, ...] = ()
    drain_seconds: float = 0.0
    export: Export | None = None
    admission: Admission = ANYBODY
    breakers: Breakers = NO_BREAKERS
    elastic: bool = False
    draining: tuple[str, ...] = ()
    protocol: AppProtocol = HTTP1
    handling: Handling | None = None


@dataclass(frozen=True)
class Field:
    """A header or cookie of a request, whose value is exactly *value*."""

    name: str
    value: str


@dataclass(frozen=True)
class Rule:
    """Users whose request has all of it go where *weights* say, before those of the plan are asked.

    *path* is a prefix that ends at a slash or with the path: ``/shop`` is not a prefix of ``/shopping``.
    """

    weights: tuple[Weight, ...]
    path: str = ""
    headers: tuple[Field, ...] = ()
    cookies: tuple[Field, ...] = ()

    def check(self, where: str) -> None:
        """Raise `Invalid` if no proxy could tell such requests apart."""
        if not (self.path or self.headers or self.cookies):
            raise Invalid("a rule that matches everything", where=where, next_move="use weights instead")
        if self.path and not re.fullmatch(r"(/[A-Za-z0-9._~!$&'()*+,=:@%-]+)+", self.path):
            raise Invalid(f"{self.path!r} is no path prefix such as /shop or /shop/beta", where=where)
        for field_ in (*self.headers, *self.cookies):
            if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", field_.name):
                raise Invalid(f"{field_.name!r} is no name of a header or cookie", where=where)
            if not re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]{0,198}[\x21-\x7e])?", field_.value):
                raise Invalid(f"the value of {field_.name} is not 1 to 200 printable characters", where=where)
        for cookie in self.cookies:
            if not re.fullmatch(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]+", cookie.value):
                raise Invalid(f"the value of {cookie.name} cannot be in a cookie", where=where)
        for header in self.headers:
            if header.name.lower().startswith("penstock-"):
                raise Invalid(f"{header.name} is a header of Penstock's own", where=where)


@dataclass(frozen=True)
class Mirror:
    """A copy of *share* thousandths of user requests goes to the dark *release*; its answers are ignored.

    The copy carries `MIRROR_HEADER`, and is never copied again.
    """

    release: str
    share: int


@dataclass(frozen=True)
class Handling:
    """How long an answer may take to begin, and how often a request that no instance has seen is sent again.

    An answer that has begun goes on (a stream of events, a WebSocket, a gRPC call) until *idle_seconds* go by
    in which neither side sends anything.
    """

    timeout_seconds: float = 15.0
    retries: int = 2
    idle_seconds: float = 300.0

    def check(self, where: str) -> None:
        """Raise `Invalid` if it has no end."""
        seconds = (self.timeout_seconds, self.idle_seconds)
        if not (all(0 < each <= LONGEST for each in seconds) and 0 <= self.retries <= 10):
            raise Invalid(f"timeouts above 0 s, up to {LONGEST}, and 0 to 10 retries", where=where)


@dataclass(frozen=True)
class TrafficPlan:
    """All that one service wants of the proxy in one environment.

    Every backend is reachable by the preview route (`preview_host`, or headers `PREVIEW_HEADER` and
    `TOKEN_HEADER`); only those with a weight see users. *weights* is empty (nobody is served yet) or sums
    to `WHOLE`; users move from the first to the last. *rules* are asked before them, in order. *sticky* is
    the salt of an experiment: while it stays the same a user moves at most once as the last weight rises.
    """

    service: str
    environment: str
    backends: tuple[Backend, ...]
    weights: tuple[Weight, ...]
    rules: tuple[Rule, ...] = ()
    sticky: str = ""
    mirror: Mirror | None = None
    handling: Handling = Handling()

    def __post_init__(self) -> None:
        self._check_weights(self.weights)
        for rule in self.rules:
            self._check_weights(rule.weights)
            rule.check(self.service)
            if not rule.weights:
                raise Invalid("a rule without weights", where=self.service)
        served = self.serving
        if not self.weights and (self.rules or self.sticky or self.mirror):
            raise Invalid("rules, an experiment or a mirror, where nobody is served", where=self.service)
        if self.sticky and not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,99}", self.sticky):
            raise Invalid(f"{self.sticky!r} cannot be the salt of an experiment", where=self.service)
        if self.mirror is not None:
            self._check_share(Weight(self.mirror.release, self.mirror.share))
            if self.mirror.release in served:
                raise Invalid(f"a mirror to {self.mirror.release}, which has users", where=self.service)
        for backend in self.backends:
            backend.admission.check(backend.release)
            backend.breakers.check(backend.release)
            if backend.chain and backend.release in served:
                what = f"{backend.release} has users, so its calls cannot go to dark releases"
                raise Invalid(what, where=self.service)
        for handling in (self.handling, *(b.handling for b in self.backends if b.handling)):
            handling.check(self.service)

    @property
    def serving(self) -> frozenset[str]:
        """Releases that some user may meet."""
        return served_by(self.weights, self.rules)

    @property
    def admission(self) -> Admission:
        """Whom the live release lets in: the one that users move away from, while they move."""
        return self._live.admission if self._live else ANYBODY

    @property
    def export(self) -> Export | None:
        """Who of the peers may call: what the live release says."""
        return self._live.export if self._live else None

    @property
    def _live(self) -> Backend | None:
        live = self.weights[0].release if self.weights else ""
        return next((backend for backend in self.backends if backend.release == live), None)

    def _check_weights(self, weights: tuple[Weight, ...]) -> None:
        for weight in weights:
            self._check_share(weight)
        if weights and sum(weight.share for weight in weights) != WHOLE:
            raise Invalid(f"shares must sum to {WHOLE} thousandths", where=self.service)

    def _check_share(self, weight: Weight) -> None:
        if weight.release not in {backend.release for backend in self.backends}:
            raise Invalid(f"traffic for {weight.release}, which has no backend", where=self.service)
        if not 0 < weight.share <= WHOLE:
            raise Invalid(f"share {weight.share} is not within 1..{WHOLE}", where=weight.release)


def served_by(weights: tuple[Weight, ...], rules: tuple[Rule, ...]) -> frozenset[str]:
    """Releases that some user may meet."""
    ruled = (weight for rule in rules for weight in rule.weights)
    return frozenset(weight.release for weight in (*weights, *ruled))


#: A request that carries both headers goes to the dark release it names, whatever the weights say.
PREVIEW_HEADER = "penstock-release"
TOKEN_HEADER = "penstock-preview-token"
#: In a browser: the token as a cookie, on the release's own host name.
PREVIEW_COOKIE = "penstock-preview"
#: Carried by the copy of a request that goes to a mirror.
MIRROR_HEADER = "penstock-mirror"
#: Beside the preview headers: the request is the copy of a user's, and goes on with the marks of one.
COPY_HEADER = "penstock-copy"


def preview_host(release: str) -> str:
    """The host name at which *release* is seen, given the token. Browsers take it for this machine."""
    return f"{release}.preview.localhost"


def sticky_cookie(salt: str) -> str:
    """The name of the cookie that keeps a user where he is during one experiment."""
    return f"penstock-ab-{salt}"


@dataclass(frozen=True)
class BackendState:
    """A backend as the data plane has it: *ready* of *total* instances answer its health checks.

    *active* requests of users are in flight, some of them at the *busy* ones among those that drain.
    """

    backend: Backend
    ready: int
    total: int
    active: int = field(default=0, compare=False)
    busy: tuple[str, ...] = field(default=(), compare=False)

    @property
    def release(self) -> str:
        return self.backend.release


@dataclass(frozen=True)
class TrafficState:
    """What the data plane does now for one service, read back from it (never from our own files).

    *address* is the base URL at which users reach the service; *preview_token* opens the preview
    route. Both are empty while the data plane does not know the service. *reach* is where whoever checks it
    finds the data plane, with the host of *address*; "" if users find it there too. *asked* is the plan that
    was applied last, where that is not what the data plane does: every plan made of this one puts it right.
    *foreign* says, in words, what else is not ours there: who changed what that no plan could ask for.
    """

    service: str
    environment: str
    weights: tuple[Weight, ...] = ()
    backends: tuple[BackendState, ...] = ()
    address: str = ""
    preview_token: str = ""
    rules: tuple[Rule, ...] = ()
    sticky: str = ""
    mirror: Mirror | None = None
    handling: Handling = Handling()
    admission: Admission = ANYBODY
    asked: TrafficPlan | None = None
    foreign: str = ""
    reach: str = ""

    @property
    def plan(self) -> TrafficPlan:
        """The plan that changes nothing, but puts right what has drifted."""
        known, of = tuple(self._meant(found.backend) for found in self.backends), self.asked or self
        rest = (of.rules, of.sticky, of.mirror, of.handling)
        return TrafficPlan(self.service, self.environment, known, of.weights, *rest)

    def _meant(self, backend: Backend) -> Backend:
        """The backend with the breakers that were asked for."""
        for asked in self.asked.backends if self.asked else ():
            if asked.release == backend.release:
                return replace(backend, breakers=asked.breakers)
        return backend

    @property
    def drift(self) -> str:
        """In what this is not what was asked for; "" if in nothing."""
        if self.asked is None:
            return ""
        said = []
        if self.weights != self.asked.weights:
            said.append(f"users on {in_words(self.weights)} instead of {in_words(self.asked.weights)}")
        for name in ("rules", "sticky", "mirror", "handling", "admission"):
            if (found := getattr(self, name)) != getattr(self.asked, name):
                said.append(f"{name}: {found or 'none'}")
        for known, meant in zip(self.backends, self.plan.backends, strict=True):
            if known.backend.breakers != meant.breakers:
                said.append(f"breakers of {known.release}: {known.backend.breakers}")
        said += [self.foreign] if self.foreign else []
        return "; ".join(said)

    def share(self, release: str) -> int:
        """Thousandths of user traffic that *release* takes; 0 if none."""
        return sum(weight.share for weight in self.weights if weight.release == release)

    def ready(self, release: str) -> bool:
        """Whether every instance of *release* is proven ready (and there is at least one)."""
        found = [backend for backend in self.backends if backend.release == release]
        return bool(found) and found[0].total > 0 and found[0].ready == found[0].total

    def proven(self, release: str) -> int:
        """How many instances of *release* the data plane has proven ready."""
        return sum(known.ready for known in self.backends if known.release == release)

    def exposing(self, backend: Backend) -> TrafficPlan:
        """The plan that makes *backend* known (or brings it up to date) and moves nobody."""
        others = tuple(b for b in self.plan.backends if b.release != backend.release)
        return replace(self.plan, backends=(*others, backend))

    def shifting(self, *weights: Weight) -> TrafficPlan:
        """The plan that moves users and changes nothing else. Weights of zero are left out.

        What only a dark release has, its mirror and its chain, ends where it gets users.
        """
        kept = tuple(weight for weight in weights if weight.share)
        if not kept:
            return replace(self.plan, weights=(), rules=(), sticky="", mirror=None)
        plan = self.plan
        served = served_by(kept, plan.rules)
        mirror = plan.mirror if plan.mirror and plan.mirror.release not in served else None
        known = tuple(replace(b, chain=()) if b.release in served else b for b in plan.backends)
        return replace(plan, backends=known, weights=kept, mirror=mirror)

    def settling(self, release: str = "") -> TrafficPlan:
        """The plan that ends every experiment: all users to *release*, in its own way, or nobody served."""
        plan = self.shifting(*([Weight(release, WHOLE)] if release else []))
        own = next((b.handling for b in plan.backends if b.release == release), None)
        return replace(plan, rules=(), sticky="", mirror=None, handling=own or plan.handling)

    def without(self, *releases: str) -> TrafficPlan:
        """The plan that forgets backends; `Invalid` if one of them still has users."""
        left = tuple(b for b in self.plan.backends if b.release not in releases)
        mirror = self.plan.mirror
        kept = mirror if mirror and mirror.release not in releases else None
        return replace(self.plan, backends=left, mirror=kept)


def in_words(weights: Iterable[Weight]) -> str:
    """Shares as people write them; "none" for nobody."""
    return ", ".join(f"{weight.release} {weight.share / 10:g}%" for weight in weights) or "none"
