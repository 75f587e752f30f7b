"""What ``penstock.yaml`` says of a canary: its steps, and what its judge promises and asks.

Called by `config`, which reads it, and by whoever plans or judges a canary. Must not judge.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.core.canary import Baseline, Quantile, Rule
from penstock.errors import Invalid

WHERE = "penstock.yaml: canary"
#: Each look is evidence of all those before it.
MOST_LOOKS = 500
#: Per cent of users that the new release can have beside as many of a fresh baseline.
MOST_BESIDE = 50.0


@dataclass(frozen=True)
class JudgeConfig:
    """*alpha* is the whole probability of stopping a release that is no worse, over all looks and metrics.

    A release passes once it is shown that its share of failed requests is at most *ratio* times the stable
    release's, or *points* percentage points above it, whichever is more, and its share of slow ones at most
    *slow_points* above. A ratio of 1, or points of 0, leave the other margin alone.

    *quantiles* of latency (per cent of requests that are faster) are judged too: each at most
    *quantile_ratio* times the stable release's, or *quantile_ms* above it, whichever is more.
    """

    alpha: float = 0.01
    ratio: float = 2.0
    points: float = 1.0
    slow_points: float = 5.0
    quantiles: tuple[float, ...] = ()
    quantile_ratio: float = 2.0
    quantile_ms: float = 10.0

    def rule(self, planned: float, slow_ms: float | None = None, baseline: Baseline | None = None) -> Rule:
        """The same, as the judge takes it: shares of one, and when the declared last look is due."""
        judged = tuple(
            Quantile(round(level / 100, 6), self.quantile_ratio, self.quantile_ms) for level in self.quantiles
        )
        margins = (self.ratio, self.points / 100, self.slow_points / 100)
        return Rule(planned, slow_ms, self.alpha, *margins, baseline, judged or None)


DEFAULT_JUDGE = JudgeConfig()


@dataclass(frozen=True)
class CanaryConfig:
    """*steps* are per cent of user traffic, rising; each lasts *seconds_per_step*.

    The releases are compared every *look_every* seconds. If the last step ends before there were
    enough requests to tell, it is extended up to *patience* seconds; not for a service that is so
    quiet that they would never be enough. With a fresh *baseline*, the new release is compared with copies of
    the stable one that are put up for it, and have as many users.
    """

    steps: tuple[float, ...] = (5.0, 25.0, 50.0)
    seconds_per_step: float = 20.0
    look_every: float = 5.0
    patience: float = 60.0
    judge: JudgeConfig | None = None
    baseline: Baseline | None = None

    @property
    def planned(self) -> float:
        """When the declared last look is due, in seconds: at the end of the last step; half an interval
        less, for a look comes late, never early."""
        return len(self.steps) * self.seconds_per_step - self.look_every / 2

    def rule(self, slow_ms: float | None = None) -> Rule:
        """What the judge promises and asks in this canary."""
        return (self.judge or DEFAULT_JUDGE).rule(self.planned, slow_ms, self.baseline)

    def check(self) -> None:
        """Raise `Invalid` for a plan that is none."""
        steps = self.steps
        if not steps or any(not 0.1 <= step < 100 for step in steps) or list(steps) != sorted(set(steps)):
            found = ", ".join(f"{step:g}" for step in steps) or "none"
            what = f"canary.steps must rise, each from 0.1 to below 100 per cent; found: {found}"
            move = "for example steps: [5, 25, 50]; all users come with the promotion"
            raise Invalid(what, where=WHERE, next_move=move)
        if self.baseline and steps[-1] > MOST_BESIDE:
            raise Invalid(
                f"a step of {steps[-1]:g} per cent leaves too few users for a fresh baseline",
                where=f"{WHERE}.steps",
                next_move=f"it has as many as the new release: end at {MOST_BESIDE:g}, or leave baseline out",
            )
        if self.look_every <= 0 or self.seconds_per_step <= 0 or self.patience < 0:
            found = f"seconds_per_step {self.seconds_per_step:g}, look_every {self.look_every:g}, "
            raise Invalid(
                f"canary times must be above zero (patience may be zero); found: {found}"
                f"patience {self.patience:g}",
                where=WHERE,
                next_move="leave them out: the defaults suit most services",
            )
        looks = (len(steps) * self.seconds_per_step + self.patience) / self.look_every
        if looks > MOST_LOOKS:
            raise Invalid(
                f"{looks:.0f} looks, at most {MOST_LOOKS}",
                where=WHERE,
                next_move="raise canary.look_every: looking less often loses no power",
            )
        self.rule().check(f"{WHERE}.judge")
