"""Counts of user requests over time: a row for each service and minute, folded into hours, then pruned.

Called by the sampler (which adds), by `standing` (which reads) and by bootstrap (which migrates). The only
writer of these tables. They are no facts: whoever deletes them loses history, and nothing else.

The data plane's counters only rise, per release and epoch. What is kept is the difference of two readings:
 * a release that the last reading did not have began since, and so did one in a new epoch: all that it
   counted is new. What it had counted between that reading and the end of its old epoch is lost;
 * the first reading of a service is where counting begins: nothing before it is known;
 * a difference is spread evenly over the time since the last reading. Where that is longer than `GAP`, nobody
   read meanwhile (the control plane was down), and the time is kept as a gap.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from penstock.analysis.budget import Bucket, Watched
from penstock.analysis.readings import latency as latency_of
from penstock.core.codec import decode, encode
from penstock.core.objectives import Objective
from penstock.core.traffic import Counters
from penstock.ports import Row, Store, Transaction

SCHEMA = (
    """
    CREATE TABLE traffic (
        service TEXT NOT NULL, environment TEXT NOT NULL, start INTEGER NOT NULL, seconds INTEGER NOT NULL,
        requests INTEGER NOT NULL, errors INTEGER NOT NULL, latency TEXT NOT NULL,
        PRIMARY KEY (service, environment, seconds, start));
    CREATE TABLE readings (
        service TEXT NOT NULL, environment TEXT NOT NULL, since REAL NOT NULL, at REAL NOT NULL,
        counters TEXT NOT NULL,
        PRIMARY KEY (service, environment));
    CREATE TABLE gaps (
        service TEXT NOT NULL, environment TEXT NOT NULL, since REAL NOT NULL, until REAL NOT NULL,
        PRIMARY KEY (service, environment, since))
    """,
)

MINUTE, HOUR = 60, 3600
#: Minutes are kept for so many seconds, then whole hours.
MINUTES_FOR = 2 * 86400.0
#: Hours are kept for so many seconds: the longest window, and a week to look back.
HOURS_FOR = 97 * 86400.0
#: No reading for so many seconds is a gap.
GAP = 180.0
#: A difference is spread over at most so many rows: of a longer gap, each stands for more than a minute.
MOST_ROWS = 120

#: A service and its environment.
Place = tuple[str, str]


@dataclass(frozen=True)
class Reading:
    """What the counters said *at* a time; *since* is when the service was read first."""

    since: float
    at: float
    counters: tuple[Counters, ...]


@dataclass(frozen=True)
class Difference:
    """What was counted between two readings. *latency*: upper bound (ms) → requests at or under it."""

    requests: int = 0
    errors: int = 0
    latency: Mapping[float, int] = field(default_factory=dict)


async def migrate(store: Store) -> None:
    await store.migrate("telemetry", SCHEMA)


# --- adding ----------------------------------------------------------------------------------------------


async def last_read(tx: Transaction) -> dict[Place, float]:
    """When each service was read last."""
    rows = await tx.execute("SELECT service, environment, at FROM readings")
    return {(str(service), str(environment)): float(str(at)) for service, environment, at in rows}


async def add(tx: Transaction, place: Place, seen: float, now: float, counters: tuple[Counters, ...]) -> bool:
    """Keep a reading, and what it adds to the last one, which was *seen* to be at that time (0: none).

    False, and nothing is kept, if somebody else has kept one meanwhile: two that read at once count once.
    """
    last = await _reading(tx, place)
    if (last.at if last else 0.0) != seen or now <= seen:
        return False
    if last is not None:
        await _spread(tx, place, difference(last.counters, counters), last.at, now)
        if now - last.at > GAP:
            await tx.execute("INSERT INTO gaps VALUES (?, ?, ?, ?)", (*place, last.at, now))
    await tx.execute(
        "INSERT INTO readings (service, environment, since, at, counters) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (service, environment) DO UPDATE SET at = excluded.at, counters = excluded.counters",
        (*place, last.since if last else now, now, json.dumps(encode(counters))),
    )
    return True


def difference(before: Sequence[Counters], after: Sequence[Counters]) -> Difference:
    """What was counted between two readings. A counter that ran backwards within its epoch adds nothing."""
    known = {counters.release: counters for counters in before}
    requests = errors = 0
    latency: dict[float, int] = {}
    for now in after:
        then = known.get(now.release)
        if then is None or then.epoch != now.epoch:
            then = Counters(now.release, now.at, now.epoch, 0, 0)
        known_then = latency_of(then)
        bounds = {bound: n - known_then.get(bound, 0) for bound, n in latency_of(now).items()}
        counts = (now.requests - then.requests, now.errors - then.errors, *bounds.values())
        if min(counts) < 0:
            continue
        requests, errors = requests + counts[0], errors + counts[1]
        for bound, n in bounds.items():
            latency[bound] = latency.get(bound, 0) + n
    return Difference(requests, errors, latency)


async def _spread(tx: Transaction, place: Place, what: Difference, since: float, until: float) -> None:
    if not (what.requests or what.errors):
        return
    first, last = int(since) // MINUTE, max(int(since), int(until) - 1) // MINUTE
    step = math.ceil((last - first + 1) / MOST_ROWS)
    minutes = range(first, last + 1, step)
    for number, minute in enumerate(minutes):
        part = _part(what, number, len(minutes))
        if part.requests or part.errors:
            await _keep(tx, place, minute * MINUTE, MINUTE, part)


def _part(what: Difference, number: int, of: int) -> Difference:
    """One of equal parts, in whole numbers that sum to the whole."""

    def share(n: int) -> int:
        return n * (number + 1) // of - n * number // of

    latency = {bound: share(n) for bound, n in what.latency.items()}
    return Difference(share(what.requests), share(what.errors), latency)


async def _keep(tx: Transaction, place: Place, start: int, seconds: int, what: Difference) -> None:
    rows = await tx.execute(
        "SELECT requests, errors, latency FROM traffic "
        "WHERE service = ? AND environment = ? AND start = ? AND seconds = ?",
        (*place, start, seconds),
    )
    whole = _sum([what, *(_difference(row) for row in rows)])
    await tx.execute(
        "INSERT INTO traffic VALUES (?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (service, environment, seconds, start) DO UPDATE "
        "SET requests = excluded.requests, errors = excluded.errors, latency = excluded.latency",
        (*place, start, seconds, whole.requests, whole.errors, _text(whole.latency)),
    )


# --- reading ---------------------------------------------------------------------------------------------


async def buckets(tx: Transaction, place: Place, objective: Objective, since: float) -> tuple[Bucket, ...]:
    """What was counted of a service from *since* on, oldest first, as an objective sees it."""
    latency = "latency" if objective.within_ms else "'{}'"  # most of a row, and of the time to read it
    rows = await tx.execute(
        f"SELECT start, seconds, requests, errors, {latency} FROM traffic "
        "WHERE service = ? AND environment = ? AND seconds IN (?, ?) AND start > ? ORDER BY start",
        (*place, MINUTE, HOUR, since - HOUR),
    )
    return tuple(
        Bucket(float(str(start)), float(str(seconds)), found.requests, _bad(found, objective))
        for start, seconds, *counted in rows
        for found in [_difference(counted)]
    )


def _bad(found: Difference, objective: Objective) -> int:
    """Latency is known up to bounds: the nearest at or under the objective's own counts."""
    if not objective.within_ms:
        return found.errors
    good = max((n for bound, n in found.latency.items() if bound <= objective.within_ms), default=0)
    return found.requests - good


async def watched(tx: Transaction, place: Place, since: float) -> Watched:
    """When a service was read, and for how long nobody did, from *since* on."""
    last = await _reading(tx, place)
    if last is None:
        return Watched()
    rows = await tx.execute(
        "SELECT since, until FROM gaps WHERE service = ? AND environment = ? AND until > ?", (*place, since)
    )
    spans = (float(str(until)) - max(since, float(str(began))) for began, until in rows)
    return Watched(last.since, last.at, sum(spans))


async def _reading(tx: Transaction, place: Place) -> Reading | None:
    rows = await tx.execute(
        "SELECT since, at, counters FROM readings WHERE service = ? AND environment = ?", place
    )
    if not rows:
        return None
    since, at, counters = rows[0]
    return Reading(float(str(since)), float(str(at)), decode(tuple[Counters, ...], json.loads(str(counters))))


# --- upkeep ----------------------------------------------------------------------------------------------


async def upkeep(tx: Transaction, place: Place, now: float) -> None:
    """Fold a service's minutes of whole hours of long ago, and forget what no window reaches."""
    before = int(now - MINUTES_FOR) // HOUR * HOUR
    rows = await tx.execute(
        "SELECT start, requests, errors, latency FROM traffic "
        "WHERE service = ? AND environment = ? AND seconds = ? AND start < ?",
        (*place, MINUTE, before),
    )
    hours: dict[int, list[Difference]] = {}
    for start, *counted in rows:
        hours.setdefault(int(str(start)) // HOUR * HOUR, []).append(_difference(counted))
    for hour, found in hours.items():
        await _keep(tx, place, hour, HOUR, _sum(found))
    old = "DELETE FROM traffic WHERE service = ? AND environment = ? AND seconds = ? AND start < ?"
    if rows:
        await tx.execute(old, (*place, MINUTE, before))
    last = now - HOURS_FOR
    await tx.execute(old, (*place, HOUR, int(last)))
    await tx.execute("DELETE FROM gaps WHERE service = ? AND environment = ? AND until < ?", (*place, last))
    await tx.execute("DELETE FROM readings WHERE service = ? AND environment = ? AND at < ?", (*place, last))


def _sum(parts: Iterable[Difference]) -> Difference:
    """Bounds differ where releases of Penstock do: each row's own hold for what it does not name."""
    found = list(parts)
    bounds = sorted({bound for part in found for bound in part.latency})
    latency = {
        bound: sum(max((n for b, n in part.latency.items() if b <= bound), default=0) for part in found)
        for bound in bounds
    }
    return Difference(sum(p.requests for p in found), sum(p.errors for p in found), latency)


def _text(latency: Mapping[float, int]) -> str:
    """Only the bounds at which the count rises: the others say nothing."""
    kept, last = {}, 0
    for bound in sorted(latency):
        if latency[bound] > last:
            last = latency[bound]
            kept[f"{bound:g}"] = last
    return json.dumps(kept, separators=(",", ":"))


def _difference(row: Row | Sequence[object]) -> Difference:
    requests, errors, latency = row
    bounds = {float(bound): int(n) for bound, n in json.loads(str(latency)).items()}
    return Difference(int(str(requests)), int(str(errors)), bounds)
