"""The picture of a canary stays inside its frame, whatever was seen; and closes in on what was judged."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.analysis.replay import replay
from penstock.analysis.spans import Arm, Span
from penstock.core.canary import Rule
from penstock.server.chart import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Picture, picture, picture_of

RULE = Rule(60.0)


def drawn(*looks: tuple[Arm, Arm]) -> Picture | None:
    spans = [Span(5.0 * n, 100 if n < 3 else 500, *arms) for n, arms in enumerate(looks, 1)]
    return picture(replay(spans, RULE))


@pytest.mark.parametrize(
    "looks",
    [
        [(Arm(1, 0), Arm(1, 0))],
        [(Arm(1, 1), Arm(1, 1))] * 3,
        [(Arm(100_000, 0), Arm(100_000, 100_000))] * 2,
        [(Arm(0, 0), Arm(5, 1)), (Arm(5, 0), Arm(0, 0)), (Arm(50, 3), Arm(50, 0))],
        [(Arm(1000, 2), Arm(1000, 1))] * 30,
    ],
)
def test_whatever_was_seen_is_inside_the_frame(looks: list[tuple[Arm, Arm]]) -> None:
    found = drawn(*looks)
    assert found is not None
    texts = [found.effect.band, *(line.points for line in (*found.rates.lines, *found.effect.lines))]
    for point in " ".join(texts).split():
        x, y = map(float, point.split(","))
        assert LEFT <= x <= WIDTH - RIGHT
        assert TOP <= y <= HEIGHT - BOTTOM


@pytest.mark.parametrize("looks", [[], [(Arm(0, 0), Arm(0, 0))], [(Arm(0, 0), Arm(9, 0))] * 4])
def test_nothing_seen_is_no_picture(looks: list[tuple[Arm, Arm]]) -> None:
    assert drawn(*looks) is None


def test_it_says_where_and_why_it_stopped() -> None:
    good, bad = (Arm(50, 0), Arm(400, 0)), (Arm(50, 40), Arm(400, 0))
    found = drawn(good, good, bad, bad)
    assert found is not None
    assert found.end.text == "FAIL, stopped at look 3"
    assert found.words.startswith("worse than the stable release: 40 of 150 failed")
    assert [step.text for step in found.steps] == ["10%", "50%"]
    assert found.steps[0].x == LEFT < found.steps[1].x < found.end.x
    assert found.end.x == WIDTH - RIGHT


def test_of_many_looks_only_some_are_drawn_and_the_last() -> None:
    spans = [Span(float(n), 500, Arm(100, 0), Arm(100, 0)) for n in range(1, 201)]
    found = replay(spans, RULE, most=10)
    assert (len(found.looks), found.looks[-1].at) == (10, 200.0)
    assert len(replay(spans[:5], RULE, most=10).looks) == 5


# --- an experiment -----------------------------------------------------------------------------------------


def variant(*course: dict[str, float | None], bar: float = 1.0) -> dict[str, Any]:
    return {"verdict": "PASS", "explanation": "more", "bar": bar, "course": list(course)}


def seen_at(at: float, low: float, high: float | None, **more: float | None) -> dict[str, float | None]:
    return {"at": at, "control": 0.1, "variant": 0.12, "low": low, "high": high, **more}


def test_an_experiment_is_drawn_once_there_is_an_interval() -> None:
    assert picture_of(variant()) is None
    assert picture_of(variant(seen_at(1.0, 0.0, None), seen_at(2.0, 0.5, 2.0, control=None))) is None
    drawn = picture_of(variant(seen_at(1.0, 0.0, None), seen_at(2.0, 0.5, 2.0), seen_at(4.0, 1.1, 1.4)))
    assert drawn is not None
    assert [line.kind for line in drawn.rates.lines] == ["stable", "new"]
    assert len(drawn.effect.band.split()) == 4
    assert (drawn.verdict, drawn.effect.margin) == ("PASS", None)
    with_margin = picture_of(variant(seen_at(2.0, 0.9, 1.1), bar=0.95))
    assert with_margin is not None
    assert with_margin.effect.margin is not None
