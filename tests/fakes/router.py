"""Router and Metrics in memory, with the rules of a real one. For tests of whatever moves traffic.

`up` says which addresses answer; `ask` is a user's request, `held` how many a release has not answered yet,
and `seen` is what reached each release. Must not do I/O, nor know the time: what a rate lets in comes back
with the next plan.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, defaultdict, deque

from penstock.core.admission import Refused, RuleName
from penstock.core.experiment import Goal, Seen, Users
from penstock.core.fence import Fence
from penstock.core.traffic import (
    COPY_HEADER,
    MIRROR_HEADER,
    PREVIEW_COOKIE,
    PREVIEW_HEADER,
    TOKEN_HEADER,
    WHOLE,
    Backend,
    BackendState,
    Counters,
    Led,
    Rule,
    TrafficPlan,
    TrafficState,
    Visit,
    sticky_cookie,
)
from penstock.errors import Invalid, Unavailable

TOKEN = "the-preview-token"


class FakeRouter:
    """An instance is ready if its address is in *up*. *applied* keeps every plan that changed something,
    *served* how often each address was asked, and *active* says what is in flight there."""

    def __init__(self) -> None:
        self.up: set[str] = set()
        #: What somebody else has made of a plan.
        self.meddled: dict[tuple[str, str], TrafficPlan] = {}
        self.applied: list[TrafficPlan] = []
        self.fences: list[Fence] = []
        self.tended = 0
        self.stopped = False
        self.time = 0.0
        self._plans: dict[tuple[str, str], TrafficPlan] = {}
        self.seen: dict[str, deque[str]] = defaultdict(lambda: deque(maxlen=100))
        self.served: Counter[str] = Counter()
        self.active: Counter[str] = Counter()
        self._turn = 0
        self._copies = 0
        self._requests: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._visits: dict[tuple[str, str], list[Visit]] = defaultdict(list)
        self._folds: dict[tuple[str, str], tuple[str, Goal, dict[str, tuple[str, bool]]]] = {}
        self._refused: Counter[str] = Counter()
        self._tokens: Counter[tuple[str, str]] = Counter()
        self._turned_away: dict[tuple[str, str], Counter[RuleName]] = defaultdict(Counter)
        self.held: Counter[str] = Counter()
        self._led: Counter[tuple[str, str]] = Counter()

    # --- Router ------------------------------------------------------------------------------------

    async def read(self, service: str, environment: str) -> TrafficState:
        wanted = self._plans.get((service, environment))
        if wanted is None:
            return TrafficState(service, environment)
        plan = self.meddled.get((service, environment), wanted)
        return TrafficState(
            service=service,
            environment=environment,
            weights=plan.weights,
            backends=tuple(self._state(backend) for backend in plan.backends),
            address=f"http://{service}.{environment}",
            preview_token=f"{TOKEN}-{service}",
            rules=plan.rules,
            sticky=plan.sticky,
            mirror=plan.mirror,
            handling=plan.handling,
            admission=plan.admission,
            asked=None if plan == wanted else wanted,
        )

    async def apply(self, plan: TrafficPlan, *, fence: Fence) -> TrafficState:
        self.fences.append(fence)
        key = (plan.service, plan.environment)
        old = self._plans.get(key)
        if self.meddled.pop(key, old) != plan:
            self._check(plan, old.serving if old else frozenset())
            self._plans[key] = plan
            self._tokens[key] = plan.admission.burst
            self.applied.append(plan)
        return await self.read(*key)

    def _check(self, plan: TrafficPlan, had: frozenset[str]) -> None:
        for backend in plan.backends:
            for address in (*backend.addresses, *(egress.address for egress in backend.egress)):
                _check_address(address)
        wanted = plan.serving - had
        unready = [b.release for b in plan.backends if b.release in wanted and not self._ready(b)]
        if unready:
            raise Unavailable(f"the proxy cannot reach {', '.join(unready)}: no traffic was moved")

    def _state(self, backend: Backend) -> BackendState:
        active = sum(self.active[address] for address in (*backend.addresses, *backend.draining))
        busy = tuple(address for address in backend.draining if self.active[address])
        return BackendState(backend, self._ready(backend), len(backend.addresses), active, busy)

    def _ready(self, backend: Backend) -> int:
        return sum(address in self.up for address in backend.addresses)

    # --- Metrics -----------------------------------------------------------------------------------

    async def counters(self, service: str, environment: str) -> tuple[Counters, ...]:
        self.time += 1.0
        plan = self._plans.get((service, environment))
        return tuple(
            Counters(
                b.release,
                self.time,
                "1",
                self._requests[b.release],
                self._errors[b.release],
                refused=self._refused[b.release] or None,
            )
            for b in (plan.backends if plan else ())
        )

    async def visits(self, service: str, environment: str, since: float) -> tuple[Visit, ...]:
        return tuple(visit for visit in self._visits[service, environment] if visit.at > since)

    async def users(self, service: str, environment: str, salt: str, goal: Goal) -> Users:
        key = (service, environment)
        if self._folds.get(key, ("", None))[:2] != (salt, goal):
            self._folds[key] = (salt, goal, {})
        known = list(self._folds[key][2].values())
        self.time += 1.0
        releases = {release: [met for first, met in known if first == release] for release, _ in known}
        seen = {release: Seen(len(met), sum(met)) for release, met in releases.items()}
        return Users(self.time, salt, seen)

    def _count(
        self, plan: TrafficPlan, cookies: dict[str, str], release: str, request: tuple[str, int]
    ) -> None:
        """Who keeps his place, by GET."""
        salt, goal, known = self._folds.get((plan.service, plan.environment), ("", None, {}))
        ticket = cookies.get(sticky_cookie(plan.sticky)) if plan.sticky == salt else None
        if goal is not None and ticket is not None:
            first, met = known.get(ticket, (release, False))
            known[ticket] = (first, met or goal.met("GET", *request))

    async def refused(self, service: str, environment: str) -> tuple[Refused, ...]:
        counted = sorted(self._turned_away[service, environment].items())
        return tuple(Refused(rule, count) for rule, count in counted)

    async def led(self, service: str, environment: str) -> tuple[Led, ...]:
        plan = self._plans.get((service, environment))
        known = [backend.release for backend in plan.backends] if plan else []
        callers = [backend for other in self._plans.values() for backend in other.backends]
        ways = [(release, "") for release in known]
        ways += [(target, c.release) for c in callers for target in c.chain if target in known]
        return tuple(Led(release, "1", self._led[release, caller], caller) for release, caller in ways)

    # --- looked after by the agent -------------------------------------------------------------------

    async def tend(self) -> None:
        self.tended += 1

    async def stop(self) -> None:
        self.stopped = True

    # --- a user --------------------------------------------------------------------------------------

    def ask(self, address: str, headers: dict[str, str], path: str = "/") -> tuple[int, str, dict[str, str]]:
        """(status, release, new cookies) of one request at an ingress or egress *address*; "" if nobody
        answers."""
        given = {name.lower(): value for name, value in headers.items()}
        given.setdefault("host", address)
        found = self._egress_at(address)
        if found is None:
            calling, plan = "", self._ingress_at(address)
            given.pop(MIRROR_HEADER, None)
        else:
            calling, caller, plan = found
            if plan is not None and not (plan.admission.allows(calling) or _chained(caller, plan)):
                self._turned_away[plan.service, plan.environment]["callers"] += 1
                return 403, "", {}
            if caller.chain:
                given["baggage"] = ",".join(filter(None, (given.get("baggage"), _chain(caller.release))))
        if plan is None:
            return 503, "", {}
        dark, led_by = self._dark(plan, given)
        self._led[dark, led_by] += bool(dark)
        if dark and given.pop(COPY_HEADER, None) is not None:
            given |= _marked(given)
        if dark or not plan.weights:
            return (self._reach(dark, given, path), dark, {}) if dark else (503, "", {})
        refused = self._not_admitted(plan, calling)
        return (refused, "", {}) if refused else self._serve(plan, given, path)

    def _serve(self, plan: TrafficPlan, given: dict[str, str], path: str) -> tuple[int, str, dict[str, str]]:
        release, cookies = self._choose(plan, given, path)
        self._copy(plan, given)
        most = next(b.breakers.requests for b in plan.backends if b.release == release)
        if most and self.held[release] >= most:
            self._refused[release] += 1
            return 503, release, cookies
        status = self._reach(release, given, path)
        self._requests[release] += 1
        self._errors[release] += status >= 500
        self._count(plan, _cookies(given) | cookies, release, (path.partition("?")[0], status))
        self.time += 0.001
        self._visits[plan.service, plan.environment].append(Visit(self.time, path.partition("?")[0]))
        return status, release, cookies

    def _not_admitted(self, plan: TrafficPlan, calling: str) -> int:
        """The status that refuses a request to the live release; 0 if it gets in."""
        key = (plan.service, plan.environment)
        self._tokens[key] -= 1
        private = not (calling or plan.admission.public)
        if not private and not (plan.admission.per_second and self._tokens[key] < 0):
            return 0
        self._turned_away[key]["public" if private else "rate"] += 1
        return 403 if private else 429

    def _ingress_at(self, address: str) -> TrafficPlan | None:
        known = {f"http://{s}.{e}": (s, e) for s, e in self._plans}
        name = known.get(address)
        return self.meddled.get(name, self._plans[name]) if name else None

    def _egress_at(self, address: str) -> tuple[str, Backend, TrafficPlan | None] | None:
        """The service and the release that call here, and what they call."""
        for (service, environment), plan in self._plans.items():
            for backend in plan.backends:
                for egress in backend.egress:
                    if egress.address == address:
                        key = (egress.callee, environment)
                        return service, backend, self.meddled.get(key, self._plans.get(key))
        return None

    def _dark(self, plan: TrafficPlan, given: dict[str, str]) -> tuple[str, str]:
        """The dark release that this request may see, and names; or that the chain of a caller leads to."""
        token, cookies = f"{TOKEN}-{plan.service}", _cookies(given)
        for backend in plan.backends:
            release = backend.release
            on_host = given["host"].lower().startswith(f"{release}.preview.")
            named = given.get(PREVIEW_HEADER) == release or on_host
            if named and given.get(TOKEN_HEADER) == token:
                return release, ""
            if on_host and cookies.get(PREVIEW_COOKIE) == token:
                return release, ""
        known = {backend.release for backend in plan.backends}
        for caller in (caller for other in self._plans.values() for caller in other.backends):
            for target in caller.chain:
                if target in known and _chain(caller.release) in given.get("baggage", ""):
                    return target, caller.release
        return "", ""

    def _choose(self, plan: TrafficPlan, given: dict[str, str], path: str) -> tuple[str, dict[str, str]]:
        weights = next((r.weights for r in plan.rules if _matches(r, given, path)), plan.weights)
        # A step that is coprime to the whole visits every thousandth once in a thousand requests.
        self._turn += 617
        ticket, cookies = str(self._turn), dict[str, str]()
        if plan.sticky:
            name = sticky_cookie(plan.sticky)
            ticket = _cookies(given).get(name, ticket)
            cookies = {} if name in _cookies(given) else {name: ticket}
        left = int(ticket) % WHOLE
        for weight in weights:
            left -= weight.share
            if left < 0:
                return weight.release, cookies
        raise AssertionError("weights sum to the whole")

    def _copy(self, plan: TrafficPlan, given: dict[str, str]) -> None:
        marked = MIRROR_HEADER in given or f"{MIRROR_HEADER}=1" in given.get("baggage", "")
        if plan.mirror is None or marked:
            return
        self._copies += plan.mirror.share
        if self._copies >= WHOLE:
            self._copies -= WHOLE
            self._reach(plan.mirror.release, {**given, **_marked(given)}, "/")

    def _reach(self, release: str, given: dict[str, str], path: str) -> int:
        lines = (f"{name}: {value}" for name, value in given.items() if name != TOKEN_HEADER)
        self.seen[release].append("\r\n".join((path, *lines)).lower())
        backends = (known for plan in self._plans.values() for known in plan.backends)
        known = next((backend for backend in backends if backend.release == release), None)
        ready = [address for address in known.addresses if address in self.up] if known else []
        if ready:
            self.served[ready[self._turn % len(ready)]] += 1
        return self._status(path)

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


def _marked(given: dict[str, str]) -> dict[str, str]:
    """The marks of a copy."""
    baggage = ",".join(filter(None, (given.get("baggage"), f"{MIRROR_HEADER}=1")))
    return {MIRROR_HEADER: "1", "baggage": baggage}


def _chained(caller: Backend, plan: TrafficPlan) -> bool:
    return any(backend.release in caller.chain for backend in plan.backends)


def _chain(caller: str) -> str:
    return f"penstock-chain={caller}.{TOKEN}"


def _cookies(given: dict[str, str]) -> dict[str, str]:
    pairs = (pair.strip().partition("=") for pair in given.get("cookie", "").split(";"))
    return {name: value for name, _, value in pairs}


def _matches(rule: Rule, given: dict[str, str], path: str) -> bool:
    cookies = _cookies(given)
    return (
        (not rule.path or f"{path}/".startswith(f"{rule.path}/"))
        and all(given.get(header.name.lower()) == header.value for header in rule.headers)
        and all(cookies.get(cookie.name) == cookie.value for cookie in rule.cookies)
    )
