"""The picture of a canary: numbers for an SVG that the server draws. No script, no colours: those are the
style sheet's, for light and dark.

Called by `pages`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from penstock.analysis.replay import Effect, Replayed, Seen

WIDTH, HEIGHT = 720, 190
#: Room for labels around the plot.
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 22, 26
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
    *metrics* are the effects by metrics of the service's own."""

    rates: Panel
    effect: Panel
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


def _effect(title: str, effects: Sequence[Effect], x: _Scale) -> Panel:
    """Early bounds are far apart, and would flatten what counts: they are cut at thrice the last ones."""
    last = effects[-1]
    far = max(abs(last.low), abs(last.high), last.margin, 0.001)
    low, high = min(last.low, -0.2 * far) * 3, max(last.high, last.margin * 0.6) * 3
    y = _Scale(low, high, HEIGHT - BOTTOM, TOP)
    above = [(x.at(e.at), y.at(e.high)) for e in effects]
    below = [(x.at(e.at), y.at(e.low)) for e in effects]
    line = Line(_points((x.at(e.at), y.at(e.effect)) for e in effects), "effect")
    ticks = _ticks(y, (low / 3, 0.0, last.margin, high / 3))
    words = f"{title}, in points, with its interval at all looks together"
    return Panel(words, (line,), _points([*above, *reversed(below)]), ticks, y.at(0.0), y.at(last.margin))


def _ticks(y: _Scale, values: Iterable[float]) -> tuple[Mark, ...]:
    """Labels, less those that would cover one another."""
    kept: list[Mark] = []
    for value in values:
        mark = Mark(LEFT - 6, y.at(value), f"{100 * value:.2g}")
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
