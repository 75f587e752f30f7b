"""Metrics: what users saw of each release, from a Prometheus that has Istio's standard metrics.

Found as ``penstock.metrics: istio``; of use with each router that an Istio carries out. Which releases there
are, the router says. Counted is what proxies report as ``source`` (they are the clients of what they lead
to), and so no copies for a mirror: those, Istio counts at their destination alone. Nor are previews counted:
routers lead them to a Service of their own, and only the release's is asked for.

One query answers for all releases and one moment. A reading is as old as the last scrape, and says so: *at*
is the time of the oldest of the proxies' last scrapes, so an unchanged one is known as such. *epoch* changes
with the set of proxies and with the start of each. Where anything is doubtful (a proxy that is not scraped,
or of which nobody says when it began) nothing is counted at all. Must not know how users are led.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from penstock.adapters._prometheus import FAR, SECONDS, Server, SetBy, data_of, whole
from penstock.core.admission import Refused
from penstock.core.experiment import Goal, Users
from penstock.core.traffic import Counters, Led, Visit
from penstock.errors import Unavailable
from penstock.ports import Router

REQUESTS, LATENCY = "istio_requests_total", "istio_request_duration_milliseconds_bucket"
#: The agent's, which begins and ends with its proxy; only the agent's own page (port 15020) has it.
STARTED = "istio_agent_process_start_time_seconds"
#: A scrape that is older, in seconds, is no reading any more.
OLDEST = 120.0
#: For so long a proxy whose scrapes fail is missed; after that it is taken for gone.
MISSED = "15m"
#: The user left before there was an answer, so there is none to count.
NO_ANSWER = "0"
#: Among Envoy's flags: a limit of the release's was reached, and the proxy answered itself.
OVERFLOW = "UO"
#: Statuses by which a gRPC server says that it failed, and not whoever asked: UNKNOWN, DEADLINE_EXCEEDED,
#: UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
GRPC_FAILED = frozenset(("2", "4", "12", "13", "14", "15"))

SET_BY = SetBy("metrics.prometheus", "metrics.token_file in the file given to --cluster")
SCRAPE = "docs/guides/istio.md, Counting users, says what Prometheus has to scrape"

#: A scrape target: job and instance.
Target = tuple[str, str]


class IstioMetrics:
    """*router* knows the releases, which are Services in *namespace*. *proxies* narrows down who counts, by
    labels as PromQL writes them (``source_workload="public-istio"``); "" is every proxy that leads there."""

    def __init__(
        self,
        url: str,
        router: Router,
        namespace: str,
        *,
        token: Path | None = None,
        proxies: str = "",
        seconds: float = SECONDS,
    ) -> None:
        self._server = Server(url, token, seconds, set_by=SET_BY)
        self._router = router
        asked = f'reporter="source",destination_service_namespace={json.dumps(namespace)}'
        self._selected = f"{asked},{proxies}" if proxies else asked
        self._namespace = namespace

    async def counters(self, service: str, environment: str) -> tuple[Counters, ...]:
        """Of each release that the router knows. `Unavailable` if any of it cannot be told."""
        state = await self._router.read(service, environment)
        releases = tuple(backend.release for backend in state.backends)
        if not releases:
            return ()
        body = await self._server.ask(query(self._selected, releases))
        return counters_of(body, releases, self._server.name, self._namespace)

    async def refused(self, service: str, environment: str) -> tuple[Refused, ...]:
        """Nothing: routers in a cluster refuse a plan with rules that refuse."""
        return ()

    async def led(self, service: str, environment: str) -> tuple[Led, ...]:
        """Nothing: Istio does not say by which way a request came."""
        return ()

    async def visits(self, service: str, environment: str, since: float) -> tuple[Visit, ...]:
        """Nobody can tell: Istio counts requests, and keeps none."""
        return ()

    async def users(self, service: str, environment: str, salt: str, goal: Goal) -> Users:
        """Nobody can tell: Istio counts requests, and not who they are of."""
        what = "Istio's metrics do not tell users apart"
        raise Unavailable(what, where=self._server.name, next_move="experiments need the router envoy")

    async def check(self) -> None:
        """Raise what keeps everybody from being counted: a server that does not answer, or is none of
        Prometheus's. Whether it scrapes the right proxies is seen once there are requests."""
        try:
            data_of(await self._server.ask("vector(1)"), self._server.name)
        except Unavailable as error:
            raise Unavailable(
                f"the Prometheus that is to count users cannot be used: {error.what}",
                where=error.where,
                next_move=error.next_move or f"{SET_BY.url} in the file given to --cluster",
            ) from error

    async def close(self) -> None:
        """Let go of connections."""
        await self._server.close()


# --- the question ----------------------------------------------------------------------------------------


def query(selected: str, releases: Sequence[str]) -> str:
    """All there is to know, as one vector: each part of it says in the label ``is`` what it is."""
    mine = f"{selected},destination_service_name=~{json.dumps('|'.join(releases))}"
    answered = f'{mine},response_code!="{NO_ANSWER}",response_flags!~"(.*,)?{OVERFLOW}(,.*)?"'
    labels = "destination_service_name, response_code, grpc_response_status, response_flags"
    mates = f"and on (job, instance) {REQUESTS}{{{selected}}}"
    missed = f"and on (job, instance) last_over_time({REQUESTS}{{{selected}}}[{MISSED}])"
    parts = {
        "requests": f"sum by ({labels}) ({REQUESTS}{{{mine}}})",
        "latency": f"sum by (destination_service_name, le) ({LATENCY}{{{answered}}})",
        "proxy": f"count by (job, instance) ({REQUESTS}{{{selected}}})",
        "scraped": f"max by (job, instance) (timestamp({STARTED}) {mates})",
        "started": f"max by (job, instance) ({STARTED} {mates})",
        "missed": f"max by (job, instance) (up == 0 {missed})",
    }
    return " or ".join(f'label_replace({part}, "is", "{name}", "", "")' for name, part in parts.items())


# --- the answer ------------------------------------------------------------------------------------------


@dataclass
class _Counted:
    requests: int = 0
    errors: int = 0
    refused: int = 0
    latency: dict[str, int] = field(default_factory=dict)

    def add(self, labels: Mapping[str, str], count: int) -> None:
        if labels.get("response_code") == NO_ANSWER:
            return
        if OVERFLOW in labels.get("response_flags", "").split(","):
            self.refused += count
            return
        self.requests += count
        failed = labels.get("response_code", "").startswith("5")
        if failed or labels.get("grpc_response_status", "") in GRPC_FAILED:
            self.errors += count


@dataclass
class _Told:
    """What an answer says, by release and by scrape target; *now* is the server's clock."""

    counted: dict[str, _Counted]
    now: float = 0.0
    proxies: set[Target] = field(default_factory=set)
    missed: set[Target] = field(default_factory=set)
    scraped: dict[Target, float] = field(default_factory=dict)
    started: dict[Target, float] = field(default_factory=dict)


def counters_of(body: bytes, releases: Sequence[str], where: str, namespace: str) -> tuple[Counters, ...]:
    """The counters in an answer to `query`. `Unavailable` with what is wrong with it."""
    told = _told(body, releases, where)
    _check(told, where, namespace)
    at = min(told.scraped.values())
    histograms = any(counted.latency for counted in told.counted.values())
    untimed = not histograms and any(counted.requests for counted in told.counted.values())
    epoch = _epoch(told.started, untimed)
    bounds = {bound for counted in told.counted.values() for bound in counted.latency}
    found = []
    for release, counted in told.counted.items():
        if histograms and counted.requests and not counted.latency:
            raise Unavailable(f"requests of {release}, and no {LATENCY} of them", where=where)
        latency = counted.latency or dict.fromkeys(bounds, 0)
        numbers = (counted.requests, counted.errors, latency, counted.refused or None)
        found.append(Counters(release, at, epoch, *numbers))
    return tuple(found)


def _told(body: bytes, releases: Sequence[str], where: str) -> _Told:
    data = data_of(body, where)
    if data.get("resultType") != "vector" or not isinstance(data.get("result"), list):
        raise Unavailable("an answer that is no instant vector", where=where)
    told = _Told({release: _Counted() for release in releases})
    seen: set[tuple[tuple[str, str], ...]] = set()
    for sample in data["result"]:
        match sample:
            case {"metric": dict(labels), "value": [int() | float() as now, str() as text]} if (
                _are_texts(labels) and abs(now) < FAR
            ):
                _add(told, labels, text, where)
                told.now = float(now)
            case _:
                raise Unavailable("an answer without labels, a time and a value", where=where)
        key = tuple(sorted(labels.items()))
        if key in seen:
            raise Unavailable("the same series twice", where=where)
        seen.add(key)
    return told


def _are_texts(labels: Mapping[object, object]) -> bool:
    return all(isinstance(value, str) for value in labels.values())


def _add(told: _Told, labels: Mapping[str, str], text: str, where: str) -> None:
    target = (labels.get("job", ""), labels.get("instance", ""))
    part = labels.get("is")
    if part in ("requests", "latency"):
        counted = told.counted.get(labels.get("destination_service_name", ""))
        if counted is None:
            raise Unavailable("counts of a release that nobody asked for", where=where)
        if part == "requests":
            counted.add(labels, whole(text, where))
        else:
            counted.latency[_bound(labels.get("le", ""), where)] = whole(text, where)
    elif part == "proxy":
        told.proxies.add(target)
    elif part == "missed":
        told.missed.add(target)
    elif part in ("scraped", "started"):
        of = told.scraped if part == "scraped" else told.started
        of[target] = _moment(text, where)
    else:
        raise Unavailable(f"an answer with a part that nobody asked for: {part}", where=where)


def _check(told: _Told, where: str, namespace: str) -> None:
    """Whether what is there is all there is to count, and fresh."""
    if told.missed:
        raise Unavailable(f"it cannot scrape {_names(told.missed)}", where=where, next_move=SCRAPE)
    if not told.proxies:
        what = f"it has no {REQUESTS} of requests to namespace {namespace}"
        raise Unavailable(what, where=where, next_move=SCRAPE)
    if unknown := told.proxies - (told.started.keys() & told.scraped.keys()):
        what = f"nobody says since when {_names(unknown)} counts: it has no {STARTED}"
        raise Unavailable(what, where=where, next_move=SCRAPE)
    twice = {target for target in told.started for other in told.started if _same(target, other, told)}
    if twice:
        what = f"it scrapes one proxy more than once: {_names(twice)}"
        raise Unavailable(what, where=where, next_move="each has one job, at port 15020")
    oldest = min(told.scraped, key=lambda target: told.scraped[target])
    if told.now - told.scraped[oldest] > OLDEST:
        old = told.now - told.scraped[oldest]
        raise Unavailable(f"it scraped {_names([oldest])} {old:.0f} s ago, and not since", where=where)


def _same(one: Target, other: Target, told: _Told) -> bool:
    """Two targets at one host that began in the same moment are one process."""
    hosts = {target[1].rpartition(":")[0] for target in (one, other)}
    return one != other and len(hosts) == 1 and told.started[one] == told.started[other]


def _epoch(started: Mapping[Target, float], untimed: bool) -> str:
    """What counts, and since when. Where histograms come or go, what was slow before is not known after."""
    what = sorted((*target, repr(start)) for target, start in started.items())
    return hashlib.sha256(json.dumps([what, untimed]).encode()).hexdigest()[:16]


def _names(targets: Iterable[Target]) -> str:
    return ", ".join(sorted(instance or job for job, instance in targets)[:3])


def _moment(text: str, where: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise Unavailable(f"a time of {text[:20]}", where=where)
    return found


def _bound(text: str, where: str) -> str:
    """An upper bound in milliseconds, always written in the same way."""
    try:
        found = math.inf if text == "+Inf" else float(text)
    except ValueError:
        found = math.nan
    if math.isnan(found):
        raise Unavailable(f"a latency bound of {text[:20]!r}", where=where)
    return "+Inf" if math.isinf(found) else f"{found:.12g}"
