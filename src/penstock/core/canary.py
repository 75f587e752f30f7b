"""What a canary's judge was asked and told, as evidence keeps it: enough for anybody to judge again.

Called by `core.predicates` and `analysis.judge`. Must not judge.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from penstock.core.codec import json_name
from penstock.errors import Invalid

#: What both releases did from one look to the next: milliseconds since the canary began, the new release's
#: share of user traffic (thousandths), then requests, errors and slow requests of the new release and of the
#: stable one.
Row = tuple[int, ...]
ROW = 8
#: What the new release is compared with: None is the copies of the stable one that run, "fresh" some that are
#: put up for it, as many as the new release has and with the same share of users.
Baseline = Literal["fresh"]


@dataclass(frozen=True)
class Rule:
    """What is promised and what is asked. Rates and shares from 0 to 1, times in seconds.

    *alpha* is the whole probability of a false alarm. The new release may fail *ratio* times as often as the
    stable one, or *points* more of its requests, whichever is more, and be slow in *slow_points* more of
    them: slower than *slow_ms*, which is None where that cannot be told. The declared last look is the first
    one after *planned*.
    """

    planned: float
    slow_ms: float | None = field(default=None, metadata=json_name("slowMs"))
    alpha: float = 0.01
    ratio: float = 2.0
    points: float = 0.01
    slow_points: float = field(default=0.05, metadata=json_name("slowPoints"))
    baseline: Baseline | None = None

    @property
    def alpha_each(self) -> float:
        """Several metrics share one error budget evenly."""
        return self.alpha / (1 if self.slow_ms is None else 2)

    @property
    def beside(self) -> str:
        """What the new release is compared with, in words."""
        return "the fresh baseline" if self.baseline else "the stable release"

    def check(self, where: str) -> None:
        """Raise `Invalid` for what can promise or show nothing."""
        if not 0 < self.alpha <= 0.2:
            raise Invalid(f"alpha must be above 0, up to 0.2, found {self.alpha:g}", where=where)
        if self.ratio < 1:
            raise Invalid(f"ratio must be 1 or more, found {self.ratio:g}", where=where)
        if not 0 <= self.points < 1 or not 0 < self.slow_points < 1:
            what = "points must be from 0, slow_points above 0, both below 100 per cent"
            raise Invalid(what, where=where)
        if self.ratio == 1 and self.points == 0:
            what = "with a ratio of 1 and points of 0 nothing could ever be shown"
            raise Invalid(what, where=where, next_move="give a margin: ratio: 2, or points: 1")
