"""A canary looked at again, look by look: what would the judge have said, and where would it have stopped?

Called by the server, for a delivery and for its page, and by ``penstock canary replay`` for a file. Pure.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penstock.analysis.judge import judge
from penstock.analysis.quantiles import Timing
from penstock.analysis.spans import Span
from penstock.core.canary import Latencies, Row, Rule
from penstock.core.codec import MAX_INT
from penstock.core.verdict import Result
from penstock.errors import Invalid

#: The columns of a file: seconds since the canary began, per cent of traffic, and counts of the interval.
COLUMNS = (
    "seconds",
    "share",
    "requests",
    "errors",
    "slow",
    "stable_requests",
    "stable_errors",
    "stable_slow",
)
#: Those that may be left out, and what they are then.
OPTIONAL = {"share": 50.0, "slow": 0.0, "stable_slow": 0.0}
MOST_ROWS = 20_000


@dataclass(frozen=True)
class Timed:
    """A quantile of latency at a look, in ms: estimates of both releases', the difference between *low* and
    *high* (None: no bound yet), and what it may be (None: it is only told)."""

    name: str
    new: float
    stable: float
    low: float | None
    high: float | None
    margin: float | None


@dataclass(frozen=True)
class Seen:
    """One look: what was failed since the last one, and what all looks so far say of failed requests.

    Rates from 0 to 1; *share* in thousandths, *at* seconds since the canary began. *effect* with *low* and
    *high* is the difference of the rates at this look, None before both have answered.
    """

    at: float
    share: int
    new_rate: float | None
    stable_rate: float | None
    effect: float | None
    low: float | None
    high: float | None
    margin: float | None
    verdict: str
    reason: str
    quantiles: tuple[Timed, ...] = ()


@dataclass(frozen=True)
class Replayed:
    """*stopped* is the number (from 1) of the look that ends the canary by FAIL; None if none does."""

    looks: tuple[Seen, ...]
    stopped: int | None
    verdict: str
    reason: str


def replay(
    spans: Sequence[Span], rule: Rule, most: int = 0, latencies: Mapping[int, Latencies] | None = None
) -> Replayed:
    """Every look, up to the one that stops it. Of more than *most* (0: any number), only so many are looked
    at, evenly, and the last. *latencies* are the histograms at each look, by its number from 1."""
    known = latencies or {}
    looks: list[Seen] = []
    for number in _some(len(spans), most):
        seen = _seen(spans[:number], rule, known.get(number))
        looks.append(seen)
        if seen.verdict == Result.FAIL:
            return Replayed(tuple(looks), number, seen.verdict, seen.reason)
    if not looks:
        return Replayed((), None, Result.UNKNOWN.value, "nobody looked")
    return Replayed(tuple(looks), None, looks[-1].verdict, looks[-1].reason)


def _some(count: int, most: int) -> list[int]:
    if not most or count <= most:
        return list(range(1, count + 1))
    return sorted({math.ceil(count * number / most) for number in range(1, most + 1)})


def _seen(spans: Sequence[Span], rule: Rule, latencies: Latencies | None) -> Seen:
    judgment, last = judge(spans, rule, latencies), spans[-1]
    failed = judgment.findings[0] if judgment.findings else None
    return Seen(
        at=last.at,
        share=last.step,
        new_rate=last.new.errors / last.new.requests if last.new.requests else None,
        stable_rate=last.stable.errors / last.stable.requests if last.stable.requests else None,
        effect=failed.effect if failed else None,
        low=failed.difference.low if failed else None,
        high=failed.difference.high if failed else None,
        margin=failed.limit if failed else None,
        verdict=judgment.verdict.result.value,
        reason=judgment.verdict.reason,
        quantiles=tuple(_timed(found) for found in judgment.timings if any(found.widths)),
    )


def _timed(found: Timing) -> Timed:
    judged = found.p is not None
    low, high = (
        bound if math.isfinite(bound) else None for bound in (found.difference.low, found.difference.high)
    )
    return Timed(found.quantile.name, found.new, found.stable, low, high, found.limit if judged else None)


# --- data of one's own ------------------------------------------------------------------------------------


def rows_of(text: str, name: str) -> tuple[Row, ...]:
    """A JSON list of objects, or CSV with a heading. `Invalid` with line and column of what is wrong."""
    try:
        given = json.loads(text) if text.lstrip().startswith("[") else list(csv.DictReader(io.StringIO(text)))
    except (ValueError, RecursionError, csv.Error) as error:
        raise Invalid(f"neither JSON nor CSV: {error}", where=name) from error
    if len(given) > MOST_ROWS:
        raise Invalid(f"{len(given)} rows, at most {MOST_ROWS}", where=name)
    rows = tuple(_row(row, f"{name}: row {number}") for number, row in enumerate(given, 1))
    if not rows:
        heading = ",".join(COLUMNS)
        raise Invalid("no rows", where=name, next_move=f"a heading {heading}, and a row for each look")
    return rows


def _row(given: object, where: str) -> Row:
    if not isinstance(given, Mapping):
        raise Invalid("expected an object", where=where)
    unknown = [str(column) for column in given if column not in COLUMNS]
    if unknown:
        raise Invalid(f"no such column: {unknown[0][:40]}; there are: {', '.join(COLUMNS)}", where=where)
    numbers = {column: _number(given.get(column, OPTIONAL.get(column)), column, where) for column in COLUMNS}
    counts = [numbers[column] for column in COLUMNS[2:]]
    if any(count != math.floor(count) for count in counts):
        raise Invalid("counts must be whole numbers", where=where)
    return (round(numbers["seconds"] * 1000), round(numbers["share"] * 10), *(int(count) for count in counts))


def _number(value: object, column: str, where: str) -> float:
    """A number of JSON, or the text of one: not NaN, not infinite, not below zero."""
    try:
        found = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else None
    except (ValueError, OverflowError):
        found = None
    if found is None or not 0 <= found <= MAX_INT / 1000:
        raise Invalid(f"{column}: expected a number from 0, found {str(value)[:40]!r}", where=where)
    return found
