"""What the engine counts: deliveries, queues, steps, attempts, take-overs. May write SQL, like the journal.

Called by the journal, which counts in the transaction that commits what is counted (so a count survives a
crash exactly if what it counts does), and by the server, for ``GET /metrics`` and its list of services.
Reading must stay cheap however long the history is: steps are counted as they happen, never again from the
records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from penstock.core.pipeline import Record, State
from penstock.ports import Row, Transaction

SCHEMA = (
    """
    CREATE TABLE steps (
        verb TEXT NOT NULL, result TEXT NOT NULL, bucket INTEGER NOT NULL,
        count INTEGER NOT NULL, seconds REAL NOT NULL,
        PRIMARY KEY (verb, result, bucket));
    CREATE TABLE counts (
        name TEXT NOT NULL, label TEXT NOT NULL, count INTEGER NOT NULL,
        PRIMARY KEY (name, label))
    """,
)

#: Upper bounds of the buckets in seconds; one more takes what is longer. Never change the meaning of a number
#: that is in somebody's database: new bounds are a new table.
BOUNDS = (0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
#: A delivery is stuck if nobody has taken it up for so many lengths of a lease.
PATIENCE = 3.0

TAKE_OVERS = "take-overs"
FAILED_ATTEMPTS = "failed-attempts"


# --- counting, in the transaction of what is counted --------------------------------------------------


async def steps_done(tx: Transaction, records: Sequence[Record]) -> None:
    """Count steps that were performed and recorded, with the time that they took."""
    rows: dict[tuple[str, str, int], list[float]] = {}  # a row may be changed once in a statement
    for record in records:
        seconds = max(0.0, record.ended - record.began)
        bucket = sum(bound < seconds for bound in BOUNDS)
        rows.setdefault((record.intent.verb, record.state.value, bucket), []).append(seconds)
    await tx.execute(
        "INSERT INTO steps (verb, result, bucket, count, seconds) "
        f"VALUES {', '.join(['(?, ?, ?, ?, ?)'] * len(rows))} "
        "ON CONFLICT (verb, result, bucket) DO UPDATE "
        "SET count = steps.count + excluded.count, seconds = steps.seconds + excluded.seconds",
        tuple(value for row, took in rows.items() for value in (*row, len(took), sum(took))),
    )


async def attempt_failed(tx: Transaction, verb: str) -> None:
    """Count an attempt that an outside system did not answer."""
    await _count(tx, FAILED_ATTEMPTS, verb)


async def claimed(tx: Transaction, delivery: str) -> None:
    """Count a take-over, if the lease of *delivery* ended without its holder giving it back."""
    if await tx.execute(
        "SELECT 1 FROM deliveries WHERE id = ? AND state = 'executing' AND lease > 0", (delivery,)
    ):
        await _count(tx, TAKE_OVERS, "")


async def _count(tx: Transaction, name: str, label: str) -> None:
    await tx.execute(
        "INSERT INTO counts (name, label, count) VALUES (?, ?, 1) "
        "ON CONFLICT (name, label) DO UPDATE SET count = counts.count + 1",
        (name, label),
    )


# --- reading -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Steps:
    """Steps of one verb that ended in one way. *buckets* are counts per bound of `BOUNDS`, not summed up."""

    verb: str
    result: str
    buckets: tuple[int, ...]
    seconds: float


@dataclass(frozen=True)
class Numbers:
    """The engine at one moment. *queues* has the age of the oldest pending delivery by environment."""

    deliveries: Mapping[str, int]
    queues: Mapping[str, float]
    stuck: int
    steps: tuple[Steps, ...] = ()
    failed_attempts: Mapping[str, int] = field(default_factory=dict)
    take_overs: int = 0


async def read(tx: Transaction, lease_seconds: float) -> Numbers:
    """Everything, as this transaction sees it."""
    now = await tx.now()
    states = await tx.execute("SELECT state, count(*) FROM deliveries GROUP BY state")
    counts = await tx.execute("SELECT name, label, count FROM counts ORDER BY name, label")
    steps = await tx.execute("SELECT verb, result, bucket, count, seconds FROM steps ORDER BY 1, 2, 3")
    by_name = {(str(name), str(label)): _int(count) for name, label, count in counts}
    return Numbers(
        deliveries={state.value: 0 for state in State} | {str(s): _int(count) for s, count in states},
        queues=await _queues(tx, now),
        stuck=await _stuck(tx, now - PATIENCE * lease_seconds),
        steps=_steps(steps),
        failed_attempts={label: n for (name, label), n in by_name.items() if name == FAILED_ATTEMPTS},
        take_overs=by_name.get((TAKE_OVERS, ""), 0),
    )


async def places(tx: Transaction, newest: int) -> set[tuple[str, str]]:
    """Service and environment of each of the *newest* so many deliveries, which are not read for it."""
    rows = await tx.execute(
        "SELECT DISTINCT scope FROM (SELECT scope FROM deliveries ORDER BY seq DESC LIMIT ?) AS newest",
        (newest,),
    )
    return {
        (service, environment) for service, _, environment in (str(row[0]).rpartition("/") for row in rows)
    }


async def _queues(tx: Transaction, now: float) -> dict[str, float]:
    """Environments in which a delivery is open, and how long the oldest that is pending there has waited."""
    rows = await tx.execute(
        "SELECT scope, min(CASE WHEN state = 'pending' THEN created ELSE ? END) FROM deliveries "
        "WHERE state IN ('pending', 'executing') GROUP BY scope",
        (now,),
    )
    ages: dict[str, float] = {}
    for scope, since in rows:
        environment = str(scope).rpartition("/")[2]
        ages[environment] = max(ages.get(environment, 0.0), now - float(str(since)))
    return ages


async def _stuck(tx: Transaction, limit: float) -> int:
    """Executing, and neither held nor asleep since *limit*.

    One that waits (at a gate, or for the next look) sleeps until a time to come. A wake of 0 is "at once",
    and does not tell since when: then only a lease that ended unreturned does.
    """
    ((count,),) = await tx.execute(
        "SELECT count(*) FROM deliveries WHERE state = 'executing' AND lease < ? AND wake < ? "
        "AND (lease > 0 OR wake > 0)",
        (limit, limit),
    )
    return _int(count)


def _steps(rows: list[Row]) -> tuple[Steps, ...]:
    found: dict[tuple[str, str], Steps] = {}
    for verb, result, bucket, count, seconds in rows:
        key = (str(verb), str(result))
        known = found.get(key, Steps(*key, (0,) * (len(BOUNDS) + 1), 0.0))
        at = _int(bucket)
        buckets = (*known.buckets[:at], _int(count), *known.buckets[at + 1 :])
        found[key] = Steps(*key, buckets, known.seconds + float(str(seconds)))
    return tuple(found.values())


def _int(value: object) -> int:
    return int(str(value))
