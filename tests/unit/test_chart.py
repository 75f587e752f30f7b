"""The picture of a canary stays inside its frame, whatever was seen; and closes in on what was judged."""

from __future__ import annotations

import pytest

from penstock.analysis.replay import replay
from penstock.analysis.spans import Arm, Span
from penstock.core.canary import Rule
from penstock.server.chart import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Picture, picture

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
