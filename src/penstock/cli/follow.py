"""Watching a delivery until it ends, step by step. Called by ``ship``, ``rollback`` and the demo."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

from penstock.cli.client import Client
from penstock.cli.show import mark, say
from penstock.errors import Unavailable

POLL_SECONDS = 0.2
#: How long a server may be away (being restarted, say) before watching gives up.
ABSENT_SECONDS = 30.0


def follow(
    client: Client, delivery: str, step_done: Callable[[dict[str, Any]], None], seconds: float = 3600.0
) -> dict[str, Any]:
    """Poll until the delivery ends, giving each finished step once; returns its last view.

    A look that says the same as the one before it is passed over.
    """
    shown: set[str] = set()
    said = ""
    began = seen = time.monotonic()
    while time.monotonic() < began + seconds:
        try:
            view: dict[str, Any] = client.get(f"/v1/deliveries/{delivery}")
            seen = time.monotonic()
        except Unavailable:
            if time.monotonic() > seen + ABSENT_SECONDS:
                raise
            time.sleep(POLL_SECONDS)
            continue
        for step in view["steps"]:
            if step["key"] not in shown:
                shown.add(step["key"])
                if not (step["reason"] == said and "look" in step["name"]):
                    step_done(step)
                said = step["reason"]
        if view["ended"]:
            return view
        time.sleep(POLL_SECONDS)
    raise Unavailable(f"{delivery} did not end within {seconds:.0f} s", next_move=f"penstock logs {delivery}")


def print_step(step: dict[str, Any]) -> None:
    """One finished step as a line."""
    sign = "…" if step["state"] == "pending" else mark(step["state"] in ("success", "skip"))
    line = f"  {sign} {step['name']:<22} {step['seconds']:6.1f} s  {first_line(step['reason'])}"
    say(_fitting(line) if sys.stdout.isatty() else line)


def _fitting(line: str) -> str:
    """As much of it as a terminal's line holds; whoever reads a file or a pipe gets all of it."""
    room = max(80, shutil.get_terminal_size().columns)
    return line if len(line) <= room else f"{line[: room - 1]}…"


def first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else ""
