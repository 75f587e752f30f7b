"""The values of an experiment: its question, its users, what they did, and what is kept as evidence.

Called by every layer that plans, runs, counts or judges experiments. Must not judge.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from penstock.core.canary import Row
from penstock.core.canary import Rule as Guard
from penstock.core.facts import Fact
from penstock.core.release import EnvironmentData, Value
from penstock.core.traffic import WHOLE, Counters
from penstock.errors import Invalid

#: The name of what is live, beside the variants.
CONTROL = "control"
#: Variants beside the control.
MOST_VARIANTS = 5
#: Looks that an experiment takes at most; each leaves a row for every guardrail.
MOST_LOOKS = 500
#: Users that are told apart in one experiment: beyond, nobody new is counted.
MOST_USERS = 500_000
Word = Literal["PASS", "FAIL", "UNKNOWN"]


@dataclass(frozen=True)
class Goal:
    """A user has reached it once a request of *method* to *path* is answered below 400.

    A path that ends in ``/*`` stands for everything below it. The query is not looked at.
    """

    path: str
    method: str = "GET"

    def check(self, where: str) -> None:
        """Raise `Invalid`, naming the field."""
        if self.method not in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            what = f"one of GET, POST, PUT, PATCH, DELETE, found {self.method[:20]!r}"
            raise Invalid(what, where=f"{where}.method")
        if not re.fullmatch(r"/[!-)+->@-~]{0,499}(\*)?", self.path) or self.path.endswith(("//*", "?")):
            what = f"{self.path[:80]!r} is no path such as /thanks, or /orders/* for all below it"
            raise Invalid(what, where=f"{where}.path", next_move="leave the query out: it is not looked at")
        if self.path.endswith("*") and not self.path.endswith("/*"):
            raise Invalid(f"{self.path[:80]!r}: a star follows a slash", where=f"{where}.path")

    def met(self, method: str, path: str, status: int) -> bool:
        """Whether this request of a user reaches it."""
        if method != self.method or not 200 <= status < 400:
            return False
        return path.startswith(self.path[:-1]) if self.path.endswith("*") else path == self.path


@dataclass(frozen=True)
class Seen:
    """Users whose first request went to a release, and how many of them have *reached* the goal there."""

    users: int
    reached: int


@dataclass(frozen=True)
class Users:
    """All users of an experiment so far, by release; it crosses the `Metrics` port.

    *epoch* changes if counting had to begin again. *moved* users were answered by another release than at
    first. Of those beyond `MOST_USERS` nobody is counted: it is *full*. *lost* says why requests may be
    missing; "" if none are.
    """

    at: float
    epoch: str
    seen: Mapping[str, Seen] = field(default_factory=dict)
    moved: int = 0
    full: bool = False
    lost: str = ""


@dataclass(frozen=True)
class Terms:
    """What an experiment promises and asks. Shares and rates from 0 to 1, times in seconds.

    *alpha* is the probability that any variant's interval ever misses the truth. A variant has to be
    ``better`` than the control, or ``no-worse``: its rate at least 1 - *margin* of the control's. *effect* is
    the relative change for which the intervals are made narrowest. It ends after *longest*, at the latest.
    """

    expect: Literal["better", "no-worse"] = "better"
    alpha: float = 0.05
    margin: float = 0.05
    effect: float = 0.1
    longest: float = 14 * 86400.0

    @property
    def bar(self) -> float:
        """What the ratio of the rates, variant to control, is to be above."""
        return 1.0 if self.expect == "better" else 1.0 - self.margin

    def check(self) -> None:
        """Raise `Invalid`, naming the field, for what can promise or show nothing."""
        for name, low, high in (("alpha", 0.0001, 0.2), ("margin", 0.001, 0.5), ("effect", 0.005, 2.0)):
            value = getattr(self, name)
            if not low <= value <= high:
                what = f"from {100 * low:g} to {100 * high:g} per cent, found {100 * value:g}"
                raise Invalid(what, where=name)
        if not 60 <= self.longest <= 90 * 86400:
            what = f"from a minute to 90 days, found {self.longest:g} seconds"
            raise Invalid(what, where="longest_hours")


@dataclass(frozen=True)
class Variant:
    """One that some users see. *values* is what differs from the live environment data; *share* in
    thousandths of all users."""

    name: str
    values: Mapping[str, Value]
    share: int


@dataclass(frozen=True)
class Plan:
    """What is asked in an experiment called *name*; *source* is its exact text."""

    name: str
    service: str
    goal: Goal
    terms: Terms
    variants: tuple[Variant, ...]
    source: str

    @property
    def control(self) -> int:
        """Thousandths of users that stay with what is live."""
        return WHOLE - sum(variant.share for variant in self.variants)

    @property
    def names(self) -> tuple[str, ...]:
        """The control, and the variants in their order."""
        return (CONTROL, *(variant.name for variant in self.variants))


@dataclass(frozen=True)
class Arm:
    """One release among those that users were dealt to: *share* in thousandths, and what came of it."""

    name: str
    release: str
    share: int
    users: int
    reached: int


@dataclass(frozen=True)
class Experiment:
    """One look at all users of an experiment, about one of its variants. Counts, not rates.

    With *terms* and *arms*, the control first, they give the *verdict* on *variant* to whoever asks again;
    with the *guard* and its *rows* (of this variant, as a canary keeps them) that of the guardrails. *course*
    is how it came to that, look by look: milliseconds since it began, then users and those who reached the
    goal, of the control and of the variant. *ended* is true of the last look. What is wrong with the counts
    (*fault*) makes it UNKNOWN.
    """

    TYPE: ClassVar[str] = "urn:penstock:experiment:v1"
    delivery: str
    experiment: str
    variant: str
    verdict: Word
    explanation: str
    goal: Goal
    terms: Terms
    arms: tuple[Arm, ...]
    moved: int
    look: int
    ended: bool
    guard: Guard
    rows: tuple[Row, ...] = ()
    course: tuple[Row, ...] = ()
    fault: str = ""
    at: float | None = None


@dataclass(frozen=True)
class Dealt:
    """What users of the variant *name* are given."""

    name: str
    data: EnvironmentData


@dataclass(frozen=True)
class Weighed:
    """What a look at an experiment found, and the readings of all its releases, the control first. *epoch*
    is that of the users counted; *verdicts* are those of the variants. After one that *ended* there is none.
    """

    kind: Literal["weighed"]
    epoch: str
    counters: tuple[Counters, ...]
    arms: tuple[Arm, ...] = ()
    verdicts: tuple[str, ...] = ()
    ended: bool = False


def facts(look: Experiment) -> Mapping[str, Fact]:
    """What a policy may ask of the newest look."""
    return {
        "evidence.experiment.name": look.experiment,
        "evidence.experiment.verdict": look.verdict,
        "evidence.experiment.users": sum(arm.users for arm in look.arms),
        "evidence.experiment.explanation": look.explanation,
    }
