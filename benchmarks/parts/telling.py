"""How benchmarks tell what they found: goals, and tables in Markdown. Called by `benchmarks.judge`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Goal:
    what: str
    met: bool
    figure: str


def number(value: float) -> str:
    return "–" if not np.isfinite(value) else f"{value:,.0f}"


def table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
