"""Picks the lines of a log that report something bad: they contain a given text, or are JSON of a given level
or worse.

Called by platforms, which have the logs. Pure. Only plain texts, no regular expressions: they come with a
commit and run in the process that keeps everybody's services alive, so no line may take long.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from penstock.core.canaryconfig import Metric

#: A longer line is not read as JSON.
LONGEST = 64 * 1024
#: From where on a level is as bad: the words of the usual libraries, and the numbers of bunyan and pino.
LEVELS: dict[str, tuple[int, frozenset[str]]] = {
    "warning": (40, frozenset({"warn", "warning"})),
    "error": (50, frozenset({"error", "err", "severe"})),
    "critical": (60, frozenset({"critical", "crit", "fatal", "alert", "panic", "emergency", "emerg"})),
}
FIELDS = ("level", "severity", "levelname", "log.level")


def bad_lines(metric: Metric, lines: Iterable[bytes]) -> int:
    """How many of *lines* count."""
    texts = [text.encode() for text in metric.contains]
    return sum(any(text in line for text in texts) or _level(line, metric.level) for line in lines)


def _level(line: bytes, wanted: str) -> bool:
    if not wanted or len(line) > LONGEST or not line.lstrip().startswith(b"{"):
        return False
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return any(_as_bad(said.get(name), wanted) for name in FIELDS)


def _as_bad(level: object, wanted: str) -> bool:
    least = LEVELS[wanted][0]
    if type(level) is int:
        return level >= least
    return isinstance(level, str) and any(
        number >= least and level.lower() in words for number, words in LEVELS.values()
    )
