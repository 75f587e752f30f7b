"""From readings of counters to what happened between them, or why that cannot be told.

Called by `checks.canary`, `checks.weigh` and ``canary replay``. Pure. A metric source can be wrong in many
ways, and each is UNKNOWN with its cause: nothing there, not a number, restarted, running backwards, out of
order, stale, two clocks. A look whose reading was of no use is passed over: the next one goes on from the
last that was.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from penstock.core.canary import Latencies, Row, Rule
from penstock.core.codec import MAX_INT
from penstock.core.traffic import Counters
from penstock.core.verdict import Cause, Verdict, unknown

#: The epoch of counters that are not there.
ABSENT = "absent"
#: Seconds by which the two releases of one reading may lie apart.
APART = 2.0
#: What is usual, and so what is slow, is told from at least so many requests.
ENOUGH = 50


@dataclass(frozen=True)
class Reading:
    """Both releases at one look; *share* is the new release's part of user traffic since the last one. If
    *stable* is a fresh baseline, *running* is what the copies did that had run before."""

    share: int
    new: Counters
    stable: Counters
    running: Counters | None = None


def absent(release: str) -> Counters:
    """Stands for the counters of a release that the metric source does not know."""
    return Counters(release, 0.0, ABSENT, 0, 0)


def told(reading: Counters) -> Counters:
    """The reading as it can be kept: nothing of one that is no numbers."""
    return absent(reading.release) if _not_numbers(reading) else reading


@dataclass(frozen=True)
class Seen:
    """What happened from reading to reading, and in each step the histograms of latency, if there are any."""

    rows: tuple[Row, ...]
    latencies: Latencies | None


def seen(start: Reading, later: Iterable[Reading], rule: Rule) -> Seen | Verdict:
    """What happened since *start*, as *rule* has it counted; the verdict if the last reading is of no use."""
    good, bounds = [start], _Bounds.of(rule)
    wrong: Verdict | None = None
    for reading in later:
        wrong = _problem(good[-1], reading, bounds)
        if wrong is None:
            good.append(reading)
    if wrong is not None:
        return wrong
    rows = tuple(_row(start, since, until, bounds) for since, until in pairwise(good))
    return Seen(rows, latencies(good))


def row(start: Reading, since: Reading, until: Reading, rule: Rule) -> Row | Verdict:
    """What happened between two readings alone, timed from *start*; the verdict if the later is of no use."""
    bounds = _Bounds.of(rule)
    return _problem(since, until, bounds) or _row(start, since, until, bounds)


@dataclass(frozen=True)
class _Bounds:
    """Above which bounds (ms) requests are counted: None where nothing is."""

    slow: float | None
    quantiles: tuple[float | None, ...]

    @staticmethod
    def of(rule: Rule) -> _Bounds:
        return _Bounds(rule.slow_ms, tuple(quantile.above_ms for quantile in rule.judged))

    @property
    def needed(self) -> list[float]:
        return [bound for bound in (self.slow, *self.quantiles) if bound is not None]


def latencies(readings: Sequence[Reading]) -> Latencies | None:
    """The histograms of each step, from readings that are of use; None if there was none of both releases."""
    last = readings[-1]
    told = {*latency(last.new), *latency(last.stable)}
    bounds = tuple(sorted(bound for bound in told if math.isfinite(bound) and bound > 0))
    if not (bounds and last.new.latency and last.stable.latency):
        return None
    steps: dict[int, list[int]] = {}
    for since, until in pairwise(readings):
        counts = [*_buckets(since.new, until.new, bounds), *_buckets(since.stable, until.stable, bounds)]
        own = steps.setdefault(until.share, [0] * len(counts))
        steps[until.share] = [a + b for a, b in zip(own, counts, strict=True)]
    return Latencies(bounds, tuple((share, *counts) for share, counts in steps.items()))


def _buckets(since: Counters, until: Counters, bounds: Sequence[float]) -> list[int]:
    """Requests by bucket, and above the last bound, between two readings of a release."""
    before, after = latency(since), latency(until)
    grown = [after.get(bound, 0) - before.get(bound, 0) for bound in bounds]
    grown.append(max(after.values(), default=0) - max(before.values(), default=0))
    return [max(0, upper - lower) for lower, upper in pairwise([0, *grown])]


def began_anew(since: Reading, until: Reading) -> bool:
    """Whether counters of *until* are others than those of *since*, and there: one may go on from them."""
    both = ((since.new, until.new), (since.stable, until.stable))
    there = all(after.epoch != ABSENT for _, after in both)
    return there and any(before.epoch != after.epoch for before, after in both)


def latency(reading: Counters) -> dict[float, int]:
    """Cumulative counts by upper bound in milliseconds."""
    return {_bound(text): count for text, count in reading.latency.items()}


def usual_latency(reading: Counters) -> dict[float, int]:
    """The same, to tell by it what is usual; empty if that is too few requests."""
    counts = latency(reading)
    return counts if max(counts.values(), default=0) >= ENOUGH else {}


def _row(start: Reading, since: Reading, until: Reading, bounds: _Bounds) -> Row:
    arms = ((since.new, until.new), (since.stable, until.stable))
    did = [
        number
        for before, after in arms
        for number in (
            after.requests - before.requests,
            after.errors - before.errors,
            _longer(before, after, bounds.slow),
        )
    ]
    beyond = [_longer(before, after, bound) for bound in bounds.quantiles for before, after in arms]
    return (round((until.new.at - start.new.at) * 1000), until.share, *did, *beyond)


def _longer(since: Counters, until: Counters, bound: float | None) -> int:
    """Requests above *bound*. A histogram is read a moment after the counters, and may be ahead."""
    if bound is None:
        return 0
    longer = _above(latency(until), bound) - _above(latency(since), bound)
    return max(0, min(until.requests - since.requests, longer))


def _above(counts: Mapping[float, int], bound: float) -> int:
    total = max(counts.values(), default=0)
    return total - counts.get(bound, total)


def _problem(since: Reading, until: Reading, bounds: _Bounds) -> Verdict | None:
    """The first thing that is wrong with a reading, given the last one that was right."""
    for before, after in ((since.new, until.new), (since.stable, until.stable)):
        wrong = _counters(before, after, bounds.needed)
        if wrong is not None:
            return wrong
    apart = abs(until.new.at - until.stable.at)
    if apart > APART:
        words = (
            f"the counters of {until.new.release} and {until.stable.release} were read {apart:.0f} s apart"
        )
        return unknown(Cause.ERROR, f"{words}: two clocks, or two sources, that do not agree")
    return None


def _counters(since: Counters, until: Counters, bounds: Sequence[float]) -> Verdict | None:
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
    return _histogram(name, since, until, bounds)


def _histogram(name: str, since: Counters, until: Counters, bounds: Sequence[float]) -> Verdict | None:
    for reading in (since, until):
        counts = sorted(latency(reading).items())
        if any(after < before for (_, before), (_, after) in pairwise(counts)):
            return unknown(Cause.ERROR, f"the latency histogram of {name} is not cumulative")
    gone = [bound for bound in bounds if bound not in latency(until)]
    if until.latency and gone:
        words = f"the latency histogram of {name} no longer has the bound {gone[0]:g} ms"
        return unknown(Cause.ERROR, words)
    return None


def _not_numbers(reading: Counters) -> str:
    """What is no whole number of requests or no time, in words: a source may send NaN or Inf for nothing."""
    if not isinstance(reading.at, (int, float)) or not math.isfinite(reading.at):
        return f"read at {reading.at}"
    counts = {"requests": reading.requests, "errors": reading.errors, **reading.latency}
    for name, count in counts.items():
        if type(count) is not int or not 0 <= count <= MAX_INT:
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
