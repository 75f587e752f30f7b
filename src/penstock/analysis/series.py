"""From samples of a metric of the service's own to what happened between them, or why that cannot be told.

Called by `checks.canary`. Pure. It is `readings` for counts that a meter brings: they come in parts
(copies, say) that come and go, they may come late, and the meter may be anybody's. A sample that is of no
use is passed over; counts that have begun anew are of no use for the rest of the canary, for nobody knows
what was lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from penstock.core.canary import EVENTS_ROW, Count, Row, Sample, Series
from penstock.core.canaryconfig import Metric
from penstock.core.codec import MAX_INT
from penstock.core.verdict import Cause, Verdict, unknown
from penstock.errors import Invalid

#: Seconds by which a meter's clock may be ahead of ours.
AHEAD = 30.0


def unusable(sample: Sample, metric: Metric) -> Verdict | None:
    """Why a sample is of no use by itself; None if it is as it should be."""
    for count in (sample.new, sample.stable):
        odd = _not_numbers(count)
        if odd:
            return _wrong(metric.name, f"what was counted of {count.release} is no number: {odd}")
        if not metric.among_requests and count.bad > count.total:
            return _wrong(metric.name, f"{count.bad} of {count.total} are bad for {count.release}")
        age = sample.read - count.at
        if age > metric.fresh_seconds:
            words = f"{metric.name}: what was counted of {count.release} is {age:.0f} s old"
            return unknown(Cause.STALE, f"{words} by our clock, and fresh is {metric.fresh_seconds:g} s")
        if age < -AHEAD:
            return _wrong(metric.name, f"the clock of its source is {-age:.0f} s ahead of ours")
    return None


def series(metric: Metric, began: float, taken: Iterable[tuple[int, Sample | Verdict | None]]) -> Series:
    """All that is known at the last of the looks *taken*: each with the new release's share, and what was
    sampled, why nothing was, or None where an earlier look kept nothing. *began*: when the canary did."""
    first: Sample | None = None
    last: Sample | None = None
    rows: list[Row] = []
    wrong: Verdict | None = None
    for share, sample in taken:
        wrong = sample if isinstance(sample, Verdict) else None
        if not isinstance(sample, Sample):
            continue
        if first is None or last is None:
            first = last = sample
            continue
        wrong = _late(metric.name, last, sample)
        if wrong is None:
            try:
                row = _row(began, share, last, sample)
            except Invalid as error:  # whatever comes later has lost something, too
                return _untold(metric.name, _wrong(metric.name, str(error)))
            rows.append(row)
            last = sample
    if wrong is not None:
        return _untold(metric.name, wrong)
    if not any(any(row[2:]) for row in rows):
        nothing = _untold(metric.name, _nothing_yet(metric.name, first))
        return replace(nothing, since=first, until=last)
    return Series(metric.name, first, last, tuple(rows))


def growth(since: Count, until: Count) -> tuple[int, int]:
    """Events and bad ones between two counts. `Invalid` if they have begun anew in between."""
    if since.epoch != until.epoch:
        raise Invalid(f"what was counted of {until.release} began anew during the canary")
    before = {part.name: part for part in since.parts}
    total = bad = 0
    for part in until.parts:
        known = before.get(part.name)
        more = part.total - (known.total if known else 0), part.bad - (known.bad if known else 0)
        if min(more) < 0:
            raise Invalid(
                f"what was counted of {until.release} ran backwards: it began anew during the canary"
            )
        total, bad = total + more[0], bad + more[1]
    return total, bad


def _row(began: float, share: int, since: Sample, until: Sample) -> Row:
    when = max(0, round((until.read - began) * 1000))
    return (when, share, *growth(since.new, until.new), *growth(since.stable, until.stable))


def _late(name: str, since: Sample, until: Sample) -> Verdict | None:
    for before, after in ((since.new, until.new), (since.stable, until.stable)):
        late = before.at - after.at
        if late > 0:
            return _wrong(
                name, f"a count of {after.release} is out of order: {late:.1f} s older than the last"
            )
    return None


def _nothing_yet(name: str, first: Sample | None) -> Verdict:
    words = (
        "nothing has been counted yet" if first is None else "nothing has been counted since the first look"
    )
    return unknown(Cause.MISSING, f"{name}: {words}")


def _untold(name: str, verdict: Verdict) -> Series:
    assert verdict.cause is not None
    return Series(name, cause=verdict.cause.value, reason=verdict.reason)


def _wrong(name: str, words: str) -> Verdict:
    return unknown(Cause.ERROR, f"{name}: {words}")


def _not_numbers(count: Count) -> str:
    if not isinstance(count.at, (int, float)) or not math.isfinite(count.at):
        return f"counted at {count.at}"
    for part in count.parts:
        for what, number in (("bad", part.bad), ("total", part.total)):
            if type(number) is not int or not 0 <= number <= MAX_INT:
                return f"{what} {number}"
    names = [part.name for part in count.parts]
    return "" if len(names) == len(set(names)) else "a part is there twice"


# --- checked again, offline -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Events:
    """One row, taken apart: *at* seconds since the canary began."""

    at: float
    step: int
    new: int
    new_bad: int
    stable: int
    stable_bad: int


def events_of(rows: Iterable[Row]) -> list[Events]:
    """Evidence as the judge takes it. `Invalid` if it is none."""
    found = tuple(rows)
    if any(len(row) != EVENTS_ROW or min(row) < 0 for row in found):
        raise Invalid(f"a metric's spans have {EVENTS_ROW} whole numbers each", where="canary")
    return [Events(row[0] / 1000, *row[1:]) for row in found]


def faults(found: Series) -> list[str]:
    """What is wrong with a series as evidence: its spans must be what happened between its samples."""
    if found.spans is None:
        return []
    if found.since is None or found.until is None:
        return [f"{found.metric}: spans without the samples that they lie between"]
    rows = events_of(found.spans)
    try:
        new = growth(found.since.new, found.until.new)
        stable = growth(found.since.stable, found.until.stable)
    except Invalid as error:
        return [f"{found.metric}: {error}"]
    sums = (sum(r.new for r in rows), sum(r.new_bad for r in rows))
    others = (sum(r.stable for r in rows), sum(r.stable_bad for r in rows))
    adds_up = _adds_up(sums, new, found.since.new, found.until.new)
    if not (adds_up and _adds_up(others, stable, found.since.stable, found.until.stable)):
        return [f"{found.metric}: the looks do not add up to its samples"]
    return []


def _adds_up(sums: tuple[int, int], grown: tuple[int, int], since: Count, until: Count) -> bool:
    """Parts that have come and gone meanwhile were counted too, and neither sample has them at their end."""
    if [part.name for part in since.parts] == [part.name for part in until.parts] and len(since.parts) == 1:
        return sums == grown
    return sums[0] >= grown[0] and sums[1] >= grown[1]
