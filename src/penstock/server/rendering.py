"""Templates, and what they know of numbers and times.

Called by `pages`, and by the guard for its refusals. Must not look anything up: it shows what it is given.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from penstock.analysis.budget import span
from penstock.core.decisive import decided_by
from penstock.errors import PenstockError

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def _when(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%d %b %H:%M:%S")


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"


def _size(count: int) -> str:
    if count < 10_000:
        return f"{count:,} bytes"
    return f"{count / 1e3:,.0f} kB" if count < 1e6 else f"{count / 1e6:,.1f} MB"


def _rate(arm: dict[str, Any]) -> str:
    return f"{100 * arm['reached'] / arm['users']:.2f}%" if arm["users"] else "–"


def _change(variant: dict[str, Any]) -> str:
    """The interval of the ratio of two rates, as a relative change."""
    high = f"{100 * (variant['high'] - 1):+.1f}%" if variant["high"] is not None else "more"
    return f"{100 * (variant['low'] - 1):+.1f}% to {high}"


def _person(author: str) -> str:
    """The name of whom a commit names, without the address."""
    return author.partition(" <")[0]


TEMPLATES.filters["decided_by"] = decided_by
TEMPLATES.filters["person"] = _person
TEMPLATES.filters["rate"] = _rate
TEMPLATES.filters["change"] = _change
TEMPLATES.filters["size"] = _size
TEMPLATES.filters["span"] = span
TEMPLATES.filters["when"] = _when
TEMPLATES.filters["duration"] = _duration


def page(template: str, title: str, isolation: str, **values: Any) -> HTMLResponse:
    text = TEMPLATES.get_template(template).render(title=title, isolation=isolation, **values)
    return HTMLResponse(text)


def problem(error: PenstockError, status: int, isolation: str = "") -> HTMLResponse:
    """What went wrong, as a page."""
    answer = page("problem.html", "That did not work", isolation, error=error)
    answer.status_code = status
    return answer
