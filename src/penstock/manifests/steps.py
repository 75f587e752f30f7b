"""Weights that rise, as others write them, to ``canary`` of ``penstock.yaml``; and margins of its judge.

Called by `rollout` and `flagger`. Here every step lasts equally long, and a judge looks at all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock.core.canaryconfig import MOST_LOOKS, CanaryConfig
from penstock.manifests.draft import Draft
from penstock.manifests.place import Place

DEFAULT = CanaryConfig()
#: A margin beyond this would let nearly anything through, and was meant to be something else.
WIDEST = 50.0
SLO = "an SLO holds promotions up by absolute numbers: docs/guides/slo.md"


@dataclass
class Step:
    """*weight* per cent of users, for *seconds*, or as long as somebody waits (*open*); as *place* says."""

    weight: float
    seconds: float
    place: Place
    open: bool = False


def set_steps(draft: Draft, steps: Sequence[Step], source: Place) -> None:
    """The steps that may be: rising, from 0.1 to below 100 per cent; the others are told."""
    kept: list[Step] = []
    for step in steps:
        highest = kept[-1].weight if kept else 0.0
        if step.weight >= 100:
            if step.seconds:
                move = "warm: {bake_seconds: …} keeps the old release; an SLO goes on watching"
                draft.lost(step.place, "a wait with all users moved: that is the promotion", move)
        elif step.weight == highest and kept:
            kept[-1].seconds += step.seconds
            kept[-1].open |= step.open
        elif step.weight < highest:
            draft.lost(step.place, f"back to {step.weight:g}%: steps rise", "leave it out")
        elif step.weight >= 0.1:
            kept.append(step)
    if not kept:
        return
    draft.set("canary.steps", [round(step.weight, 1) for step in kept], source)
    _set_times(draft, kept, source)


def _set_times(draft: Draft, kept: Sequence[Step], source: Place) -> None:
    timed = [step for step in kept if step.seconds or not step.open]
    total = sum(step.seconds for step in timed)
    if total <= 0:
        return
    each = max(1.0, round(total / len(timed), 1))
    draft.set("canary.seconds_per_step", each, source)
    if len({step.seconds for step in timed}) > 1:
        told = ", ".join(f"{step.weight:g}% {step.seconds:g} s" for step in timed[:10])
        what = f"steps of unlike length ({told}) last {each:g} s each, as long in all"
        draft.lost(source, what, "change canary.steps if one of them is to last longer")
    looks = (len(kept) * each + DEFAULT.patience) / MOST_LOOKS
    every = min(each, max(DEFAULT.look_every, float(int(looks) + 1) if looks > DEFAULT.look_every else 0))
    if every != DEFAULT.look_every:
        draft.set("canary.look_every", every, source)


def set_margin(draft: Draft, points: float, place: Place, unit: str) -> bool:
    """An absolute limit of failed requests, in per cent, as the margin of the judge; whether it can be one.

    The judge compares with the stable release: its margin alone says how much worse may be.
    """
    if not 0 <= points < WIDEST:
        return False
    points = round(points, 4)
    draft.set("canary.judge.ratio", 1 if points else 2, place)
    draft.set("canary.judge.points", points, place)
    worse = f"at most {points:g} points more failures than the stable release" if points else "at most twice"
    draft.lost(place, f"an absolute limit ({unit}) is {worse} here", SLO)
    return True
