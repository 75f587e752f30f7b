"""The pictures of a canary and of an experiment: numbers for an SVG that the server draws. No script, no
colours: those are the style sheet's, for light and dark.

Called by `pages`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.analysis.replay import Effect, Replayed, Seen

WIDTH, HEIGHT = 720, 190
#: Room for labels around the plot.
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 22, 26
#: Where early intervals are cut, in lengths of the last one.
BEYOND = 1.6
Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """SVG's ``points``, and the class that the style sheet colours."""

    points: str
    kind: str


@dataclass(frozen=True)
class Mark:
    """A text at a place; *line* is where a rule across the plot goes, None for none."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Panel:
    title: str
    lines: tuple[Line, ...]
    band: str
    ticks: tuple[Mark, ...]
    zero: float | None = None
    margin: float | None = None


@dataclass(frozen=True)
class Picture:
    """*steps* are the x where a step of the canary begins; *end* is the last look, *stopped* if it failed.
    *quantiles* are empty where there were no histograms, *metrics* the effects by metrics of the service's
    own."""

    rates: Panel
    effect: Panel
    quantiles: tuple[Panel, ...]
    steps: tuple[Mark, ...]
    end: Mark
    verdict: str
    words: str
    metrics: tuple[Panel, ...] = ()


def picture(found: Replayed) -> Picture | None:
    """None where there is nothing to be seen: no look at which both releases had answered."""
    told = [effect for look in found.looks if (effect := _of_failed(look)) is not None]
    if not told:
        return None
    last = found.looks[-1]
    x = _Scale(0.0, last.at or 1.0, LEFT, WIDTH - RIGHT)
    where = f"stopped at look {found.stopped}" if found.stopped else f"{len(found.looks)} looks"
    return Picture(
        rates=_rates(found.looks, x),
        effect=_effect("How much more often the new release fails", told, x),
        quantiles=_quantiles(found.looks, x),
        steps=_steps(found.looks, x),
        end=Mark(x.at(last.at), TOP, f"{found.verdict}, {where}"),
        verdict=found.verdict,
        words=found.reason,
        metrics=tuple(_own(found.looks, x)),
    )


def _of_failed(look: Seen) -> Effect | None:
    if look.effect is None:
        return None
    return Effect("", look.at, look.effect, look.low or 0.0, look.high or 0.0, look.margin or 0.0)


def _own(looks: Sequence[Seen], x: _Scale) -> Iterator[Panel]:
    """A panel for each of the service's own metrics, in the order in which they are declared."""
    names = dict.fromkeys(effect.metric for look in looks for effect in look.metrics)
    for name in names:
        told = [effect for look in looks for effect in look.metrics if effect.metric == name]
        yield _effect(f"How much more is bad by {name}", told, x)


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        inside = min(max(value, self.low), self.high)
        return round(self.start + (inside - self.low) / (self.high - self.low) * (self.end - self.start), 1)


def _rates(looks: Sequence[Seen], x: _Scale) -> Panel:
    seen = [r for look in looks for r in (look.new_rate, look.stable_rate) if r is not None]
    y = _Scale(0.0, max(*seen, 0.001) * 1.1, HEIGHT - BOTTOM, TOP)
    lines = tuple(
        Line(_points((x.at(at), y.at(rate)) for at, rate in rates if rate is not None), kind)
        for kind, rates in (
            ("stable", [(look.at, look.stable_rate) for look in looks]),
            ("new", [(look.at, look.new_rate) for look in looks]),
        )
    )
    return Panel("Failed requests, per cent of each look's", lines, "", _ticks(y, (0.0, y.high / 1.1)))


@dataclass(frozen=True)
class _Bounded:
    """A difference at a look, and where it may be; no bound is as far as one can see."""

    at: float
    effect: float
    low: float
    high: float
    margin: float | None


def _effect(title: str, effects: Sequence[Effect], x: _Scale) -> Panel:
    told = [_Bounded(e.at, e.effect, e.low, e.high, e.margin) for e in effects]
    words = f"{title}, in points, with its interval at all looks together"
    return _closing_in(words, told, x, least=0.001, unit=100)


def _quantiles(looks: Sequence[Seen], x: _Scale) -> tuple[Panel, ...]:
    """How much slower each quantile is; the same ones at every look that has any."""
    names = dict.fromkeys(timed.name for seen in looks for timed in seen.quantiles)
    panels = []
    for name in names:
        told = [
            _Bounded(
                seen.at,
                timed.new - timed.stable,
                -math.inf if timed.low is None else timed.low,
                math.inf if timed.high is None else timed.high,
                timed.margin,
            )
            for seen in looks
            for timed in seen.quantiles
            if timed.name == name
        ]
        title = (
            f"How much slower {name} of the new release is, in ms, with its interval at all looks together"
        )
        panels.append(_closing_in(title, told, x, least=1.0, unit=1))
    return tuple(panels)


def _closing_in(title: str, looks: Sequence[_Bounded], x: _Scale, least: float, unit: float) -> Panel:
    """Early bounds are far apart, and would flatten what counts: they are cut near the last ones."""
    last, margin = looks[-1], looks[-1].margin or 0.0
    far = max(margin, least, *(abs(end) for end in (last.low, last.high, last.effect) if math.isfinite(end)))
    lowest = last.low if math.isfinite(last.low) else -far
    highest = last.high if math.isfinite(last.high) else far
    low, high = min(lowest, -0.2 * far) * BEYOND, max(highest, margin * 0.6) * BEYOND
    y = _Scale(low, high, HEIGHT - BOTTOM, TOP)
    above = [(x.at(look.at), y.at(look.high)) for look in looks]
    below = [(x.at(look.at), y.at(look.low)) for look in looks]
    line = Line(_points((x.at(look.at), y.at(look.effect)) for look in looks), "effect")
    ticks = _ticks(y, (low / BEYOND, 0.0, margin, high / BEYOND), unit)
    return Panel(
        title,
        (line,),
        _points([*above, *reversed(below)]),
        ticks,
        y.at(0.0),
        None if last.margin is None else y.at(margin),
    )


def _ticks(y: _Scale, values: Iterable[float], unit: float = 100) -> tuple[Mark, ...]:
    """Labels, less those that would cover one another."""
    kept: list[Mark] = []
    for value in values:
        mark = Mark(LEFT - 6, y.at(value), f"{unit * value:.2g}" if unit > 1 else f"{value:.3g}")
        if all(abs(mark.y - other.y) >= 12 for other in kept):
            kept.append(mark)
    return tuple(kept)


def _steps(looks: Sequence[Seen], x: _Scale) -> tuple[Mark, ...]:
    found, before, share = [], 0.0, -1
    for look in looks:
        if look.share != share:
            share = look.share
            found.append(Mark(x.at(before), HEIGHT - 8, f"{share / 10:g}%"))
        before = look.at
    return tuple(found)


def _points(points: Iterable[Point]) -> str:
    return " ".join(f"{px},{py}" for px, py in points)


# --- an experiment -----------------------------------------------------------------------------------------


def picture_of(variant: dict[str, Any]) -> Picture | None:
    """A variant beside the control, as the API tells it; None where there is nothing to be seen yet."""
    told = [look for look in variant["course"] if None not in look.values()]
    if not told:
        return None
    last = told[-1]
    x = _Scale(0.0, last["at"] or 1.0, LEFT, WIDTH - RIGHT)
    end = Mark(x.at(last["at"]), TOP, variant["verdict"])
    return Picture(
        rates=_reaching(told, x),
        effect=_ratios(told, variant["bar"], x),
        quantiles=(),
        steps=(),
        end=end,
        verdict=variant["verdict"],
        words=variant["explanation"],
    )


def _reaching(looks: Sequence[dict[str, Any]], x: _Scale) -> Panel:
    seen = [look[who] for look in looks for who in ("control", "variant")]
    y = _Scale(0.0, max(*seen, 0.001) * 1.1, HEIGHT - BOTTOM, TOP)
    lines = tuple(
        Line(_points((x.at(look["at"]), y.at(look[who])) for look in looks), kind)
        for who, kind in (("control", "stable"), ("variant", "new"))
    )
    return Panel("Users who have reached the goal, per cent", lines, "", _ticks(y, (0.0, y.high / 1.1)))


def _ratios(looks: Sequence[dict[str, Any]], bar: float, x: _Scale) -> Panel:
    """Early intervals are wide, and would flatten what counts: they are cut near the last one."""
    bounds = [(look["at"], look["low"] - 1, look["high"] - 1) for look in looks]
    low = min(bounds[-1][1], bar - 1, -0.01) * BEYOND
    high = max(bounds[-1][2], 0.01) * BEYOND
    y = _Scale(low, high, HEIGHT - BOTTOM, TOP)
    above = [(x.at(at), y.at(most)) for at, _, most in bounds]
    below = [(x.at(at), y.at(least)) for at, least, _ in bounds]
    seen = ((look["at"], look["variant"] / look["control"] - 1) for look in looks if look["control"])
    middle = Line(_points((x.at(at), y.at(ratio)) for at, ratio in seen), "effect")
    title = "How many more of its users reach it, per cent, with the interval at all looks together"
    ticks = _ticks(y, (low / BEYOND, 0.0, bar - 1, high / BEYOND))
    margin = y.at(bar - 1) if bar < 1 else None
    return Panel(title, (middle,), _points([*above, *reversed(below)]), ticks, y.at(0.0), margin)
