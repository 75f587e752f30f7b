"""From readings of counters to what happened between them, or why that cannot be told.

Called by `checks.canary` and ``canary replay``. Pure. A metric source can be wrong in many ways, and each is
UNKNOWN with its cause: nothing there, not a number, restarted, running backwards, out of order, stale, two
clocks. A look whose reading was of no use is passed over: the next one goes on from the last that was.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from penstock.core.canary import Row
from penstock.core.traffic import Counters
from penstock.core.verdict import Cause, Verdict, unknown

#: The epoch of counters that are not there.
ABSENT = "absent"
#: Seconds by which the two releases of one reading may lie apart.
APART = 2.0


@dataclass(frozen=True)
class Reading:
    """Both releases at one look; *share* is the new release's part of user traffic since the last one."""

    share: int
    new: Counters
    stable: Counters


def absent(release: str) -> Counters:
    """Stands for the counters of a release that the metric source does not know."""
    return Counters(release, 0.0, ABSENT, 0, 0)


def rows(start: Reading, later: Iterable[Reading], slow_ms: float | None) -> tuple[Row, ...] | Verdict:
    """What happened from reading to reading since *start*; the verdict if the last one is of no use."""
    last, found = start, []
    wrong: Verdict | None = None
    for reading in later:
        wrong = _problem(last, reading, slow_ms)
        if wrong is None:
            found.append(_row(start, last, reading, slow_ms))
            last = reading
    return wrong or tuple(found)


def began_anew(since: Reading, until: Reading) -> bool:
    """Whether counters of *until* are others than those of *since*, and there: one may go on from them."""
    both = ((since.new, until.new), (since.stable, until.stable))
    there = all(after.epoch != ABSENT for _, after in both)
    return there and any(before.epoch != after.epoch for before, after in both)


def latency(reading: Counters) -> dict[float, int]:
    """Cumulative counts by upper bound in milliseconds."""
    return {_bound(text): count for text, count in reading.latency.items()}


def _row(start: Reading, since: Reading, until: Reading, slow_ms: float | None) -> Row:
    return (
        round((until.new.at - start.new.at) * 1000),
        until.share,
        *_did(since.new, until.new, slow_ms),
        *_did(since.stable, until.stable, slow_ms),
    )


def _did(since: Counters, until: Counters, slow_ms: float | None) -> tuple[int, int, int]:
    """Requests, errors, slow ones. A histogram is read a moment after the counters, and may be ahead."""
    requests = until.requests - since.requests
    slow = 0 if slow_ms is None else _above(latency(until), slow_ms) - _above(latency(since), slow_ms)
    return requests, until.errors - since.errors, max(0, min(requests, slow))


def _above(counts: Mapping[float, int], bound: float) -> int:
    total = max(counts.values(), default=0)
    return total - counts.get(bound, total)


def _problem(since: Reading, until: Reading, slow_ms: float | None) -> Verdict | None:
    """The first thing that is wrong with a reading, given the last one that was right."""
    for before, after in ((since.new, until.new), (since.stable, until.stable)):
        wrong = _counters(before, after, slow_ms)
        if wrong is not None:
            return wrong
    apart = abs(until.new.at - until.stable.at)
    if apart > APART:
        words = (
            f"the counters of {until.new.release} and {until.stable.release} were read {apart:.0f} s apart"
        )
        return unknown(Cause.ERROR, f"{words}: two clocks, or two sources, that do not agree")
    return None


def _counters(since: Counters, until: Counters, slow_ms: float | None) -> Verdict | None:
    name = until.release
    odd = _not_numbers(until) or (_not_numbers(since) if since.epoch != ABSENT else "")
    if odd:
        return unknown(Cause.ERROR, f"the counters of {name} are not numbers: {odd}")
    if until.epoch == ABSENT:
        return unknown(Cause.MISSING, f"the metric source has no counters of {name}")
    if since.epoch != until.epoch:
        return unknown(Cause.ERROR, f"the counters of {name} restarted during the canary")
    if until.at < since.at:
        words = (
            f"a reading of {name} is out of order: {since.at - until.at:.1f} s older than the one before it"
        )
        return unknown(Cause.ERROR, words)
    if until.at == since.at:
        return unknown(Cause.STALE, f"the counters of {name} are stale: the same reading as at the last look")
    requests, errors = until.requests - since.requests, until.errors - since.errors
    falls = any(count < since.latency.get(bound, 0) for bound, count in until.latency.items())
    if requests < 0 or not 0 <= errors <= requests or falls:
        return unknown(Cause.ERROR, f"the counters of {name} ran backwards")
    return None if slow_ms is None else _histogram(name, since, until, slow_ms)


def _histogram(name: str, since: Counters, until: Counters, slow_ms: float) -> Verdict | None:
    for reading in (since, until):
        counts = sorted(latency(reading).items())
        if any(after < before for (_, before), (_, after) in pairwise(counts)):
            return unknown(Cause.ERROR, f"the latency histogram of {name} is not cumulative")
    if until.latency and slow_ms not in latency(until):
        words = f"the latency histogram of {name} no longer has the bound {slow_ms:g} ms"
        return unknown(Cause.ERROR, words)
    return None


def _not_numbers(reading: Counters) -> str:
    """What is no whole number of requests or no time, in words: a source may send NaN or Inf for nothing."""
    if not isinstance(reading.at, (int, float)) or not math.isfinite(reading.at):
        return f"read at {reading.at}"
    counts = {"requests": reading.requests, "errors": reading.errors, **reading.latency}
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            return f"{name} {count}"
    for bound in reading.latency:
        if math.isnan(_bound(bound)):
            return f"a latency bound of {bound!r}"
    return ""


def _bound(text: str) -> float:
    try:
        return math.inf if text == "+Inf" else float(text)
    except ValueError:
        return math.nan
