"""The canary judge: is the new release worse than the stable one beside it, from counts alone?

Called by `checks.canary` at every look, by `ledger.again` (to compute a verdict again) and by ``canary
replay``. Pure: the same counts give the same judgment. Two metrics are judged, the share of failed requests
and the share of slow ones, and the quantiles of latency that are asked for; their errors are those of the
whole canary, however often one looks.

* FAIL as soon as a regression of one is shown. A whole *alpha* of false alarms is split evenly between the
  metrics; of each part a fifth goes to the sequential test at every look (`sequential.log_evidence`), and the
  rest to one exact test at the declared last look (`exact.tail`), which looking often would cost too much of.
  A rise in slow requests, or of a quantile (`quantiles`), must also be beyond its margin: a new process is a
  little slower, and hurts nobody.
* PASS if all are shown to be no worse than the margin: failed requests at most *ratio* times the stable
  release's share, or *points* above it, whichever is more; slow ones at most *slow_points* above; and
  quantiles as each says. All must hold, so nothing is split between them (Berger, *Multiparameter hypothesis
  testing and acceptance sampling*, Technometrics 24, 1982). It holds at every look with `NO_WORSE`.
* UNKNOWN otherwise, with what is missing.

"Slow" is above the first latency bound that is at least twice, and `SLOW_MS` more than, the one that 95% of
the stable release's requests kept before the canary. Clusters count once (`dispersion`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from penstock.analysis import dispersion, power, quantiles
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
from penstock.analysis.spans import beyond, errors, slow
from penstock.analysis.spans import spans_of as spans_of
from penstock.core.canary import Latencies, Rule
from penstock.core.traffic import WHOLE
from penstock.core.verdict import Cause, Verdict, failing, passing, unknown

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
    divided by."""

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


@dataclass(frozen=True)
class Judgment:
    """*needed*: requests of the new release before PASS is possible; *more*: how many are missing, at the
    rates seen (None: no number would do)."""

    verdict: Verdict
    needed: int
    findings: tuple[Finding, ...] = ()
    more: int | None = 0
    timings: tuple[Timing, ...] = ()


def judge(spans: Sequence[Span], rule: Rule, latencies: Latencies | None = None) -> Judgment:
    """What all spans since the canary began say together; the last one is the present look. *latencies* are
    the histograms of the same time: without them no quantile is told, and none that is asked for passes."""
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
    findings = [_finding("failed", errors(spans), spans, rule)]
    if rule.slow_ms is not None:
        findings.append(_finding(f"slower than {rule.slow_ms:g} ms", slow(spans), spans, rule))
    shares = Shares(latencies or Latencies((), ()))
    timings = _timings(spans, rule, shares)
    verdict = _shown(findings, timings, rule)
    if verdict is not None:
        return Judgment(verdict, needed, tuple(findings), 0, timings)
    more = _more(spans, rule, shares)
    return Judgment(_undecided(findings, timings, spans, rule, more), needed, tuple(findings), more, timings)


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


def _finding(name: str, pairs: list[Pair], spans: Sequence[Span], rule: Rule) -> Finding:
    failed = name == "failed"
    points, ratio = (rule.points, rule.ratio) if failed else (rule.slow_points, 1.0)
    clusters = dispersion.ratio(pairs)
    steps = _thinned(comparable(pairs), clusters)
    p, alpha = evidence(pairs, clusters, _last_look(spans, rule), rule.alpha_each)
    new = round(sum(p.new_bad for p in pairs)), round(sum(p.new for p in pairs))
    stable = round(sum(p.stable_bad for p in pairs)), round(sum(p.stable for p in pairs))
    limit = max(points, (ratio - 1) * stable_rate(steps))
    effect = _rise(steps) if steps else 0.0
    return Finding(
        name=name,
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
        worse=p <= alpha and (failed or effect > limit),
        no_worse=shown_no_worse(steps, points, ratio),
    )


def _timings(spans: Sequence[Span], rule: Rule, shares: Shares) -> tuple[Timing, ...]:
    """The quantiles that are asked for; if none is, p95 is told. Clusters count once, as they do above."""
    if not rule.judged:
        return (quantiles.timing(shares, quantiles.TOLD, None, NO_WORSE / 4),) if shares.above(-1) else ()
    found = []
    for index, quantile in enumerate(rule.judged):
        pairs = beyond(spans, index)
        clusters = dispersion.ratio(pairs)
        p, alpha = evidence(pairs, clusters, _last_look(spans, rule), rule.alpha_each)
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


def _last_look(spans: Sequence[Span], rule: Rule) -> int | None:
    """The declared last look: the first that is due when the plan has ended. It does not depend on counts."""
    return next((index for index, span in enumerate(spans) if span.at >= rule.planned), None)


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


def _shown(findings: Sequence[Finding], timings: Sequence[Timing], rule: Rule) -> Verdict | None:
    judged, told = _apart(timings, rule)
    worse = [*(in_words(f) for f in findings if f.worse), *(quantiles.in_words(t) for t in judged if t.worse)]
    if worse:
        return failing(f"worse than {rule.beside}: {'; '.join([*worse, *told])}")
    if all(f.no_worse for f in findings) and all(t.no_worse for t in judged):
        words = [*map(in_words, findings), *map(quantiles.in_words, judged), *told]
        return passing(f"no worse than {rule.beside}: {'; '.join(words)}")
    return None


def _undecided(
    findings: Sequence[Finding],
    timings: Sequence[Timing],
    spans: Sequence[Span],
    rule: Rule,
    more: int | None,
) -> Verdict:
    judged, told = _apart(timings, rule)
    words = [in_words(f) for f in findings if not f.no_worse]
    words += [quantiles.in_words(t) for t in judged if not t.no_worse]
    return unknown(Cause.MISSING, f"{_missing(more, spans)}: {'; '.join([*words, *told])}")


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


def _missing(more: int | None, spans: Sequence[Span]) -> str:
    if more is None:
        return "too close to call: at these rates no number of requests would show that it is no worse"
    own = [span for span in spans if span.step == spans[-1].step]
    began = max((span.at for span in spans if span.at < own[0].at), default=0.0)
    requests, seconds = sum(span.new.requests for span in own), spans[-1].at - began
    if not requests or seconds <= 0:
        return f"{more} more requests of the new release are needed, and none come"
    return f"{more} more requests of the new release are needed, about {duration(more * seconds / requests)}"


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
    return f"{max(1, math.ceil(seconds))} seconds at the present rate"


def _more(spans: Sequence[Span], rule: Rule, shares: Shares) -> int | None:
    """How many more requests of the new release show that it is no worse, if rates and shares stay."""
    metrics = [(errors(spans), rule.points, rule.ratio)]
    if rule.slow_ms is not None:
        metrics.append((slow(spans), rule.slow_points, 1.0))
    needed = [_more_of(*metric) for metric in metrics]
    for index, quantile in enumerate(rule.judged):
        clusters = dispersion.ratio(beyond(spans, index))
        found = quantiles.more(shares.scaled(1 / clusters), quantile, NO_WORSE / 4)
        needed.append(None if found is None else math.ceil(found * clusters))
    return None if any(n is None for n in needed) else max(n for n in needed if n is not None)


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
