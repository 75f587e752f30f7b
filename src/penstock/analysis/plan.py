"""What a canary will be able to show, before it starts: its power at the service's real traffic.

Called by `checks.canary` when a canary begins and by ``penstock canary plan``. Pure. It plans for a release
that is as good as the stable one: expected counts stand for those to come, and half of such canaries need
more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from penstock.analysis import power
from penstock.analysis.judge import SEQUENTIAL, duration, needed_requests, shown_no_worse
from penstock.analysis.sequential import Pair, comparable
from penstock.analysis.series import growth
from penstock.core.canary import Count, Rule
from penstock.core.canaryconfig import Metric
from penstock.core.pipeline import Canary
from penstock.core.traffic import WHOLE, Counters
from penstock.core.verdict import Verdict
from penstock.errors import Invalid

#: No service is called quiet on less than this: a change must not shed its canary by making it short.
QUIET_SECONDS = 30.0


@dataclass(frozen=True)
class Traffic:
    """What users ask of a service: *requests* in *seconds*, of which *errors* fail. All 0 if unknown.

    Of a metric of the service's own they are events, and bad ones; *what* says so.
    """

    seconds: float
    requests: int
    errors: int
    #: Of all that is counted, for a window is short and failures are rare.
    error_rate: float = 0.0
    what: tuple[str, str] = ("requests", "failing")

    @property
    def rate(self) -> float:
        return self.requests / self.seconds if self.seconds > 0 else 0.0

    @staticmethod
    def between(since: Counters, until: Counters) -> Traffic:
        """What one release, which has all users, did between two readings."""
        requests, errors = until.requests - since.requests, until.errors - since.errors
        whole = until.errors / until.requests if until.requests else 0.0
        if since.epoch != until.epoch or until.at <= since.at or not 0 <= errors <= requests:
            return Traffic(0.0, 0, 0)
        return Traffic(until.at - since.at, requests, errors, min(1.0, whole))

    @staticmethod
    def of_events(since: Count, until: Count) -> Traffic:
        """The same, by a metric of the service's own."""
        what = ("events", "bad")
        try:
            total, bad = growth(since, until)
        except Invalid:
            return Traffic(0.0, 0, 0, what=what)
        whole = min(1.0, until.bad / until.total) if until.total else 0.0
        return Traffic(max(0.0, until.at - since.at), total, min(total, bad), whole, what)


@dataclass(frozen=True)
class PlannedStep:
    """*share* in thousandths; *new* and *stable* requests of the step; the smallest rate of failures that
    would be found by its end (None: none), and whether a release as good as the stable one is shown so."""

    share: int
    seconds: float
    new: float
    stable: float
    detectable: float | None
    passes: bool


@dataclass(frozen=True)
class Foreseen:
    """*needs* is how many seconds after the first step began a good release would pass (None: never)."""

    traffic: Traffic
    steps: tuple[PlannedStep, ...]
    planned: float
    deadline: float
    needed: int
    needs: float | None
    quiet: bool

    @property
    def reachable(self) -> bool:
        return self.needs is not None and self.needs <= self.deadline

    @property
    def words(self) -> str:
        """What to expect, and if the plan cannot hold, what to do about it."""
        events, bad = self.traffic.what
        rate = f"{self.traffic.rate:.3g} {events} a second, {self.traffic.error_rate:.2%} of them {bad}"
        if not self.traffic.rate:
            return f"nobody asked while it was measured ({self.traffic.seconds:.0f} s): {self._instead}"
        found = self.steps[-1].detectable
        of = f"would be found {power.POWER:.0%} of the time"
        told = "" if found is None else f"; by the last step a rise to {100 * found:.2g}% {of}"
        if self.needs is None:
            return f"{rate}: no number of {events} would show that a release is no worse; {self._instead}"
        if not self.reachable:
            when = duration(self.needs).removesuffix(" at the present rate")
            late = f"a good release needs about {when}, and this canary ends after {self.deadline:.0f} s"
            return f"{rate}: {late}: {self._instead}{told}"
        when = f"{self.needs:.0f} s of {self.planned:.0f}"
        if self.needs > self.planned:
            last = f"it stays at {self.steps[-1].share / 10:g}% until then"
            when = f"{self.needs:.0f} s; its steps take {self.planned:.0f}, and {last}"
        return f"{rate}: a good release passes after about {when}{told}"

    @property
    def _instead(self) -> str:
        if self.quiet and self.deadline < QUIET_SECONDS:
            return (
                f"expect UNKNOWN; no service is called quiet on less than {QUIET_SECONDS:g} s: give it longer"
            )
        if self.quiet:
            return (
                "expect UNKNOWN; for so quiet a service: give it longer (canary.patience), have generated "
                "requests stand in where a policy says so (acceptance.requests), or an override"
            )
        longer = "give it longer (canary.seconds_per_step, patience), a wider margin, or an override"
        return f"expect UNKNOWN; {longer}"


@dataclass(frozen=True)
class Expected:
    """Whether a metric of the service's own can be told in this canary, and what to expect, in words."""

    metric: str
    reachable: bool
    words: str


def expect(
    metric: Metric, since: Count | Verdict, until: Count | Verdict, canary: Canary, rule: Rule
) -> Expected:
    """`foresee` for a metric of the service's own, from two counts of the stable release: it has its part of
    the *rule*'s alpha, and its own margin."""
    if isinstance(since, Verdict):
        return Expected(metric.name, False, since.reason)
    if isinstance(until, Verdict):
        return Expected(metric.name, False, until.reason)
    traffic = Traffic.of_events(since, until)
    if not traffic.rate:
        words = "nothing was counted while it was measured; watch it for longer"
        return Expected(metric.name, False, f"{metric.name}: {words}")
    alone = Rule(rule.planned, None, rule.alpha_each, metric.ratio, metric.points / 100)
    # Generated requests stand in for users, and for nothing else.
    found = replace(foresee(traffic, canary, alone), quiet=False)
    return Expected(metric.name, found.reachable, f"{metric.name}: {found.words}")


def foresee(traffic: Traffic, canary: Canary, rule: Rule) -> Foreseen:
    """What this plan shows if traffic stays as it is and the new release is as good as the stable one."""
    planned, deadline = len(canary.steps) * canary.seconds_per_step, canary.longest
    pairs: list[Pair] = []
    steps = []
    for share in canary.steps:
        pairs.append(_pair(traffic, canary, share, canary.seconds_per_step))
        told = comparable(pairs)
        detectable = power.smallest_rate(told, rule.alpha_each * (1 - SEQUENTIAL))
        passes = _passes(pairs, rule)
        new, stable = pairs[-1].new, pairs[-1].stable
        steps.append(PlannedStep(share, canary.seconds_per_step, new, stable, detectable, passes))
    needed = needed_requests(rule)
    quiet = traffic.rate * deadline < needed
    return Foreseen(
        traffic, tuple(steps), planned, deadline, needed, _needs(traffic, canary, rule, pairs), quiet
    )


def _needs(traffic: Traffic, canary: Canary, rule: Rule, pairs: list[Pair]) -> float | None:
    """When it passes: never before the last step has ended, for each is taken."""
    if not pairs or not traffic.rate:
        return None
    planned = len(canary.steps) * canary.seconds_per_step

    def holds(extra: float) -> bool:
        longer = _pair(traffic, canary, canary.steps[-1], canary.seconds_per_step + extra)
        return _passes([*pairs[:-1], longer], rule)

    if _passes(pairs, rule):
        return planned
    extra = power.least(holds)
    return None if extra is None else planned + math.ceil(extra)


def _passes(pairs: list[Pair], rule: Rule) -> bool:
    """Of latencies nothing is known but how many requests a quantile needs at the least."""
    told = comparable(pairs)
    enough = sum(pair.new for pair in told) >= needed_requests(rule)
    return enough and shown_no_worse(told, rule.points, rule.ratio)


def _pair(traffic: Traffic, canary: Canary, share: int, seconds: float) -> Pair:
    requests, beside = traffic.rate * seconds, share if canary.baseline else WHOLE - share
    new, stable = requests * share / WHOLE, requests * beside / WHOLE
    return Pair(share, new, new * traffic.error_rate, stable, stable * traffic.error_rate)
