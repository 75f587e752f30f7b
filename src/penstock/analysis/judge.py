"""The canary judge: is the new release worse than the stable one beside it, from counts alone?

Called by ``checks.canary``. Pure: the same counts give the same judgment. Two questions are asked of
each of two quantities, the share of failed requests and the share of slow ones:

* *worse?* Fisher's exact test, one-sided, at alpha divided by the number of looks the plan can take
  (Bonferroni: looking often stays honest) and by the two quantities; and the difference is beyond the
  margin, so that a significant trifle does not stop a release.
* *no worse?* Newcombe's hybrid score interval for the difference of two shares (Statistics in
  Medicine 17, 1998, method 10): its upper end at 95%, one-sided, is within the margin.

FAIL if either quantity is worse; PASS only if both are shown to be no worse; else UNKNOWN. "Slow" is
above the first latency bound that is at least twice, and `SLOW_MS` more than, the one that 95% of the
stable release's requests keep: going from one millisecond to two hurts nobody.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from penstock.core.verdict import Cause, Verdict, failing, passing, unknown

#: The whole probability, over all looks, of stopping a release that is not worse.
ALPHA = 0.01
#: One-sided 95%: how sure "no worse" must be.
Z_NO_WORSE = 1.6449
#: Margins: errors may rise by the larger of one percentage point and the stable share itself (2×).
ERROR_MARGIN = 0.01
#: The share of slow requests may rise by ten percentage points.
SLOW_MARGIN = 0.10
SLOW_MS = 10.0
#: With no failures on either side, the score interval fits the error margin from here on.
NEEDED = math.ceil(Z_NO_WORSE**2 * (1 - ERROR_MARGIN) / ERROR_MARGIN)


@dataclass(frozen=True)
class Window:
    """What one release did in a stretch of time. *latency*: upper bound (ms) → cumulative count."""

    requests: int
    errors: int
    latency: Mapping[float, int]

    def above(self, bound: float) -> int:
        """How many requests took longer than *bound*, which must be one of the histogram's."""
        total = max(self.latency.values(), default=0)
        return total - self.latency.get(bound, total)


@dataclass(frozen=True)
class Judgment:
    """*needed*: how many requests the new release must have answered before PASS is possible."""

    verdict: Verdict
    needed: int


def judge(new: Window, stable: Window, looks: int) -> Judgment:
    """Compare one window of each release. *looks* is the number of looks planned in all."""
    if stable.requests == 0 or new.requests == 0:
        who = "the stable release" if stable.requests == 0 else "the new release"
        return Judgment(unknown(Cause.MISSING, f"{who} has answered no user request yet"), NEEDED)
    bound = slow_bound(stable)
    error_margin = max(ERROR_MARGIN, stable.errors / stable.requests)
    quantities = [("failed", new.errors, stable.errors, error_margin)]
    if bound is not None:
        name = f"slower than {bound:g} ms"
        quantities.append((name, new.above(bound), stable.above(bound), SLOW_MARGIN))
    alpha = ALPHA / (looks * len(quantities))
    compared = [_compare(*quantity, new.requests, stable.requests, alpha) for quantity in quantities]
    return Judgment(_conclude(compared, new.requests), NEEDED)


def slow_bound(stable: Window) -> float | None:
    """Above which latency (ms) a request counts as slow; None where the histogram cannot tell."""
    total = max(stable.latency.values(), default=0)
    bounds = sorted(stable.latency)
    usual = next((b for b in bounds if stable.latency[b] >= 0.95 * total), None) if total else None
    if usual is None:
        return None
    return next((b for b in bounds if b >= max(2 * usual, usual + SLOW_MS)), None)


@dataclass(frozen=True)
class _Comparison:
    worse: bool
    no_worse: bool
    words: str


def _compare(  # noqa: PLR0913 (six counts are six counts)
    name: str, new: int, stable: int, margin: float, new_total: int, stable_total: int, alpha: float
) -> _Comparison:
    difference = new / new_total - stable / stable_total
    p = fisher(new, new_total, stable, stable_total)
    upper = newcombe_upper(new, new_total, stable, stable_total, Z_NO_WORSE)
    words = (
        f"{new} of {new_total} {name} against {stable} of {stable_total} "
        f"(+{100 * max(difference, 0):.2f} points, at most +{100 * upper:.2f}; margin {100 * margin:.2f})"
    )
    return _Comparison(p <= alpha and difference > margin, upper <= margin, words)


def _conclude(compared: list[_Comparison], requests: int) -> Verdict:
    worse = [item.words for item in compared if item.worse]
    if worse:
        return failing("worse than the stable release: " + "; ".join(worse))
    if all(item.no_worse for item in compared):
        return passing("no worse than the stable release: " + "; ".join(item.words for item in compared))
    missing = max(0, NEEDED - requests)
    more = f"at least {missing} more requests are needed" if missing else "the shares are too close to call"
    open_words = "; ".join(item.words for item in compared if not item.no_worse)
    return unknown(Cause.MISSING, f"{more}: {open_words}")


def fisher(new: int, new_total: int, stable: int, stable_total: int) -> float:
    """P(at least *new* of the bad ones fall to the new release by chance alone), exactly."""
    bad, total = new + stable, new_total + stable_total
    whole = _log_choose(total, bad)
    terms = (
        _log_choose(new_total, k) + _log_choose(stable_total, bad - k) - whole
        for k in range(new, min(bad, new_total) + 1)
        if bad - k <= stable_total
    )
    return min(1.0, math.fsum(math.exp(term) for term in terms))


def newcombe_upper(new: int, new_total: int, stable: int, stable_total: int, z: float) -> float:
    """Upper confidence limit of the difference of two shares (new − stable)."""
    p_new, p_stable = new / new_total, stable / stable_total
    _, new_high = wilson(new, new_total, z)
    stable_low, _ = wilson(stable, stable_total, z)
    return p_new - p_stable + math.hypot(new_high - p_new, p_stable - stable_low)


def wilson(bad: int, total: int, z: float) -> tuple[float, float]:
    """Wilson's score interval for a share."""
    p, spread = bad / total, z * z / total
    middle = (p + spread / 2) / (1 + spread)
    half = math.sqrt(p * (1 - p) * spread + spread * spread / 4) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
