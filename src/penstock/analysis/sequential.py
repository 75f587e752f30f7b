"""Tests and intervals that hold at every look: one may look after each request, and stop when one likes.

Called by `judge` and `power`. Pure, plain Python: it runs in every worker. A *pair* is what two releases did
in the same stretch of time; counts are numbers of requests, rates are bad requests per request.

*Is the new release worse?* Given the bad requests of one stretch, d of n + m, each of them fell to the new
release with probability s = n / (n + m) if the releases do not differ, and with θs / (θs + 1 - s) if it fails
θ times as often. The product of these likelihood ratios over all stretches, averaged over `EFFECTS`, is a
test martingale for the first: it ever reaches 1/α with probability at most α (Ville's inequality; Robbins,
*Statistical methods related to the law of the iterated logarithm*, Annals of Mathematical Statistics 41,
1970; Ramdas, Grünwald, Vovk, Shafer, *Game-theoretic statistics and safe anytime-valid inference*,
Statistical Science 38, 2023). What varies for both alike, a busy hour or an outage behind them, cancels. That
the true law is hypergeometric makes it rarer still (Hoeffding, JASA 58, 1963, theorem 4).

*How far apart are the rates?* For each release, the average of exp(λS) divided by its largest expectation,
over `TILTS`, bounds the running mean of its rate, which may drift (Howard, Ramdas, McAuliffe, Sekhon,
*Time-uniform, nonparametric, nonasymptotic confidence sequences*, Annals of Statistics 49, 2021). The stable
release's requests are weighted so that both have the same share in each step: otherwise an outage during the
step in which the new release had most of its requests would count against it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

#: Ratios of rates that the test bets on, each with the same stake.
EFFECTS = (1.5, 2.5, 5.0, 12.0)
#: Tilts λ and their weights: large ones for a handful of bad requests, small ones for thousands.
TILTS = ((8.0, 0.35), (2.5, 0.2), (1.2, 0.15), (0.6, 0.12), (0.25, 0.1), (0.08, 0.08))
#: The stable release's requests may weigh a twentieth of a request, and need larger ones for that.
WEIGHTED_TILTS = ((160.0, 0.1), (40.0, 0.15), (8.0, 0.25), (2.5, 0.2), (1.0, 0.15), (0.4, 0.1), (0.1, 0.05))
#: Beyond this e^x is of no use, and soon no float: such a bet is not made.
LARGEST = 300.0
#: Logarithm of a ratio of rates that nobody asks about.
FAR = 12.0
#: Halvings of an interval: to nine digits.
HALVINGS = 32


#: Of a rate and a tilt, the logarithm of what was won.
Bet = Callable[[float, float], float]
Tilts = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Pair:
    """What two releases did in a stretch of time of one *step* of the canary: requests, and bad ones."""

    step: int
    new: float
    new_bad: float
    stable: float
    stable_bad: float

    @property
    def bad(self) -> float:
        return self.new_bad + self.stable_bad

    @property
    def share(self) -> float:
        """The new release's part of the requests."""
        return self.new / (self.new + self.stable)

    def scaled(self, factor: float) -> Pair:
        numbers = (self.new, self.new_bad, self.stable, self.stable_bad)
        return Pair(self.step, *(number * factor for number in numbers))


@dataclass(frozen=True)
class Bounds:
    low: float
    high: float


def comparable(pairs: Iterable[Pair]) -> list[Pair]:
    """Steps, each as one pair; those in which only one release had requests say nothing, and are left out."""
    steps: dict[int, list[float]] = {}
    for pair in pairs:
        counts = steps.setdefault(pair.step, [0, 0, 0, 0])
        counts[0] += pair.new
        counts[1] += pair.new_bad
        counts[2] += pair.stable
        counts[3] += pair.stable_bad
    summed = [Pair(step, *counts) for step, counts in steps.items()]
    return [pair for pair in summed if pair.new > 0 and pair.stable > 0]


def log_evidence(pairs: Sequence[Pair], ratio: float = 1.0, effects: Sequence[float] = EFFECTS) -> float:
    """The logarithm of the bet against "the new release fails *ratio* times as often as the stable one".

    *effects* are factors beyond that ratio; below one they bet that it fails less often.
    """
    told = [p for p in pairs if (p.new_bad or p.stable_bad) and p.new > 0 and p.stable > 0]
    won = sum([p.new_bad for p in told])
    # θs + 1 - s against ρs + 1 - s, as 1 + xs: the odds that the bet gives away.
    odds = [(p.new_bad + p.stable_bad, p.new / (ratio * p.new + p.stable)) for p in told]
    logs = [
        won * math.log(effect)
        - math.fsum([bad * math.log1p(ratio * (effect - 1) * part) for bad, part in odds])
        for effect in effects
    ]
    return _log_sum(logs) - math.log(len(logs))


def ratio_bounds(pairs: Sequence[Pair], alpha: float) -> Bounds:
    """The ratio of the rates, new to stable; each end is wrong, at any look, with probability *alpha*."""
    steps, limit = comparable(pairs), math.log(1 / alpha)
    less = tuple(1 / effect for effect in EFFECTS)

    if not sum(p.bad for p in steps):
        return Bounds(0.0, math.inf)
    low = _last(lambda r: log_evidence(steps, math.exp(r)) >= limit, -FAR, FAR)
    high = _last(lambda r: log_evidence(steps, math.exp(r), less) < limit, -FAR, FAR)
    return Bounds(
        0.0 if low is None else math.exp(low), math.inf if high in (None, FAR) else math.exp(high or 0.0)
    )


def difference_bounds(pairs: Iterable[Pair], new_alpha: float, stable_alpha: float) -> Bounds:
    """The difference of the rates (new - stable); each end is wrong with the sum of both at most."""
    steps = comparable(pairs)
    if not steps:
        return Bounds(-1.0, 1.0)
    new = rate_bounds(steps, new_alpha)
    stable = stable_bounds(steps, stable_alpha)
    return Bounds(new.low - stable.high, new.high - stable.low)


def rate_bounds(steps: Sequence[Pair], alpha: float) -> Bounds:
    """The new release's rate. A fixed tilt's expectation is largest if every request had the same rate."""
    return _bounds(_new_bet(steps), TILTS, alpha)


def stable_bounds(steps: Sequence[Pair], alpha: float) -> Bounds:
    """The rate of the stable release, had it been asked when the new one was.

    A bad request counts n / m, the new release's requests for each of its own in that step; (e^λv - 1) / v
    grows with v, so the largest weight bounds them all.
    """
    return _bounds(_stable_bet(steps), WEIGHTED_TILTS, alpha)


def sides(steps: Sequence[Pair], rate: float, alpha: float) -> tuple[int, int]:
    """On which side of *rate* that of the new release, and of the stable one, is shown to be: 1 above it, -1
    below it, 0 if neither. Each is wrong, at any look, with probability *alpha*."""
    if not steps:
        return 0, 0
    bets: list[tuple[Bet, Tilts]] = [(_new_bet(steps), TILTS), (_stable_bet(steps), WEIGHTED_TILTS)]
    limit = math.log(1 / alpha)
    new, stable = (
        next((sign for sign in (1, -1) if _stake(bet, tilts, rate, sign) >= limit), 0) for bet, tilts in bets
    )
    return new, stable


def _new_bet(steps: Sequence[Pair]) -> Bet:
    requests, bad = sum(p.new for p in steps), sum(p.new_bad for p in steps)
    return lambda rate, tilt: tilt * bad - requests * math.log1p(rate * math.expm1(tilt))


def _stable_bet(steps: Sequence[Pair]) -> Bet:
    requests = sum(p.new for p in steps)
    bad = sum(p.stable_bad * p.new / p.stable for p in steps)
    most = max(p.new / p.stable for p in steps)

    def log_bet(rate: float, tilt: float) -> float:
        if tilt * most > LARGEST:
            return -math.inf
        return tilt * bad - requests * rate * math.expm1(tilt * most) / most

    return log_bet


def stable_rate(steps: Sequence[Pair]) -> float:
    """The rate that `stable_bounds` bounds."""
    requests = sum(p.new for p in steps)
    return sum(p.stable_bad * p.new / p.stable for p in steps) / requests if requests else 0.0


def _bounds(log_bet: Bet, tilts: Tilts, alpha: float) -> Bounds:
    """Rates against which neither the bets on fewer nor those on more have won 1/alpha."""
    limit = math.log(1 / alpha)
    low = _last(lambda rate: _stake(log_bet, tilts, rate, 1) >= limit, 0.0, 1.0)
    high = _last(lambda rate: _stake(log_bet, tilts, rate, -1) < limit, 0.0, 1.0)
    return Bounds(low or 0.0, 1.0 if high is None else high)


def _stake(log_bet: Bet, tilts: Tilts, rate: float, sign: int) -> float:
    """The logarithm of what bets against *rate* have come to, on more bad requests (1) or on fewer (-1)."""
    return _log_sum([math.log(weight) + log_bet(rate, sign * tilt) for tilt, weight in tilts])


def _last(holds: Callable[[float], bool], low: float, high: float) -> float | None:
    """The end of the values from *low* on at which *holds*; None if it does not hold even there."""
    if not holds(low):
        return None
    if holds(high):
        return high
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _log_sum(logs: Sequence[float]) -> float:
    top = max(logs)
    if math.isinf(top):
        return top
    return top + math.log(math.fsum(math.exp(value - top) for value in logs))
