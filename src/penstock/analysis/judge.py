"""The canary judge: is the new release worse than the stable one beside it, from counts alone?

Called by `checks.canary` at every look, by `ledger.looks` (to compute a verdict again) and by ``canary
replay``. Pure: the same counts give the same judgment. Judged are the share of failed requests, the share of
slow ones, the quantiles of latency that are asked for, and the share of bad events by each metric of the
service's own (`series`); the errors are those of the whole canary, however often one looks and however many
metrics there are.

* FAIL as soon as a regression of one is shown. A whole *alpha* of false alarms is split evenly between the
  metrics; of each part a fifth goes to the sequential test at every look (`sequential.log_evidence`), and the
  rest to one exact test at the declared last look (`exact.tail`), which looking often would cost too much of.
  A rise in slow requests, of a quantile (`quantiles`), or by a metric of the service's own, must also be
  beyond its margin: a new process is a little slower, and hurts nobody.
* PASS if all are shown to be no worse than the margin: failed requests at most *ratio* times the stable
  release's share, or *points* above it, whichever is more; slow ones at most *slow_points* above; and
  quantiles as each says. All must hold, so nothing is split between them (Berger, *Multiparameter hypothesis
  testing and acceptance sampling*, Technometrics 24, 1982). It holds at every look with `NO_WORSE`.
* UNKNOWN otherwise, with what is missing; also if a metric cannot be told, whatever the others say.

"Slow" is above the first latency bound that is at least twice, and `SLOW_MS` more than, the one that 95% of
the stable release's requests kept before the canary. Clusters count once (`dispersion`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from penstock.analysis import dispersion, power, quantiles
from penstock.analysis.counted import Judged, of_requests, of_series
from penstock.analysis.exact import tail
from penstock.analysis.quantiles import Shares, Tested, Timing
from penstock.analysis.sequential import (
    Bounds,
    Pair,
    comparable,
    difference_bounds,
    log_evidence,
    rate_bounds,
    ratio_bounds,
    stable_bounds,
    stable_rate,
)
from penstock.analysis.spans import Arm as Arm
from penstock.analysis.spans import Span as Span
from penstock.analysis.spans import beyond
from penstock.analysis.spans import spans_of as spans_of
from penstock.core.canary import Latencies, Rule, Series
from penstock.core.traffic import WHOLE
from penstock.core.verdict import Cause, Verdict, combine, failing, passing, unknown
from penstock.core.wording import plural

#: The part of a metric's alpha that the sequential test has; the exact test at the last look has the rest.
SEQUENTIAL = 0.2
#: The whole probability of "no worse" where it is not so.
NO_WORSE = 0.05
#: The part of it that the stable release's rate has, and the ratio's where both margins are asked about.
STABLE_PART, RATIO_PART = 0.2, 0.2
#: As needed as can be: more requests than anybody has.
UNTOLD = 10**9
SLOW_MS = 10.0
USUAL = 0.95


@dataclass(frozen=True)
class Finding:
    """One metric. *effect* is the difference of the rates, *difference* and *ratio* its bounds at all looks
    together, *limit* what the difference may be. *p* is the chance of so much evidence without a regression,
    *alpha* its limit; *detectable* the smallest rate that would have been found; *clusters* what counts were
    divided by. *metric* names one of the service's own."""

    name: str
    new: tuple[int, int]
    stable: tuple[int, int]
    effect: float
    difference: Bounds
    ratio: Bounds
    limit: float
    p: float
    alpha: float
    detectable: float | None
    clusters: float
    worse: bool
    no_worse: bool
    metric: str = ""


@dataclass(frozen=True)
class Judgment:
    """*needed*: requests of the new release before PASS is possible; *more*: how many are missing, at the
    rates seen (None: no number would do)."""

    verdict: Verdict
    needed: int
    findings: tuple[Finding, ...] = ()
    more: int | None = 0
    timings: tuple[Timing, ...] = ()


def judge(
    spans: Sequence[Span], rule: Rule, latencies: Latencies | None = None, series: Sequence[Series] = ()
) -> Judgment:
    """What all spans since the canary began say together; the last one is the present look. *latencies* are
    the histograms of the same time: without them no quantile is told, and none that is asked for passes.
    *series* are those of the rule's own metrics until then."""
    needed = needed_requests(rule)
    for who, requests in (
        (rule.beside, sum(s.stable.requests for s in spans)),
        ("the new release", sum(s.new.requests for s in spans)),
    ):
        if requests == 0:
            words = (
                f"{who} has answered no user request yet; {needed} are needed{_until(spans, needed, rule)}"
            )
            return Judgment(unknown(Cause.MISSING, words), needed, (), needed)
    told: list[Judged] = of_requests(spans, rule)
    untold: list[Verdict] = []
    known = {one.metric: one for one in series}
    for margin in rule.metrics or ():
        own = of_series(margin, known.get(margin.metric))
        told += [own] if isinstance(own, Judged) else []
        untold += [own] if isinstance(own, Verdict) else []
    return _conclude(told, untold, spans, rule, Shares(latencies or Latencies((), ())))


def slow_bound(latency: Mapping[float, int]) -> float | None:
    """Above which latency (ms) a request counts as slow, from cumulative counts by upper bound (ms)."""
    total = max(latency.values(), default=0)
    bounds = sorted(latency)
    usual = next((b for b in bounds if latency[b] >= USUAL * total), None) if total else None
    if usual is None:
        return None
    found = next((b for b in bounds if b >= max(2 * usual, usual + SLOW_MS)), None)
    return found if found is not None and math.isfinite(found) else None


def needed_requests(rule: Rule) -> int:
    """With no failures on either side, PASS is possible from this many requests of the new release on.

    Where only a ratio is asked about, failures must be seen: `UNTOLD` says that there is no such number.
    """
    levels = [quantiles.least_requests(q.level, NO_WORSE / 4) or UNTOLD for q in rule.judged]
    return max(_needed(rule.points, rule.ratio), *map(math.ceil, levels), 0)


@functools.cache
def _needed(points: float, ratio: float) -> int:
    found = power.least(lambda n: shown_no_worse([Pair(0, n, 0, n, 0)], points, ratio))
    return UNTOLD if found is None else math.ceil(found)


def _finding(metric: Judged, rule: Rule) -> Finding:
    pairs = metric.pairs
    clusters = dispersion.ratio(pairs)
    steps = _thinned(comparable(pairs), clusters)
    p, alpha = evidence(pairs, clusters, _last_look(metric.ends, rule), rule.alpha_each)
    new = round(sum(p.new_bad for p in pairs)), round(sum(p.new for p in pairs))
    stable = round(sum(p.stable_bad for p in pairs)), round(sum(p.stable for p in pairs))
    limit = max(metric.points, (metric.ratio - 1) * stable_rate(steps))
    effect = _rise(steps) if steps else 0.0
    return Finding(
        name=metric.name,
        new=new,
        stable=stable,
        effect=effect,
        difference=difference_bounds(steps, NO_WORSE / 4, NO_WORSE / 4),
        ratio=ratio_bounds(steps, NO_WORSE / 2),
        limit=limit,
        p=p,
        alpha=alpha,
        detectable=power.smallest_rate(steps, rule.alpha_each * (1 - SEQUENTIAL)),
        clusters=clusters,
        worse=p <= alpha and (effect > limit or not metric.lenient),
        no_worse=shown_no_worse(steps, metric.points, metric.ratio),
        metric=metric.metric,
    )


def _timings(spans: Sequence[Span], rule: Rule, shares: Shares) -> tuple[Timing, ...]:
    """The quantiles that are asked for; if none is, p95 is told. Clusters count once, as they do above."""
    if not rule.judged:
        return (quantiles.timing(shares, quantiles.TOLD, None, NO_WORSE / 4),) if shares.above(-1) else ()
    found = []
    for index, quantile in enumerate(rule.judged):
        pairs = beyond(spans, index)
        clusters = dispersion.ratio(pairs)
        p, alpha = evidence(pairs, clusters, _last_look([s.at for s in spans], rule), rule.alpha_each)
        tested = Tested(p, alpha, rule.alpha_each * (1 - SEQUENTIAL))
        found.append(quantiles.timing(shares.scaled(1 / clusters), quantile, tested, NO_WORSE / 4))
    return tuple(found)


def evidence(pairs: list[Pair], clusters: float, last: int | None, alpha: float) -> tuple[float, float]:
    """How surprising the counts are if the new release is not worse, and the limit for that: of the
    sequential test, or of the exact one at the last look (the index of its pair), whichever says more.

    *clusters* is `dispersion.ratio` of the pairs."""
    told = _thinned(pairs, _divisor(pairs, clusters))
    sequential = math.exp(min(0.0, -log_evidence(told))), alpha * SEQUENTIAL
    if last is None:
        return sequential
    then = pairs[: last + 1]
    divisor = _divisor(then, clusters if len(then) == len(pairs) else dispersion.ratio(then))
    exact = tail([_whole(pair, divisor) for pair in comparable(then)]), alpha * (1 - SEQUENTIAL)
    return min(sequential, exact, key=lambda said: said[0] / said[1])


def _divisor(pairs: list[Pair], clusters: float) -> float:
    """How large clusters are; before that can be measured, they are taken for rather large."""
    return max(clusters, dispersion.UNMEASURED if len(pairs) < dispersion.ENOUGH else 1.0)


def _thinned(pairs: list[Pair], clusters: float) -> list[Pair]:
    return pairs if clusters == 1.0 else [pair.scaled(1 / clusters) for pair in pairs]


def _whole(pair: Pair, divisor: float) -> Pair:
    """Whole clusters: of the new release's those that are complete, of the other's the nearest number."""
    if divisor == 1.0:
        return pair
    smaller = pair.scaled(1 / divisor)
    new_bad, stable_bad = float(math.floor(smaller.new_bad)), float(round(smaller.stable_bad))
    new, stable = max(new_bad, round(smaller.new)), max(stable_bad, round(smaller.stable))
    return Pair(pair.step, new, new_bad, stable, stable_bad)


def _last_look(ends: Sequence[float], rule: Rule) -> int | None:
    """The declared last look: the first that is due when the plan has ended. It does not depend on counts."""
    return next((index for index, end in enumerate(ends) if end >= rule.planned), None)


def shown_no_worse(steps: Sequence[Pair], points: float, ratio: float) -> bool:
    """Whether the new release's rate is at most *ratio* times, or *points* above, the stable one's.

    *steps* as `sequential.comparable` gives them. If only one margin is asked about, it has all of the error.
    """
    if not steps:
        return False
    part = 0.0 if ratio <= 1 else 1.0 if points <= 0 else RATIO_PART
    if points > 0:
        alpha = NO_WORSE * (1 - part)
        high = rate_bounds(steps, alpha * (1 - STABLE_PART)).high
        low = stable_bounds(steps, alpha * STABLE_PART).low
        if high <= max(low + points, low * ratio):
            return True
    # Most is staked on "there is no difference".
    bets = (1 / ratio, 1 / ratio, ratio**-2, ratio**-0.6)
    return ratio > 1 and log_evidence(steps, ratio, bets) >= math.log(1 / (NO_WORSE * part))


def _rise(steps: Sequence[Pair]) -> float:
    return sum(p.new_bad for p in steps) / sum(p.new for p in steps) - stable_rate(steps)


# --- the verdict in words ---------------------------------------------------------------------------------


def _conclude(
    told: Sequence[Judged], untold: Sequence[Verdict], spans: Sequence[Span], rule: Rule, shares: Shares
) -> Judgment:
    findings, timings = tuple(_finding(metric, rule) for metric in told), _timings(spans, rule, shares)
    judged, said = _apart(timings, rule)
    so_far = Judgment(combine(untold), needed_requests(rule), findings, 0, timings)
    worse = [*(in_words(f) for f in findings if f.worse), *(quantiles.in_words(t) for t in judged if t.worse)]
    if worse:
        return replace(so_far, verdict=failing(f"worse than {rule.beside}: {'; '.join([*worse, *said])}"))
    missing = [in_words(f) for f in findings if not f.no_worse]
    missing += [quantiles.in_words(t) for t in judged if not t.no_worse]
    if missing:
        open_ones = [metric for metric, f in zip(told, findings, strict=True) if not f.no_worse]
        late = [index for index, t in enumerate(judged) if not t.no_worse]
        more, when = _slowest([*_more(open_ones), *_more_timed(late, told[0], spans, rule, shares)])
        open_verdict = unknown(Cause.MISSING, f"{when}: {'; '.join([*missing, *said])}")
        return replace(so_far, verdict=combine([*untold, open_verdict]), more=more)
    if untold:
        return so_far
    words = [*map(in_words, findings), *map(quantiles.in_words, judged), *said]
    return replace(so_far, verdict=passing(f"no worse than {rule.beside}: {'; '.join(words)}"))


def _apart(timings: Sequence[Timing], rule: Rule) -> tuple[Sequence[Timing], list[str]]:
    """Those that are judged, and words for the one that is only told."""
    return (timings, []) if rule.judged else ((), [quantiles.in_words(t) for t in timings])


def in_words(finding: Finding) -> str:
    """Counts, effect with its interval, what it may be, and what would have been seen."""
    f = finding
    ratio = "" if not f.ratio.low else f", {_times(f.ratio)} times"
    seen = (
        f"; a rise to {100 * f.detectable:.2g}% would be found {power.POWER:.0%} of the time"
        if f.detectable is not None and not f.worse
        else ""
    )
    clusters = (
        f"; they come in clusters of about {f.clusters:.1f}, which count once" if f.clusters > 1 else ""
    )
    chance = f"; by chance {f.p:.1g}, limit {f.alpha:.1g}" if f.worse else ""
    counts = f"{f.new[0]} of {f.new[1]} {f.name} against {f.stable[0]} of {f.stable[1]}"
    points = f"{100 * f.difference.low:+.2f} to {100 * f.difference.high:+.2f}"
    effect = f"{100 * f.effect:+.2f} points, {points}{ratio}; margin {100 * f.limit:.2f}"
    return f"{counts} ({effect}{chance}{seen}{clusters})"


def _times(ratio: Bounds) -> str:
    low, high = (f"{bound:.0f}" if bound >= 10 else f"{bound:.2g}" for bound in (ratio.low, ratio.high))
    return f"at least {low}" if math.isinf(ratio.high) else f"{low} to {high}"


def _missing(more: int | None, metric: Judged) -> tuple[float, str]:
    """For how long, and in words."""
    if more is None:
        words = f"at these rates no number of {metric.what} would show that it is no worse"
        return math.inf, f"too close to call: {words}"
    step = metric.pairs[-1].step
    ends = [end for end, pair in zip(metric.ends, metric.pairs, strict=True) if pair.step == step]
    began = max((end for end in metric.ends if end < ends[0]), default=0.0)
    events = sum(pair.new for pair in metric.pairs if pair.step == step)
    seconds = metric.ends[-1] - began
    needed = f"{more} more {metric.what} of the new release are needed"
    if not events or seconds <= 0:
        return math.inf, f"{needed}, and none come"
    return more * seconds / events, f"{needed}, about {duration(more * seconds / events)}"


def _until(spans: Sequence[Span], needed: int, rule: Rule) -> str:
    """How long it takes until the new release, which has answered none yet, has so many by its share."""
    requests = sum(s.new.requests + s.stable.requests for s in spans)
    part = 0.5 if rule.baseline else spans[-1].step / WHOLE if spans else 0.0
    new = requests * part
    return f", about {duration(needed * spans[-1].at / new)}" if new else ""


def duration(seconds: float) -> str:
    """As people say it, at the present rate."""
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} at the present rate"
    return f"{plural(max(1, math.ceil(seconds)), 'second')} at the present rate"


def _more(metrics: Sequence[Judged]) -> list[tuple[int | None, Judged]]:
    """How many more events of the new release show that it is no worse, if rates and shares stay."""
    return [(_more_of(metric.pairs, metric.points, metric.ratio), metric) for metric in metrics]


def _more_timed(
    late: Sequence[int], requests: Judged, spans: Sequence[Span], rule: Rule, shares: Shares
) -> list[tuple[int | None, Judged]]:
    """How many more *requests* do so for the quantiles with these indices."""
    found: list[tuple[int | None, Judged]] = []
    for index in late:
        clusters = dispersion.ratio(beyond(spans, index))
        more = quantiles.more(shares.scaled(1 / clusters), rule.judged[index], NO_WORSE / 4)
        found.append((None if more is None else math.ceil(more * clusters), requests))
    return found


def _slowest(wanted: Sequence[tuple[int | None, Judged]]) -> tuple[int | None, str]:
    """What takes longest, and what to say of that."""
    said = [_missing(more, metric) for more, metric in wanted]
    slowest = max(range(len(said)), key=lambda n: (said[n][0], wanted[n][0] is None))
    return wanted[slowest][0], said[slowest][1]


def _more_of(pairs: list[Pair], points: float, ratio: float) -> int | None:
    steps = comparable(pairs)
    if not steps:
        return None
    clusters = dispersion.ratio(pairs)
    last = steps[-1]
    rate, alike = sum(p.new_bad for p in steps) / sum(p.new for p in steps), stable_rate(steps)

    def holds(extra: float) -> bool:
        beside = extra * last.stable / last.new
        longer = replace(
            last,
            new=last.new + extra,
            new_bad=last.new_bad + extra * rate,
            stable=last.stable + beside,
            stable_bad=last.stable_bad + beside * alike,
        )
        return shown_no_worse(_thinned([*steps[:-1], longer], clusters), points, ratio)

    if shown_no_worse(_thinned(steps, clusters), points, ratio):
        return 0
    found = power.least(holds)
    return None if found is None else math.ceil(found)
