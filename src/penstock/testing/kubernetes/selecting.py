"""Label and field selectors, as queries have them. Pure. What is not understood is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from penstock.testing.kubernetes.problems import Problem

Object = dict[str, Any]
Test = Callable[[Object], bool]

_SET = re.compile(r"(?P<key>[^\s!=,()]+)\s+(?P<how>in|notin)\s+\((?P<values>[^)]*)\)")
_EQUAL = re.compile(r"(?P<key>[^\s!=,()]+)\s*(?P<how>==|=|!=)\s*(?P<value>[^\s,()]*)")
_PRESENT = re.compile(r"(?P<no>!?)(?P<key>[^\s!=,()]+)")


def labels(selector: str) -> Test:
    tests = [_label(part) for part in re.split(r",(?![^(]*\))", selector) if part.strip()]
    return lambda value: all(test(value["metadata"].get("labels") or {}) for test in tests)


def _label(part: str) -> Callable[[dict[str, str]], bool]:
    part = part.strip()
    if found := _SET.fullmatch(part):
        key, values = found["key"], {v.strip() for v in found["values"].split(",")}
        inside = found["how"] == "in"
        return lambda known: (known.get(key) in values) is inside
    if found := _EQUAL.fullmatch(part):
        key, value, same = found["key"], found["value"], found["how"] != "!="
        return lambda known: (known.get(key) == value) is same
    if found := _PRESENT.fullmatch(part):
        key, wanted = found["key"], not found["no"]
        return lambda known: (key in known) is wanted
    raise Problem(400, f"unable to parse requirement: {part}")


def selected(selector: Object | None, known: dict[str, str]) -> bool:
    """Whether labels are those of a selector as objects have it; nothing selects everything."""
    for key, value in ((selector or {}).get("matchLabels") or {}).items():
        if known.get(key) != value:
            return False
    for asked in (selector or {}).get("matchExpressions") or []:
        key, values = asked["key"], asked.get("values") or []
        met = {
            "In": key in known and known[key] in values,
            "NotIn": key not in known or known[key] not in values,
            "Exists": key in known,
            "DoesNotExist": key not in known,
        }
        if not met[asked["operator"]]:
            return False
    return True


def fields(selector: str) -> Test:
    pairs = [part.partition("=") for part in selector.split(",") if part]
    return lambda value: all(_at(value, path) == wanted.removeprefix("=") for path, _, wanted in pairs)


def _at(value: Any, path: str) -> str:
    for part in path.split("."):
        value = value.get(part, "") if isinstance(value, dict) else ""
    return str(value)
