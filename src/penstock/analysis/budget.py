"""Error budgets and burn rates, from counts alone: how much is left, and how fast it goes.

Called by ``telemetry.standing``. Pure: the same counts give the same standing. Times are in seconds, rates in
budgets per window: at 1 the budget is used up just as its window ends.

* *Budget* (Site Reliability Workbook, chapter 2, "Implementing SLOs"): of the requests in the rolling window,
  a share of ``1 - target`` may be bad. What was bad uses it up; the rest is left.
* *Burn rates* (the same, chapter 5, "Alerting on SLOs", table 5-8): an objective burns if its rate is at the
  pair's limit or above over both the long window and the short one. The long one keeps a hiccup from
  counting, the short one ends it soon after the errors have ended.
* *Low traffic* (the same, "Low-traffic services and error budget alerting", says only that one failure must
  not decide). Here: too much is bad only if one bad request fewer would not change that, and if a single
  failure costs at most a fifth of what is allowed, or else so many could hardly be chance (one-sided
  exact binomial, `CHANCE`). Too little is bad only if one more would not change that. Else nobody can tell.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from penstock.core.objectives import BurnRate, Objective, Standing, State

#: (long, short, limit): the pairs of windows of table 5-8. Two percent of a month's budget in an hour, five
#: in six hours, ten in three days.
PAIRS = ((3600.0, 300.0, 14.4), (21600.0, 1800.0, 6.0), (259200.0, 21600.0, 1.0))
#: With fewer requests than this nothing is said at all.
FEWEST = 10
#: A single failure may cost one of so many parts of what is allowed, for counts to decide by themselves.
PARTS = 5
#: So improbable must so many failures be, where a single one costs more.
CHANCE = 0.001
#: Counts are of late if somebody read them within so many seconds.
STALE = 300.0


@dataclass(frozen=True)
class Bucket:
    """What was counted from *start* (seconds since 1970) on, for *seconds*.

    *bad* may be off by the few requests that end between two readings, and below 0 for it.
    """

    start: float
    seconds: float
    total: int
    bad: int


@dataclass(frozen=True)
class Count:
    """*bad* of *total* requests."""

    total: int
    bad: int

    def rate(self, allowed: float) -> float:
        """The burn rate: 1 if just the *allowed* share of them is bad; 0 where there are none."""
        return self.bad / self.total / allowed if self.total else 0.0


@dataclass(frozen=True)
class Watched:
    """When a service was first and last read (seconds since 1970; 0: never), and for how many seconds in
    between nobody read, which its counts are spread over."""

    since: float = 0.0
    last: float = 0.0
    gaps: float = 0.0


def within(buckets: Iterable[Bucket], since: float) -> Count:
    """What was counted from *since* on; of a bucket that began before it, the share after it."""
    total = bad = 0.0
    for bucket in buckets:
        end = bucket.start + bucket.seconds
        if end > since:
            share = min(1.0, (end - since) / bucket.seconds)
            total, bad = total + share * bucket.total, bad + share * bucket.bad
    counted = max(0, round(total))
    return Count(counted, min(counted, max(0, round(bad))))


def exceeds(count: Count, allowed: float) -> bool | None:
    """Whether more than the *allowed* share is bad; None where too few requests tell.

    One request never decides: see the module. A share of 1 or more cannot be exceeded.
    """
    if count.total < FEWEST:
        return None
    budget = allowed * count.total
    if count.bad + 1 < budget or allowed >= 1:
        return False
    if count.bad - 1 >= budget and (budget >= PARTS or chance(count, allowed) <= CHANCE):
        return True
    return None


def chance(count: Count, allowed: float) -> float:
    """The probability of so many bad ones or more, if just the *allowed* share were bad (binomial, exact)."""
    fewer = (
        math.exp(
            math.lgamma(count.total + 1)
            - math.lgamma(k + 1)
            - math.lgamma(count.total - k + 1)
            + k * math.log(allowed)
            + (count.total - k) * math.log1p(-allowed)
        )
        for k in range(count.bad)
    )
    return max(0.0, 1.0 - math.fsum(fewer))


def missing(count: Count, allowed: float) -> int:
    """How many more requests, all good, would show that no more than *allowed* is bad."""
    enough = math.floor((count.bad + 1) / allowed)
    while count.bad + 1 >= allowed * enough:  # once or twice: the quotient is rounded
        enough += 1
    return max(FEWEST, enough) - count.total


def burns(buckets: Sequence[Bucket], objective: Objective, now: float) -> tuple[BurnRate, ...]:
    """The rate over each pair of windows that is within the objective's own."""
    found = []
    for long, short, limit in PAIRS:
        if long <= objective.window:
            counts = within(buckets, now - long), within(buckets, now - short)
            verdicts = [exceeds(count, limit * objective.allowed) for count in counts]
            verdict = False if False in verdicts else None if None in verdicts else True
            rates = [round(count.rate(objective.allowed), 3) for count in counts]
            found.append(BurnRate(long, short, limit, rates[0], rates[1], verdict))
    return tuple(found)


def standing(
    objective: Objective, entry: int, buckets: Sequence[Bucket], watched: Watched, now: float
) -> Standing:
    """How an objective stands. *entry* is the one that published it."""
    count = within(buckets, now - objective.window)
    used_up, rates = exceeds(count, objective.allowed), burns(buckets, objective, now)
    state = _state(used_up, rates, now - watched.last > STALE)
    told = state != "unknown" and used_up is not None
    left = round(1.0 - count.rate(objective.allowed), 4) if told else None
    says = _words(objective, state, count, rates, watched, now)
    return Standing(
        objective=objective.label,
        entry=entry,
        target=objective.target,
        window=objective.window,
        total=count.total,
        bad=count.bad,
        state=state,
        says=says,
        burns=rates,
        left=left,
    )


def _state(used_up: bool | None, rates: Sequence[BurnRate], stale: bool) -> State:
    if stale:
        return "unknown"
    if used_up:
        return "exhausted"
    if any(rate.burns for rate in rates):
        return "burning"
    return "quiet" if used_up is None or any(rate.burns is None for rate in rates) else "ok"


def _words(
    objective: Objective,
    state: State,
    count: Count,
    rates: Sequence[BurnRate],
    watched: Watched,
    now: float,
) -> str:
    """``availability: 41% of the budget of 28 days is left, burning at 3.2 (1 h) …``"""
    what = f"{count.bad} of {count.total} requests bad, {100 * objective.allowed:.3g}% allowed"
    if state == "unknown":
        since = f"for {span(now - watched.last)}" if watched.last else "yet"
        return f"{objective.label}: nothing was counted {since}, so nobody can tell"
    if count.total == 0:
        return f"{objective.label}: no user request in {span(objective.window)}, so nobody can tell"
    said = [_budget(objective, count) + _history(objective, watched, now)]
    said += [_burning(rate) for rate in rates if rate.burns]
    fastest = max(rates, key=lambda rate: rate.long_rate, default=None)
    if not any(rate.burns for rate in rates) and fastest is not None:
        said.append(f"burning at {fastest.long_rate:.3g} ({span(fastest.long)}) at most")
    if state == "quiet" and any(rate.burns is None for rate in rates):
        said.append(_quiet(rates))
    if watched.gaps:
        said.append(f"for {span(watched.gaps)} nobody read the counters, so their counts are spread over it")
    return f"{objective.label}: {', '.join(said)} ({what})"


def _budget(objective: Objective, count: Count) -> str:
    whole, used = f"of the budget of {span(objective.window)}", count.rate(objective.allowed)
    if exceeds(count, objective.allowed) is None:
        more = max(1, missing(count, objective.allowed))
        return f"too few requests to tell what is left {whole}: {more} more, all good, would do"
    return f"{100 * used:.0f}% {whole} is used" if used > 1 else f"{100 * (1 - used):.0f}% {whole} is left"


def _history(objective: Objective, watched: Watched, now: float) -> str:
    known = now - watched.since
    return "" if known >= objective.window else f" (counted for {span(known)})"


def _burning(rate: BurnRate) -> str:
    return (
        f"burning at {rate.long_rate:.3g} ({span(rate.long)}) and {rate.short_rate:.3g} "
        f"({span(rate.short)}), {rate.limit:g} is too fast"
    )


def _quiet(rates: Sequence[BurnRate]) -> str:
    unclear = ", ".join(span(rate.long) for rate in rates if rate.burns is None)
    return f"too few requests to tell how fast it goes ({unclear})"


def span(seconds: float) -> str:
    """A length of time in the largest unit that keeps it readable."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= (2 if unit == "days" else 1) * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.0f} s"
