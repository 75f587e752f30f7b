"""Reads one counter out of metrics as text: the Prometheus exposition format, or OpenMetrics.

Called by platforms, which ask copies for it, and by `canaryconfig`, which checks what is asked for. It reads
the lines of one name and passes over the rest, whatever that is: a service may expose ten thousand others.
What it reads must be right, or `Invalid` says which line is not, and not what it holds.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from penstock.core.codec import MAX_INT
from penstock.errors import Invalid

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\\n]|\\.)*)"\s*(?:,|(?=\}))')
END = re.compile(r"\s*\}")
ESCAPED, NEWLINE = re.compile(r"\\(.)"), {"n": "\n"}
#: A time above this is in milliseconds, as the exposition format has it; OpenMetrics has seconds.
MILLISECONDS = 1e11

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Selector:
    """Every series of a *name* that has these *labels* and any others."""

    name: str
    labels: Labels = frozenset()


@dataclass(frozen=True)
class Told:
    """The sum of what was selected, and the oldest time that was said of it (seconds since 1970), if any."""

    value: int
    at: float | None = None


def selector(text: str, where: str = "") -> Selector:
    """``name`` or ``name{label="value"}``. `Invalid` if it is neither."""
    name = NAME.match(text)
    if name is None:
        move = 'payments_total{outcome="failed"}'
        raise Invalid(f"{text[:60]!r} is no name of a counter", where=where, next_move=move)
    try:
        labels, rest = _labels(text[name.end() :])
    except Invalid as error:
        raise Invalid(f"{text[:60]!r}: {error.what}", where=where) from error
    if rest.strip():
        raise Invalid(f"{text[:60]!r}: only labels with exact values can be asked for", where=where)
    return Selector(name[0], labels)


def told(text: str, wanted: Selector) -> Told | None:
    """What is said of a counter; None if there is no such name. A name that is declared, or there with other
    labels only, has counted nothing yet: libraries write a series once it has happened."""
    known, total, oldest = False, 0, math.inf
    seen: set[Labels] = set()
    for number, line in enumerate(text.split("\n"), 1):
        if not line.startswith(wanted.name):
            known = known or _declares(line, wanted.name)
            continue
        rest = line[len(wanted.name) :]
        if rest[:1] not in ("{", " ", "\t"):
            continue  # a longer name
        try:
            labels, value, at = _sample(rest)
        except Invalid as error:
            raise Invalid(f"{wanted.name}: {error.what}", where=f"line {number}") from error
        if labels in seen:
            raise Invalid(f"{wanted.name}: the same series twice", where=f"line {number}")
        seen.add(labels)
        known = True
        if wanted.labels <= labels:
            total += _whole(value, f"line {number}: {wanted.name}")
            oldest = min(oldest, at)
    if not known:
        return None
    return Told(total, oldest if math.isfinite(oldest) else None)


def _declares(line: str, name: str) -> bool:
    words = line.split(None, 3)
    # OpenMetrics declares a counter without its suffix.
    return len(words) == 4 and words[:2] == ["#", "TYPE"] and name in (words[2], f"{words[2]}_total")


def _sample(rest: str) -> tuple[Labels, str, float]:
    """Labels, value and time (infinite: none) of a line without its name."""
    labels, after = _labels(rest)
    words = after.partition(" # ")[0].split()
    if len(words) not in (1, 2):
        raise Invalid("neither a value nor a value and a time")
    if len(words) == 1:
        return labels, words[0], math.inf
    at = _number(words[1])
    return labels, words[0], at / 1000 if at > MILLISECONDS else at


def _labels(text: str) -> tuple[Labels, str]:
    """The labels at the beginning, and what comes after them."""
    if not text.startswith("{"):
        return frozenset(), text
    found: dict[str, str] = {}
    place = 1
    while (end := END.match(text, place)) is None:
        match = LABEL.match(text, place)
        if match is None or match[1] in found:
            raise Invalid("labels that do not end" if match is None else f"the label {match[1]} twice")
        found[match[1]] = ESCAPED.sub(lambda escaped: NEWLINE.get(escaped[1], escaped[1]), match[2])
        place = match.end()
    return frozenset(found.items()), text[end.end() :]


def _number(text: str) -> float:
    try:
        found = float(text.replace("_", "no"))  # Python would take 1_000
    except ValueError as error:
        raise Invalid("what should be a number is none") from error
    if not math.isfinite(found):
        raise Invalid(f"{text[:20]} is no number of events")
    return found


def _whole(text: str, where: str) -> int:
    try:
        found = _number(text)
    except Invalid as error:
        raise Invalid(error.what, where=where) from error
    if found != math.floor(found) or not 0 <= found <= MAX_INT:
        raise Invalid(f"{text[:20]} is no whole number from 0", where=where)
    return int(found)
