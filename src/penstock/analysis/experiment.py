"""Experiments: which variant brings more users to the goal, and whether these users can tell at all.

Called by `checks.weigh` at every look, by `ledger.looks` (to compute a verdict again), by the pages and,
for `plan`, before anything begins. Pure, plain Python. All of it holds at every look: one may stop when one
likes.

*Which is better?* Users are dealt by a hash, so each of those who reach the goal was dealt to the variant (of
this and the control) with probability θ = ρs / (ρs + t), where s and t are the shares and ρ is how many times
as often the variant's users reach it. What is bet against a ρ is the average likelihood of all θ under a beta
law around ρ = 1, over that of its θ: it ever reaches 1/α with probability at most α (Robbins, *Statistical
methods related to the law of the iterated logarithm*, Annals of Mathematical Statistics 41, 1970); the ρ
against which it has not are the interval. Nothing is assumed of the users, nor of when they come or how long
they take; those who do not reach the goal say nothing, so that it costs 1 / (1 - rate) times the users of a
test that hears them. Of several variants each has its part of α (Bonferroni).

*Were users dealt as was asked?* The numbers of users against the shares, by the same bet with a Dirichlet law
(Lindon and Malek, *Anytime-valid inference for multinomial count data*, NeurIPS 2022), at `SRM_ALPHA`.

*Is anything broken?* The canary's judge (`judge`), of requests, each variant against the control.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from penstock.analysis import power
from penstock.analysis.judge import duration, spans_of
from penstock.analysis.judge import judge as guarded
from penstock.analysis.sequential import Bounds
from penstock.core.experiment import MOST_USERS, Arm, Experiment, Terms
from penstock.core.experiment import Plan as Asked
from penstock.core.traffic import WHOLE
from penstock.core.verdict import Cause, Result, Verdict, failing, passing, unknown

#: The probability of a mismatch where there is none.
SRM_ALPHA = 0.001
#: How closely the bets on a mismatch lie around the shares, in users; each has the same stake.
SRM_USERS = (100.0, 10_000.0)
#: Of all users, so many may have been answered by two releases.
MOST_MOVED = 0.01
#: Logarithm of a ratio of rates that nobody asks about, and halvings of an interval: to nine digits.
FAR, HALVINGS = 8.0, 36


@dataclass(frozen=True)
class Judgment:
    """*ratio* is the interval of the rates, variant to control, and *seen* the one that was seen; *srm* the
    chance of such numbers of users, were they dealt as asked; *more* how many users are missing at the rates
    seen (None: no number would do). *broken*: a guardrail is."""

    verdict: Verdict
    ratio: Bounds
    seen: float | None
    srm: float
    more: int | None = 0
    broken: bool = False


def judge(look: Experiment) -> Judgment:
    """What a look says of its variant; its own verdict is not read. The first of these that holds:

    a guardrail is broken: FAIL; the counts cannot be trusted: UNKNOWN; it is above what was asked for: PASS,
    or below it: FAIL; else UNKNOWN, with what is missing.
    """
    control, variant = look.arms[0], next(arm for arm in look.arms if arm.name == look.variant)
    alpha = look.terms.alpha / (len(look.arms) - 1)
    ratio, srm = ratio_bounds(control, variant, alpha, look.terms), mismatch(look.arms)
    seen = _seen(control, variant)
    guard = guarded(spans_of(look.rows), look.guard).verdict if look.rows else None
    if guard is not None and guard.result is Result.FAIL:
        return Judgment(failing(f"guardrail: {guard.reason}"), ratio, seen, srm, broken=True)
    wrong = _untrusted(look, srm)
    if wrong:
        return Judgment(unknown(Cause.ERROR, wrong), ratio, seen, srm)
    said, bar = in_words(control, variant, ratio, look.terms), look.terms.bar
    if ratio.high < bar:
        return Judgment(failing(f"{_asked(look.terms, False)}: {said}"), ratio, seen, srm)
    if ratio.low > bar and guard is not None:
        return Judgment(passing(f"{_asked(look.terms, True)}: {said}"), ratio, seen, srm)
    more = missing(control, variant, alpha, look.terms) if ratio.low <= bar else 0
    reason = f"{_missing(more, look)}: {said}" if ratio.low <= bar else f"no guardrail was read: {said}"
    return Judgment(unknown(Cause.MISSING, reason), ratio, seen, srm, more)


def _untrusted(look: Experiment, srm: float) -> str:
    """Why these users say nothing; "" if they may."""
    users = sum(arm.users for arm in look.arms)
    if look.fault:
        return look.fault
    if look.moved > MOST_MOVED * users:
        return f"{look.moved} of {users} users were answered by two releases: their places were not kept"
    if srm <= SRM_ALPHA:
        dealt = ", ".join(f"{arm.name} {arm.users} of {arm.share / 10:g}%" for arm in look.arms)
        chance = f"by chance {srm:.1g}, limit {SRM_ALPHA:g}"
        return f"sample ratio mismatch: users were not dealt as asked ({dealt}; {chance})"
    return ""


# --- the numbers --------------------------------------------------------------------------------------------


def mismatch(arms: Sequence[Arm]) -> float:
    """The chance of such numbers of users, or stranger ones at any look, were they dealt as was asked."""
    counts, shares = [float(arm.users) for arm in arms], [arm.share / WHOLE for arm in arms]
    logs = [_log_bet(counts, shares, users) for users in SRM_USERS]
    top = max(logs)
    evidence = top + math.log(sum(math.exp(each - top) for each in logs) / len(logs))
    return math.exp(min(0.0, -evidence))


def ratio_bounds(control: Arm, variant: Arm, alpha: float, terms: Terms) -> Bounds:
    """How many times as often the variant's users reach the goal; wrong, at any look, with probability
    *alpha* at most."""
    return _bounds((control.reached, variant.reached), (control.share, variant.share), alpha, terms)


def _bounds(reached: tuple[float, float], shares: tuple[int, int], alpha: float, terms: Terms) -> Bounds:
    """*reached* and *shares* of the control and the variant."""
    limit = math.log(1 / alpha)

    def won(x: float) -> bool:
        return _evidence(reached, shares, x, terms) >= limit

    if not sum(reached):
        return Bounds(0.0, math.inf)
    best = math.log(max(reached[1], 1e-9) * shares[0] / (max(reached[0], 1e-9) * shares[1]))
    best = min(FAR, max(-FAR, best))
    low = math.exp(_edge(won, -FAR, best)) if won(-FAR) else 0.0
    high = math.exp(_edge(won, FAR, best)) if won(FAR) else math.inf
    return Bounds(low, high)


def _edge(won: Callable[[float], bool], out: float, best: float) -> float:
    """Where the bets cease to be won, on the way from *out* to *best*."""
    for _ in range(HALVINGS):
        middle = (out + best) / 2
        out, best = (middle, best) if won(middle) else (out, middle)
    return out


def _evidence(reached: tuple[float, float], shares: tuple[int, int], x: float, terms: Terms) -> float:
    """The logarithm of what is won against the ratio e^x."""
    part = shares[1] / sum(shares)
    theta = _theta(x, part)
    # As wide around "no difference" as what is looked for is far from it.
    far = math.log1p(terms.effect) if terms.expect == "better" else -math.log1p(-terms.margin)
    spread = 1 / (part * (1 - part) * far * far)
    prior = _log_bet((reached[1], reached[0]), (part, 1 - part), spread)
    return prior + sum(
        count * (math.log(own) - math.log(there))
        for count, own, there in ((reached[1], part, theta), (reached[0], 1 - part, 1 - theta))
    )


def _theta(x: float, part: float) -> float:
    """How likely one who reaches the goal is the variant's, if its users do so e^x times as often."""
    return part * math.exp(x) / (part * math.exp(x) + 1 - part)


def _log_bet(counts: Sequence[float], shares: Sequence[float], spread: float) -> float:
    """The logarithm of the likelihood of *counts* under a Dirichlet law around *shares*, over theirs."""
    total = math.lgamma(spread) - math.lgamma(spread + sum(counts))
    return total + sum(
        math.lgamma(spread * share + count) - math.lgamma(spread * share) - count * math.log(share)
        for count, share in zip(counts, shares, strict=True)
    )


def missing(control: Arm, variant: Arm, alpha: float, terms: Terms) -> int | None:
    """How many more users show it, one way or the other, if rates and shares stay; None if none would."""
    users, shares = control.users + variant.users, (control.share, variant.share)
    if not users or not control.reached + variant.reached:
        return None

    def holds(extra: float) -> bool:
        factor = (users + extra) / users
        found = _bounds((control.reached * factor, variant.reached * factor), shares, alpha, terms)
        return found.low > terms.bar or found.high < terms.bar

    found = power.least(holds)
    return None if found is None else math.ceil(found)


def _seen(control: Arm, variant: Arm) -> float | None:
    if not (control.users and variant.users and control.reached):
        return None
    return (variant.reached / variant.users) / (control.reached / control.users)


# --- in words -----------------------------------------------------------------------------------------------


def in_words(control: Arm, variant: Arm, ratio: Bounds, terms: Terms) -> str:
    """Counts, and the interval of the relative change."""
    told = [_rate(arm) for arm in (variant, control)]
    change = f"{_per_cent(ratio.low)} to {_per_cent(ratio.high)}"
    bar = f"; margin {-100 * terms.margin:g}%" if terms.expect == "no-worse" else ""
    return f"{told[0]} against {told[1]} ({change}{bar})"


def _rate(arm: Arm) -> str:
    rate = f" ({100 * arm.reached / arm.users:.2f}%)" if arm.users else ""
    return f"{arm.name} {arm.reached} of {arm.users} users{rate}"


def _per_cent(ratio: float) -> str:
    return "more" if math.isinf(ratio) else f"{100 * (ratio - 1):+.1f}%"


def _asked(terms: Terms, passed: bool) -> str:
    if terms.expect == "better":
        return "more users reach the goal" if passed else "fewer users reach the goal"
    return "no worse than the margin" if passed else "worse than the margin"


def _missing(more: int | None, look: Experiment) -> str:
    users = sum(arm.users for arm in look.arms)
    if not all(arm.users for arm in look.arms):
        return "not every variant has users yet"
    if more is None:
        return "too close to call: at these rates no number of users would show a difference"
    pair = sum(arm.users for arm in look.arms if arm.name in (look.arms[0].name, look.variant))
    more = math.ceil(more * users / pair)
    seconds = look.rows[-1][0] / 1000 if look.rows else 0.0
    when = f", about {duration(more * seconds / users)}" if seconds else ""
    return f"about {more} more users are needed{when}"


# --- before it begins ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Planned:
    """Users in all, of which `power.POWER` of such experiments end earlier, and those that a single test at
    the end would take. *seconds* is how long they take to come; None if that is not known. It is not
    *reachable* if that is longer than the experiment may take, or they are more than can be told apart."""

    users: int
    fixed: int
    seconds: float | None
    reachable: bool
    words: str


def plan(asked: Asked, rate: float, per_day: float) -> Planned:
    """What it takes to show a change of ``terms.effect`` (or, for ``no-worse``, that there is none), where
    *rate* of the control's users reach the goal (0 to 1) and *per_day* come (0: not known)."""
    terms, shares = asked.terms, (asked.control, min(variant.share for variant in asked.variants))
    alpha, ratio = terms.alpha / len(asked.variants), 1 + terms.effect if terms.expect == "better" else 1.0
    reached = rate * (shares[0] + ratio * shares[1]) / WHOLE
    users = math.ceil((_reached_needed(shares, alpha, ratio, terms) or math.inf) / reached)
    fixed = math.ceil(_fixed(shares, alpha, (rate, rate * ratio, rate * terms.bar)))
    seconds = users / per_day * 86400 if per_day else None
    what = f"a change of {100 * terms.effect:+g}%" if terms.expect == "better" else "that it is no worse"
    words = (
        f"{users} users show {what}, {power.POWER:.0%} of the time; a single test at the end takes {fixed}"
    )
    if seconds is not None:
        words += f"; about {duration(seconds)}"
    reachable = users <= MOST_USERS and (seconds or 0.0) <= terms.longest
    if not reachable:
        limit = f"{MOST_USERS} users" if users > MOST_USERS else f"{terms.longest / 3600:g} hours"
        words += f": more than {limit}, which is the most; raise effect (or margin)"
    return Planned(users, fixed, seconds, reachable, words)


def _reached_needed(shares: tuple[int, int], alpha: float, ratio: float, terms: Terms) -> float | None:
    part = shares[1] / sum(shares)
    theta, short = _theta(math.log(ratio), part), NormalDist().inv_cdf(power.POWER)

    def holds(n: float) -> bool:
        variant = max(0.0, n * theta - short * math.sqrt(n * theta * (1 - theta)))
        won = _evidence((n - variant, variant), shares, math.log(terms.bar), terms) >= math.log(1 / alpha)
        return won and variant > n * _theta(math.log(terms.bar), part)

    return power.least(holds)


def _fixed(shares: tuple[int, int], alpha: float, rates: tuple[float, float, float]) -> float:
    """The two-sided test of two proportions; *rates* of the control, the variant, and what it is held to."""
    control, variant, bar = rates
    normal = NormalDist()
    far = normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power.POWER)
    spread = sum(
        rate * (1 - rate) * WHOLE / share for rate, share in zip((control, variant), shares, strict=True)
    )
    return far * far * spread / (variant - bar) ** 2
