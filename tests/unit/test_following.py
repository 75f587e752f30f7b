"""What ``ship`` shows of a delivery on its way, and what is at work meanwhile."""

from __future__ import annotations

from typing import Any, cast

import pytest

from penstock.cli.client import Client
from penstock.cli.follow import doing, follow


def view(*steps: str, at_work: str = "", ended: bool = False) -> dict[str, Any]:
    return {
        "id": "shop-1",
        "ended": ended,
        "steps": [{"key": name, "name": name, "reason": name} for name in steps],
        "stages": [
            {"name": name, "state": "executing" if name == at_work else "success"}
            for name in ("build", "scan")
        ],
    }


class Told:
    """A server with these answers."""

    def __init__(self, *views: dict[str, Any]) -> None:
        self._views = list(views)

    def get(self, path: str) -> dict[str, Any]:
        return self._views.pop(0)


def test_a_line_about_what_is_at_work_gives_way_to_each_step_and_to_the_end() -> None:
    server = Told(view("build", at_work="scan"), view("build", "scan", ended=True))
    shown: list[str] = []
    follow(
        cast(Client, server),
        "shop-1",
        lambda step: shown.append(step["name"]),
        at_work=lambda line: shown.append(f"<{line}>"),
    )
    assert shown == ["<>", "build", "<>", "<>", "scan", "<>"]


@pytest.mark.parametrize(
    ("seconds", "says"),
    [(0.5, ""), (2.0, "  … scan                      2.0 s"), (8.0, "its output: penstock logs shop-1 scan")],
)
def test_what_takes_long_says_how_long_and_what_tells_more(seconds: float, says: str) -> None:
    line = doing(view("build", at_work="scan"), seconds)
    assert line == says if seconds < 5 else says in line


def test_nothing_is_said_of_a_delivery_that_only_waits() -> None:
    assert doing(view("build"), 60.0) == ""
