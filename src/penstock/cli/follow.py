"""Watching a delivery until it ends, step by step. Called by ``ship``, ``rollback`` and the demo."""

from __future__ import annotations

import shutil
import sys
import textwrap
import time
from collections.abc import Callable
from typing import Any

from penstock.cli.client import Client
from penstock.cli.show import mark, say
from penstock.errors import Unavailable

POLL_SECONDS = 0.2
#: How long a server may be away (being restarted, say) before watching gives up.
ABSENT_SECONDS = 30.0
#: What is done by then needs no word before it is; what is not, whoever waits may want to look into.
QUICK_SECONDS = 1.0
SLOW_SECONDS = 5.0
#: How wide a line is where no terminal says so.
WIDE = 140


def follow(
    client: Client,
    delivery: str,
    step_done: Callable[[dict[str, Any]], None],
    seconds: float = 3600.0,
    at_work: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Poll until the delivery ends, giving each finished step once; returns its last view.

    A look that says the same as the one before it is passed over. *at_work* is told, again and again, what is
    being done meanwhile ("" before there is something else to show).
    """
    shown: set[str] = set()
    said = ""
    began = seen = last = time.monotonic()
    while time.monotonic() < began + seconds:
        try:
            view: dict[str, Any] = client.get(f"/v1/deliveries/{delivery}")
            seen = time.monotonic()
        except Unavailable:
            at_work("")
            if time.monotonic() > seen + ABSENT_SECONDS:
                raise
            time.sleep(POLL_SECONDS)
            continue
        for step in view["steps"]:
            if step["key"] not in shown:
                shown.add(step["key"])
                last = seen
                at_work("")
                if not (step["reason"] == said and "look" in step["name"]):
                    step_done(step)
                said = step["reason"]
        if view["ended"]:
            at_work("")
            return view
        at_work(doing(view, seen - last))
        time.sleep(POLL_SECONDS)
    at_work("")
    raise Unavailable(f"{delivery} did not end within {seconds:.0f} s", next_move=f"penstock logs {delivery}")


def doing(view: dict[str, Any], seconds: float) -> str:
    """What a delivery has been at for so long, as a line; "" if that is nothing worth a word."""
    stages = [stage["name"] for stage in view["stages"] if stage["state"] == "executing"]
    if not stages or seconds < QUICK_SECONDS:
        return ""
    words = f"; its output: penstock logs {view['id']} {stages[0]}" if seconds >= SLOW_SECONDS else ""
    return f"  … {', '.join(stages):<22} {seconds:6.1f} s{words}"


def print_at_work(line: str) -> None:
    """On a terminal alone: a line that the next one takes the place of."""
    if sys.stdout.isatty():
        # ESC[K empties the rest of the line; without a newline, what comes next begins where this one did.
        print(f"\r\x1b[K{_fitting(line, 1)}", end="", flush=True)


def print_step(step: dict[str, Any]) -> None:
    """One finished step: as a line where that has to fit; in a file or a pipe, all that there is to say."""
    sign = "…" if step["state"] == "pending" else mark(step["state"] in ("success", "skip"))
    head = f"  {sign} {step['name']:<22} {step['seconds']:6.1f} s  "
    line = head + first_line(step["reason"])
    if sys.stdout.isatty():
        say(_fitting(line))
    else:
        say(_wrapped(line, len(head)))


def _wrapped(line: str, indent: int) -> str:
    """In lines as wide as people read them; a path or an id is never cut."""
    return textwrap.fill(
        line, WIDE, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )


def _fitting(line: str, least: int = 80) -> str:
    """As much of it as a terminal's line holds."""
    room = max(least, shutil.get_terminal_size().columns)
    return line if len(line) <= room else f"{line[: room - 1]}…"


def first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else ""
