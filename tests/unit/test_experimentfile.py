"""What an experiment's file may say, and what is said of one that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.errors import Invalid
from penstock.experimentfile import parse_experiment

EXAMPLE = Path(__file__).parents[2] / "examples/04-experiment/experiments/button.yaml"
TEXT = """\
experiment: button
service: shop
variants:
  fast: {BUTTON: Go}
  loud: {BUTTON: GO}
goal: {path: /orders}
"""


def test_the_example_and_its_defaults() -> None:
    found = parse_experiment(EXAMPLE.read_bytes(), "button.yaml")
    assert (found.service, found.names, found.control) == ("shop", ("control", "fast"), 500)
    assert (found.terms.alpha, found.terms.effect, found.terms.longest) == (0.05, 0.5, 86400.0)
    both = parse_experiment(TEXT.encode(), "b.yaml")
    assert (both.control, [variant.share for variant in both.variants]) == (334, [333, 333])
    few = parse_experiment(f"{TEXT}share: 5\n".encode(), "b.yaml")
    assert (few.control, [variant.share for variant in few.variants]) == (900, [50, 50])


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("fast: {BUTTON: Go}", "fast: {}", 4, "nothing differs"),
        ("fast:", "control:", 4, "the control is what is live"),
        ("fast:", "Fast:", 4, "is not a name"),
        ("service: shop", "service: ../shop", 2, "is not a name"),
        ("/orders", "orders", 6, "is no path"),
        ("/orders", "'/orders?x=1'", 6, "is no path"),
        ("/orders", "/or*", 6, "a star follows a slash"),
        ("{path: /orders}", "{path: /orders, method: get}", 6, "one of GET, POST"),
        ("goal:", "alpha: 50\ngoal:", 6, "from 0.01 to 20 per cent, found 50"),
        ("goal:", "share: 60\ngoal:", 6, "at most 90 in all"),
        ("goal:", "longest_hours: 0\ngoal:", 6, "from a minute to 90 days"),
        ("goal:", "expect: best\ngoal:", 6, "expect"),
        ("goal: {path: /orders}", "", 1, "goal"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(old: str, new: str, line: int, said: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_experiment(TEXT.replace(old, new).encode(), "b.yaml")
    assert said in str(caught.value)
    assert f"b.yaml:{line}" in str(caught.value)
    assert "next: " in str(caught.value)
