"""What people see: lines, tables, marks. Colours only on a terminal, and never with NO_COLOR.

Called by every command. Messages for people go through `say`; documents for scripts through `document`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from penstock.errors import Invalid

#: Other people's words (a commit's title, a program's output) must not drive the reader's terminal.
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
COLOURS = {"✓": "32", "✗": "31", "…": "33", "▸": "36"}


def say(text: str = "") -> None:
    """A line on standard output, at once."""
    print(_coloured(text, sys.stdout.isatty()), flush=True)


def complain(text: str) -> None:
    """A line on standard error."""
    print(_coloured(text, sys.stderr.isatty()), file=sys.stderr, flush=True)


def document(value: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False), flush=True)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns as wide as their widest cell, no rules but one under the head."""
    cells = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(line.rstrip() for line in [lines[0], "  ".join("─" * w for w in widths), *lines[1:]])


def told(given: argparse.Namespace, value: Any, text: str) -> int:
    """The answer, as the caller asked for it: a document, or words. The exit code of a success."""
    if given.format == "json":
        document(value)
    else:
        say(text)
    return 0


def read(path: Path) -> bytes:
    """A file that the caller named."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise Invalid(f"cannot be read: {error.strerror}", where=str(path)) from error


def overridden(signed: dict[str, Any]) -> str:
    """Who let a sign-off pass although its policy did not, in words; "" if nobody had to."""
    override = signed["override"]
    return f", overridden by {override['identity']}: {override['reason']}" if override else ""


def mark(good: bool) -> str:
    return "✓" if good else "✗"


def _coloured(text: str, terminal: bool) -> str:
    text = CONTROLS.sub("", text)
    if not terminal or os.environ.get("NO_COLOR"):
        return text
    for sign, code in COLOURS.items():
        text = text.replace(sign, f"\x1b[{code}m{sign}\x1b[0m")
    return text
